"""`check`: what is wrong with config files, before a supervisor sees them."""

from __future__ import annotations

from ncolony.cli import say

TYPE_CHECKING = False  # see ctllib
if TYPE_CHECKING:
    from typing import Any


def run(options: dict[str, Any]) -> int:
    """Tell what is wrong with the files that the parsed options name; returns 1 when they cannot be used."""
    from ncolony.ctllib.checking import as_json, check

    paths = options["paths"] or [options["config"]]
    found = check(paths, strict_modes=not options["no_strict_modes"])
    if options["json"]:
        import json

        say(json.dumps(as_json(found), indent=2) + "\n")
    else:
        say("".join(f"{one}\n" for one in found))
    problems = sum(not one.is_warning for one in found)
    if not options["json"]:
        warnings = len(found) - problems
        say(f"{_number(problems, 'problem')}, {_number(warnings, 'warning')}\n")
    return 1 if problems or (found and options["strict"]) else 0


def _number(count: int, what: str) -> str:
    return f"{count or 'no'} {what}{'' if count == 1 else 's'}"
