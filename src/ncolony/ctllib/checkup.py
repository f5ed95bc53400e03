"""Whether all is well with a colony: its supervisor, its keeper, and everything that should run."""

from __future__ import annotations

import os
import time

from ncolony.ctllib import NO_SUPERVISOR
from ncolony.ctllib.common import exists, parsed, read, state_directory
from ncolony.ctllib.reports import definition, file_names, not_seen, reported, status, supervisor
from ncolony.decide.wellbeing import ailments
from ncolony.model import names as _names

TYPE_CHECKING = False  # see ncolony.ctllib
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ncolony.ctllib import Path, Places
    from ncolony.ctllib.reports import Status, Supervisor

# Names of what is looked at beside the processes, none of which can have a "/" in its name.
SUPERVISOR, KEEPER, PROBLEMS = "ncolony/supervisor", "ncolony/keeper", "ncolony/problems"
NO_KEEPER = "no keeper is running: nothing can be started or stopped"
NO_SUCH_PROCESS = "no such process"
# A directory that was written this lately may be written again without another time: clocks of file systems tick.
_TICK_NS = 50_000_000


class Trouble:
    """One thing that is not well.

    `name` is the process, or "ncolony/supervisor", "ncolony/keeper" or "ncolony/problems"; `kind` is "supervisor" (none
    runs), "keeper" (none runs), "problem" (the supervisor has one), "missing" (there is no such process), "down" (it
    should run and does not), "starting" (it is not ready), "unhealthy" (its checks say so), "late" (a job that has not
    begun) or "unknown" (its status cannot be read); `why` says more, in one line.
    """

    __slots__ = ("kind", "name", "why")

    name: str
    kind: str
    why: str

    def __init__(self, name: str, kind: str, why: str) -> None:
        self.name, self.kind, self.why = name, kind, why

    def __str__(self) -> str:
        return _names.printable(f"{self.name}: {self.why}")

    def __repr__(self) -> str:
        return f"Trouble({self.name!r}, {self.kind!r}, {self.why!r})"

    def record(self) -> dict[str, str]:
        """It as a JSON object."""
        return {"name": _names.printable(self.name), "kind": self.kind, "why": _names.printable(self.why)}


def health(places: Places, names: str | Iterable[str] = (), *, state: Path | None = None) -> list[Trouble]:
    """What is not well with the colony; nothing when all is well.

    All is well when a supervisor and its keeper run, the supervisor has no problem, everything that should run does and
    is ready, none of it is unhealthy and no job is late. With `names`, only these processes are looked at, beside the
    supervisor and the keeper; a name may be that of a config file with `instances`.

    :raises CannotAccess: when what is reported may not be read.
    """
    wanted = [names] if isinstance(names, str) else list(names)
    found = status(places, state=state)
    if not wanted:
        return examined(places, found, state=state)
    chosen = [one for one in found if one.name in wanted or one.file in wanted]
    known = {name for one in chosen for name in (one.name, one.file)}
    return examined(places, chosen, [name for name in wanted if name not in known], state=state)


def examined(
    places: Places, found: Iterable[Status], missing: Iterable[str] = (), *, state: Path | None = None
) -> list[Trouble]:
    """The same of statuses that were read, and of names that nothing is reported of."""
    runs, directory = supervisor(places, state=state), state_directory(places, state)
    troubles = [*_of_supervisor(runs), *_of_keeper(directory), *_problems(runs)]
    troubles += [Trouble(name, "missing", NO_SUCH_PROCESS) for name in missing]
    return troubles + [trouble for one in found for trouble in _of_process(places, one)]


class Checkup:
    """Looks at a colony again and again. Of thousands of processes only what has changed is read.

    A keeper that died and is being replaced is no trouble for `patience` seconds.
    """

    def __init__(self, places: Places, state: Path | None = None, patience: float = 0.0) -> None:
        self._places, self._state, self._patience = places, state, patience
        self._keeper_seen = time.monotonic()
        self._marks: tuple[object, ...] = ()
        self._known: dict[str, tuple[object, Status, list[Trouble]]] = {}
        self._found: dict[str, tuple[Status, list[Trouble]]] = {}

    def colony(self) -> dict[str, list[Trouble]]:
        """What is wrong with the supervisor, the keeper, and the supervisor's surroundings, by the name of each.

        :raises CannotAccess: when that cannot be told.
        """
        runs, directory = supervisor(self._places, state=self._state), state_directory(self._places, self._state)
        keeper = _of_keeper(directory)
        now = time.monotonic()
        if not keeper:
            self._keeper_seen = now
        elif now - self._keeper_seen < self._patience:
            keeper = []
        return {SUPERVISOR: _of_supervisor(runs), KEEPER: keeper, PROBLEMS: _problems(runs)}

    def processes(self) -> dict[str, tuple[Status, list[Trouble]]]:
        """Every process that is reported or defined, by name, with its status and what is wrong with it.

        :raises CannotAccess: when the reports may not be read.
        """
        directory = os.path.join(state_directory(self._places, self._state), "status")
        marks = (_mark(directory), _mark(os.fspath(self._places.config)))
        if marks != self._marks:
            self._found = self._look(directory)
            self._marks = marks if self._is_lasting(marks) else ()
        return self._found

    def _is_lasting(self, marks: tuple[tuple[int, int] | None, ...]) -> bool:
        """Whether another change of the directories would be seen by their times."""
        now = time.time_ns()
        written = all(mark is None or now - mark[0] > _TICK_NS for mark in marks)
        # Of those that no supervisor has seen yet the files themselves count, which can be written in place.
        return written and len(self._found) == len(self._known)

    def _look(self, directory: str) -> dict[str, tuple[Status, list[Trouble]]]:
        known, self._known = self._known, {}
        for name, signature in _signatures(directory).items():
            before = known.get(name)
            if before is not None and before[0] == signature:
                self._known[name] = before
            elif (one := reported(directory, name)) is not None:
                self._known[name] = signature, one, _of_process(self._places, one)
        found = {name: (one, troubles) for name, (_, one, troubles) in self._known.items()}
        replicated = {one.file for one, _ in found.values()}
        defined = [name for name in file_names(os.fspath(self._places.config)) if name not in found]
        for name in defined:
            if name not in replicated:
                one = not_seen(self._places, name)
                found[name] = one, _of_process(self._places, one)
        return {name: found[name] for name in sorted(found)}


def _of_supervisor(runs: Supervisor | None) -> list[Trouble]:
    return [] if runs else [Trouble(SUPERVISOR, "supervisor", NO_SUPERVISOR)]


def _problems(runs: Supervisor | None) -> list[Trouble]:
    return [Trouble(PROBLEMS, "problem", str(problem)) for problem in (runs.problems if runs else [])]


def _of_keeper(directory: str) -> list[Trouble]:
    return [] if _keeper_lives(directory) else [Trouble(KEEPER, "keeper", NO_KEEPER)]


def _keeper_lives(directory: str) -> bool:
    """Whether a keeper holds its lock; where that is not for us to open, whether there is the pid that is reported."""
    from ncolony.system.locks import is_held  # imports fcntl

    try:
        return is_held(os.path.join(directory, "keeper.lock"))
    except PermissionError:
        return exists(_reported_keeper(directory))
    except OSError:
        return False


def _reported_keeper(directory: str) -> Any:
    try:
        return parsed(read(os.path.join(directory, "supervisor.json"))).get("keeper")
    except (OSError, ValueError):
        return None


def _of_process(places: Places, one: Status) -> list[Trouble]:
    return [Trouble(one.name, kind, why) for kind, why in ailments(one.record, _succeeded(places, one))]


def _succeeded(places: Places, one: Status) -> bool:
    """Whether it has ended well: only asked of those that rest after an end, so the others' files are not read."""
    if one.state != "EXITED" or one.last_exit is None:
        return False
    codes = definition(places, one.file).get("success_codes", [0])
    return isinstance(codes, list) and one.last_exit.code in codes


def _mark(directory: str) -> tuple[int, int] | None:
    try:
        found = os.stat(directory)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def _signatures(directory: str) -> dict[str, object]:
    """The names in a directory of statuses, each with what is another when the file is."""
    found: dict[str, object] = {}
    for name in file_names(directory):
        try:
            about = os.stat(os.path.join(directory, name))
        except OSError:
            found[name] = object()  # gone meanwhile, or what is wrong is said when it is read
        else:
            found[name] = (about.st_mtime_ns, about.st_ino, about.st_size)
    return found
