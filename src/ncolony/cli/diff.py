"""`diff`: what would happen if other files were the configuration."""

from __future__ import annotations

from ncolony import ctllib
from ncolony.cli import complain, say
from ncolony.model.names import printable

TYPE_CHECKING = False  # see ctllib
if TYPE_CHECKING:
    from typing import Any

    from ncolony.ctllib.differing import Change

# As diff(1) has them.
SAME, DIFFERENT, TROUBLE = 0, 1, 2


def run(options: dict[str, Any]) -> int:
    """Tell what the directory that the parsed options name would change; returns the exit status."""
    from ncolony.ctllib.differing import diff

    places = ctllib.Places(options["config"], options["messages"])
    try:
        found = diff(places, options["source"])
    except ctllib.Error as error:
        complain(str(error))
        return TROUBLE
    if options["json"]:
        import json

        from ncolony.ctllib.checking import as_json

        changes = [_as_json(change) for change in found.changes]
        say(
            json.dumps({"same": found.is_same, "changes": changes, "problems": as_json(found.problems)}, indent=2)
            + "\n"
        )
    else:
        say("".join(_line(change) for change in found.changes if change.action != "unchanged" or change.why))
        for problem in found.problems:
            complain(str(problem))
    if found.problems:
        return TROUBLE
    return SAME if found.is_same else DIFFERENT


def _line(change: Change) -> str:
    said = f"{printable(change.name)}: {change.action}"
    said += f" ({change.why})" if change.why else ""
    said += f": {', '.join(map(printable, change.keys))}" if change.keys else ""
    return said + "\n"


def _as_json(change: Change) -> dict[str, Any]:
    keys = ("name", "file", "action", "keys", "why")
    return {key: getattr(change, key) for key in keys}
