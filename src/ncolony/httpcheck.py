"""The check of web servers under its upstream module name; the code is in :mod:`ncolony.apps.checks.httpcheck`."""

from ncolony.apps.checks.httpcheck import Options, makeService, run

__all__ = ["Options", "makeService", "run"]
