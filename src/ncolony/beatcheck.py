"""The check of heartbeats under its upstream module name; the code is in :mod:`ncolony.apps.checks.beatcheck`."""

from ncolony.apps.checks.beatcheck import Options, check, makeService, parseConfig, run

__all__ = ["Options", "check", "makeService", "parseConfig", "run"]
