"""`why`: what is behind the state of processes, and what can be done."""

from __future__ import annotations

import os
import time

from ncolony import ctllib
from ncolony.cli import complain, say
from ncolony.cli.choose import look
from ncolony.cli.past import how, moment, printed, size, span
from ncolony.cli.show import ALL_RUNNING, NO_SUCH_PROCESS, NOT_RUNNING, duration
from ncolony.ctllib.explain import explained
from ncolony.model.names import printable

TYPE_CHECKING = False  # see ctllib
if TYPE_CHECKING:
    from typing import Any

    from ncolony.ctllib import Places

_WIDTH = 12


def run(options: dict[str, Any]) -> int:
    """Explain the processes that the parsed options name; returns the exit status."""
    places, state = ctllib.Places(options["config"], options["messages"]), options.get("state")
    supervisor = ctllib.supervisor(places, state=state)
    records, missing = look(places, options["names"], state)
    ctl = _command(places, state)
    found = [explained(places, one, supervisor, state, ctl) for one in records]
    if options["json"]:
        import json

        say(json.dumps(found, indent=2) + "\n")
    else:
        parts = [_summary(found)] if len(found) > 1 else []
        say("\n".join("".join(f"{line}\n" for line in lines) for lines in [*parts, *map(_text, found)]))
    for pattern in missing:
        complain(f"cannot explain {pattern!r}: no such process")
    if missing:
        return NO_SUCH_PROCESS
    return ALL_RUNNING if all(one["as_wanted"] for one in found) else NOT_RUNNING


def _command(places: Places, state: str | None) -> str:
    """How the command line is called here: the directories are left out where the environment has them."""
    import shlex

    words = ["ncolony", "ctl"]
    variables = {ctllib.MESSAGES_VARIABLE: places.messages, ctllib.CONFIG_VARIABLE: places.config}
    if any(os.environ.get(variable) != path for variable, path in variables.items()):
        words += ["--messages", os.fspath(places.messages), "--config", os.fspath(places.config)]
    return shlex.join([*words, "--state", state] if state else words)


def _summary(found: list[dict[str, Any]]) -> list[str]:
    """How many are as wanted, and which are not."""
    wrong = [one for one in found if not one["as_wanted"]]
    said = [f"{len(found) - len(wrong)} of {len(found)} are as wanted"]
    return said + [printable(f"{one['name']}: {one['state']}: {one['because'] or one['wanted']}") for one in wrong]


def _text(one: dict[str, Any]) -> list[str]:
    now = time.time()
    waits = ", not ready yet" if one["state"] == "RUNNING" and not one["ready"] else ""
    since = f", since {moment(one['since'])}, for {duration(now - one['since'])}" if one["since"] else ""
    said = [printable(f"{one['name']}: {one['state']}{waits}{since}")]

    def add(what: str, *texts: str | None) -> None:
        for text in texts:
            if text:
                said.append(f"  {what.ljust(_WIDTH)} {printable(text)}")
                what = ""

    add("wanted", f"{one['wanted']} ({one['wanted_by']})")
    add("because", one["because"])
    add("waiting for", *one["waiting_for"])
    if one["next_try"] is not None:
        add("next try", f"in {one['next_try_in']:.0f} s, at {moment(one['next_try'])}")
    if one["problem"]:
        key = f"{one['problem']['key']}: " if one["problem"]["key"] else ""
        add("problem", f"{one['problem']['file']}: {key}{one['problem']['why']}")
    add("rolled back", one["rolled_back"])
    add("warning", *one["warnings"])
    if one["pid"] is not None:
        add("instance", f"{one['instance']}, pid {one['pid']}")
    for record in reversed(one["exits"]):
        past = ctllib.PastExit(record)
        stopped = f", {past.reason}" if past.reason else ""
        lived = f" after {span(past.lived)}" if past.started is not None else ""
        add("ended", f"{moment(past.at)}: {how(past)}{lived}{stopped}")
        said += [f"  {''.ljust(_WIDTH)} {line}" for line in (printed(past.lines) if record is one["exits"][-1] else [])]
    add(
        "restarts",
        f"{one['restarts']}; ended {one['ends_in_last_hour']} times in the last hour" if one["exits"] else None,
    )
    if isinstance(one["memory"], int):
        most = f" of {size(one['memory_max'] // 1024)}" if one["memory_max"] else ""
        add("memory", f"{size(one['memory'] // 1024)}{most}")
    runs = one["supervisor"]
    add("supervisor", ctllib.NO_SUPERVISOR if runs is None else f"pid {runs['pid']}, version {runs['version']}")
    add("problem", *(map(str, runs["problems"]) if runs else ()))
    if one["advice"]:
        said += ["What to do:", *(f"  - {printable(text)}" for text in one["advice"])]
    return said
