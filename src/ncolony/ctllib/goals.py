"""Waiting until processes are as one wants them, and until the whole config directory is in effect."""

from __future__ import annotations

import os
import time
from hashlib import blake2b

from ncolony.ctllib import DEFAULT_WAIT_S, GOALS, NO_SUPERVISOR, BadValue, Failed, TimedOut
from ncolony.ctllib.common import check_name, no_such_process, poll, read, shown, state_directory
from ncolony.ctllib.reports import Status, applied, definition, file_names, reported, shared_name, status, supervisor
from ncolony.ctllib.waits import as_it_is, hint, seconds, stands_for
from ncolony.model.names import printable

TYPE_CHECKING = False  # see ncolony.ctllib
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ncolony.ctllib import Path, Places
    from ncolony.ctllib.reports import Applied
    from ncolony.ctllib.waits import Meanwhile

# A supervisor that is just starting, or is being replaced, has this long to appear.
_GRACE_S = 5.0
# A state that leads nowhere must last this long once all was taken note of: a status is written up to 0.5 s later.
_LASTING_S = 0.7
# How often it is looked whether a supervisor runs, and whether files have changed that nobody reported.
_LOOK_S = 0.25
_SHOWN = 5
_AT_REST = ("STOPPED", "EXITED", "FATAL")


class _Colony:
    """What is looked at again and again while one waits."""

    def __init__(self, places: Places, state: Path | None) -> None:
        self.places, self.state = places, state
        self.directory = os.path.join(state_directory(places, state), "status")
        self._absent_since: float | None = None
        self._looked = -_LOOK_S

    def is_supervised(self) -> bool:
        now = time.monotonic()
        if now - self._looked >= _LOOK_S:
            self._looked = now
            if supervisor(self.places, state=self.state) is not None:
                self._absent_since = None
            elif self._absent_since is None:
                self._absent_since = now
        return self._absent_since is None

    def is_deserted(self) -> bool:
        """No supervisor runs, and none that was about to start has appeared."""
        return not self.is_supervised() and time.monotonic() - (self._absent_since or 0.0) >= _GRACE_S

    def messages(self) -> list[str]:
        return file_names(os.fspath(self.places.messages))

    def is_settled(self) -> bool:
        """Whether all that was asked for so far has been taken note of."""
        done = applied(self.places, state=self.state)
        return not self.messages() and (done is None or done.generation == generation_of(self.places))


def wait_for(
    places: Places,
    names: str | Iterable[str],
    goal: str,
    timeout: float = DEFAULT_WAIT_S,
    *,
    state: Path | None = None,
    meanwhile: Meanwhile = None,
) -> list[Status]:
    """Wait up to `timeout` seconds until each of the processes has come to `goal`; returns their statuses then.

    A name is a process's own or that of a config file with `instances`, which means all its copies. The goals:
    "running"; "ready", which is running and counting as ready; "stopped", which is STOPPED, EXITED, FATAL or gone;
    "exited", which is the same or that an instance has ended since this function was called.

    :raises BadValue: for a goal that there is not.
    :raises NotThere: when there is no such process.
    :raises Failed: when one cannot come to it by itself, or no supervisor runs and none appears within 5 s.
    :raises TimedOut: when one has not come to it by then.
    """
    if goal not in GOALS:
        raise BadValue(f"cannot wait for {shown(goal)}: expected one of {', '.join(GOALS)}")
    colony = _Colony(places, state)
    waiting = [_Waiting(colony, name, goal) for name in ([names] if isinstance(names, str) else names)]
    for _ in poll(timeout, meanwhile):
        if not [one for one in waiting if not one.is_there()]:
            return [found for one in waiting for found in one.found if found is not None]
        if colony.is_deserted():
            raise Failed(f"cannot see {waiting[0].what()}: {NO_SUPERVISOR}")
    late = next(one for one in waiting if one.left)
    raise TimedOut(f"cannot see {late.what()}: after {seconds(timeout)} {late.left[0]}{hint(places, state)}")


class _Waiting:
    """One of the names that are waited for."""

    def __init__(self, colony: _Colony, name: str, goal: str) -> None:
        self._colony, self.name, self._goal = colony, name, goal
        self._shown = check_name("wait for", name)
        self._hopeless_since: float | None = None
        self._judged = -_LOOK_S
        self.left: list[str] = []
        self.found: list[Status | None] = []
        self._began: dict[str, Status | None] = {}
        names = self._names()
        if not names and not os.path.lexists(os.path.join(colony.places.config, name)):
            raise no_such_process(f"wait for {self._shown}", colony.places)
        self._began = {one: reported(colony.directory, one) for one in names}

    def what(self) -> str:
        return f"{self._shown} {self._goal}"

    def _names(self) -> list[str]:
        """The processes that are meant: those that should be, and where the end is waited for those that still are."""
        config, name = self._colony.places.config, self.name
        there = [one for one in file_names(self._colony.directory) if name in (one, shared_name(one))]
        there = [one for one in there if one == name or not os.path.lexists(os.path.join(config, one))]
        if os.path.lexists(os.path.join(config, name)):
            should_be = stands_for(name, definition(self._colony.places, name).get("instances"))
        else:
            shared = shared_name(name)
            siblings = stands_for(shared, definition(self._colony.places, shared).get("instances"))
            should_be = [name] if name in siblings and name != shared else []
        if self._goal in ("running", "ready"):
            return should_be or there
        return sorted({*should_be, *there}, key=lambda one: (len(one), one))

    def is_there(self) -> bool:
        """Whether all that is meant has come to the goal.

        :raises Failed: when it cannot.
        """
        self.found, self.left, hopeless = [], [], ""
        names = self._names()
        for one in names:
            found = reported(self._colony.directory, one)
            self.found.append(found)
            if self._has_come(found, self._began.get(one)):
                continue
            text = as_it_is(found)
            self.left.append(text if one == self.name else f"{shown(one)}: {text}")
            if self._goal in ("running", "ready") and found is not None and _leads_nowhere(found):
                hopeless = hopeless or self.left[-1]
        if not names and self._goal in ("running", "ready"):
            hopeless = "there is nothing to run under that name"
            self.left.append(hopeless)
        self._judge(hopeless)
        return not self.left

    def _has_come(self, found: Status | None, began: Status | None) -> bool:
        if self._goal == "running":
            return found is not None and found.state == "RUNNING" and self._colony.is_supervised()
        if self._goal == "ready":
            return found is not None and found.is_ready(time.time()) and self._colony.is_supervised()
        if found is None:
            return began is not None  # it was there, and is gone
        if found.state in _AT_REST and found.next_try is None:
            return True
        if self._goal == "stopped" or found.last_exit is None:
            return False
        return began is None or began.last_exit is None or found.last_exit.at != began.last_exit.at

    def _judge(self, hopeless: str) -> None:
        """Give up when that lasts although nothing is left that could change it."""
        now = time.monotonic()
        if not hopeless:
            self._hopeless_since = None
        elif now >= self._judged + _LOOK_S:
            self._judged = now
            if not (self._colony.is_supervised() and self._colony.is_settled()):
                self._hopeless_since = None
            elif self._hopeless_since is None:
                self._hopeless_since = now
            elif now - self._hopeless_since >= _LASTING_S:
                raise Failed(f"cannot see {self.what()}: {hopeless}")


def _leads_nowhere(found: Status) -> bool:
    """Whether it will not run by itself, whatever time passes."""
    if found.wanted == "gone" or found.state == "EXITED":
        return True
    return (found.state == "FATAL" and found.next_try is None) or (found.state == "STOPPED" and found.wanted == "down")


def generation_of(places: Places) -> str:
    """What identifies the content of the config directory now, as `Applied.generation` does what is in effect.

    :raises CannotAccess: when the directory may not be listed.
    """
    from ncolony.model.config import directory_generation  # imports msgspec: 28 ms

    pairs = []
    for name in file_names(os.fspath(places.config)):
        try:
            data = read(os.path.join(places.config, name))
        except FileNotFoundError:
            if not os.path.lexists(os.path.join(places.config, name)):
                continue  # removed meanwhile
            data = b""
        except OSError:
            data = b""  # what cannot be read counts as empty, for the supervisor too
        pairs.append((name, blake2b(data, digest_size=16).digest()))
    return directory_generation(pairs)


def wait_for_converged(
    places: Places, timeout: float = DEFAULT_WAIT_S, *, state: Path | None = None, meanwhile: Meanwhile = None
) -> Applied:
    """Wait up to `timeout` seconds until every file in both directories has been taken up by the supervisor.

    That is: the config directory as it is now is in effect, and no message is left. Whether processes run by then is
    another question, see `wait_for`. `problems` of what is returned counts the files that cannot be used.

    :raises Failed: when no supervisor runs and none appears within 5 s.
    :raises TimedOut: when something is not taken up by then; the text says what.
    """
    colony = _Colony(places, state)
    seen: tuple[str, str] = "", ""
    looked = -_LOOK_S
    for _ in poll(timeout, meanwhile):
        done = applied(places, state=state)
        now = time.monotonic()
        if done is not None and (done.generation != seen[0] or now - looked >= _LOOK_S):
            seen, looked = (done.generation, generation_of(places)), now
        if done is not None and seen[0] == seen[1] and not colony.messages() and colony.is_supervised():
            return done
        if colony.is_deserted():
            raise Failed(f"cannot see everything applied: {NO_SUPERVISOR}")
    why = "; ".join(not_applied(places, state=state)) or "the supervisor does not say what it has applied"
    raise TimedOut(f"cannot see everything applied: after {seconds(timeout)} {why}{hint(places, state)}")


def not_applied(places: Places, *, state: Path | None = None) -> list[str]:
    """What the supervisor has not taken up yet, as texts: messages, and files that are new, changed or removed."""
    said = []
    messages = file_names(os.fspath(places.messages))
    if messages:
        said.append(f"{_some('message', messages)} not handled")
    done = applied(places, state=state)
    if done is None or done.generation == generation_of(places):
        return said
    names = _unapplied(places, state)
    said.append(f"{_some('file', names)} not applied" if names else "the config directory is not applied as it is")
    return said


def _some(kind: str, names: list[str]) -> str:
    listed = ", ".join(printable(name) for name in names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    return f"{len(names)} {kind}{'' if len(names) == 1 else 's'} ({listed})"


def _unapplied(places: Places, state: Path | None) -> list[str]:
    """The files that their processes do not follow yet, those that are gone and whose processes are not included."""
    from ncolony.model import config  # imports msgspec: 28 ms

    digests: dict[str, set[str]] = {}
    for one in status(places, state=state):
        digests.setdefault(one.file, set()).add(one.digest)
    names = file_names(os.fspath(places.config))
    wrong = sorted(digests.keys() - set(names))
    for name in sorted(names):
        try:
            found = config.define(name, read(os.path.join(places.config, name)))
        except OSError:
            continue
        if isinstance(found, config.Definition) and digests.get(name, set()) != {found.digest}:
            wrong.append(name)
    return wrong
