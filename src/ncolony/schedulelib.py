"""The scheduler under its upstream module name; the code is in :mod:`ncolony.apps.scheduler`."""

from ncolony.apps.scheduler import Options, makeService

__all__ = ["Options", "makeService"]
