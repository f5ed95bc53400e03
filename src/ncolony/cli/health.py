"""`health`: whether all is well, for probes and for people."""

from __future__ import annotations

from ncolony import ctllib
from ncolony.cli import say
from ncolony.cli.choose import look
from ncolony.ctllib.checkup import examined

TYPE_CHECKING = False  # see ctllib
if TYPE_CHECKING:
    from typing import Any

# Docker's HEALTHCHECK knows no other.
HEALTHY, NOT_HEALTHY = 0, 1


def run(options: dict[str, Any]) -> int:
    """Tell what is not well with the processes that the parsed options name, or with all; returns the exit status."""
    places, state = ctllib.Places(options["config"], options["messages"]), options.get("state")
    records, missing = look(places, options["names"], state)
    troubles = examined(places, records, missing, state=state)
    if options["json"]:
        import json

        reasons = [trouble.record() for trouble in troubles]
        say(json.dumps({"healthy": not troubles, "reasons": reasons}, indent=2) + "\n")
    else:
        say("".join(f"{trouble}\n" for trouble in troubles) or "healthy\n")
    return NOT_HEALTHY if troubles else HEALTHY
