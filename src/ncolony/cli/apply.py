"""`apply`: make the config directory say what another directory says."""

from __future__ import annotations

import time

from ncolony import ctllib
from ncolony.cli import complain, say
from ncolony.model.names import printable

TYPE_CHECKING = False  # see ctllib
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ncolony.ctllib import Places
    from ncolony.ctllib.checking import Finding


def run(options: dict[str, Any]) -> int:
    """Put the files that the parsed options name where they belong; returns the exit status."""
    from ncolony.ctllib.applying import BadFiles, Outcome, apply

    places = ctllib.Places(options["config"], options["messages"])
    dry_run = options["dry_run"]
    outcome = Outcome({})
    problems: tuple[Finding, ...] = ()
    try:
        outcome = apply(places, options["source"], prune=options["prune"], dry_run=dry_run)
    except BadFiles as bad:
        problems = bad.problems
        for problem in problems:
            complain(str(problem))
    if options["json"]:
        import json

        from ncolony.ctllib.checking import as_json

        said = {"changed": outcome.is_changed, "files": outcome.files, "problems": as_json(problems)}
        say(json.dumps(said, indent=2) + "\n")
    else:
        say("".join(f"{printable(name)}: {what}\n" for name, what in outcome.files.items()))
    if problems:
        return 1
    wait = options.get("wait")
    if wait is None or dry_run:
        return 0
    return _see(places, outcome.files, wait, options.get("state"))


def _see(places: Places, names: Iterable[str], wait: float, state: ctllib.Path | None) -> int:
    """Wait until each is in effect, unchanged ones too: an earlier call may not have waited for them."""
    code = 0
    deadline = time.monotonic() + wait
    for name in names:
        try:
            ctllib.wait_for_applied(places, name, max(0.0, deadline - time.monotonic()), state=state)
        except ctllib.Error as error:
            complain(str(error))
            code = 1
    return code
