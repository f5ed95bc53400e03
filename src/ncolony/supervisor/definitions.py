"""What the config directory says: which file defines which processes, and which version of it is in force."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b

import msgspec

from ..decide.lifecycle import Process, State, Wanted
from ..decide.order import circles, files_meant
from ..decide.ready import is_ready
from ..model.config import Definition, Problem, ProcessConfig, define, file_mark
from ..model.names import copies_of, printable, problem_with_name
from ..system.files import Entry, write_whole


class Source(msgspec.Struct, frozen=True):
    """What defines one process: the file, its good definition, what is wrong with the file, the number of the copy."""

    file: str
    definition: Definition | None
    problem: str | None
    index: int | None = None
    rolled_back: str | None = None


class _Kept(msgspec.Struct):
    """On disk while a new definition is on trial, and after it failed: what was in force before."""

    digest: str  # of the definition on trial
    text: bytes
    why: str = ""  # it has failed, because of this


class _File:
    """One file: the definition in force, and the one before it while that may come back."""

    __slots__ = ("before", "circle", "definition", "mark", "newest", "problem", "until", "why")

    def __init__(self) -> None:
        self.definition: Definition | None = None  # in force
        self.newest: Definition | None = None  # the last good one that was read
        self.before: Definition | None = None  # what comes back if the one in force is not ready in time
        self.problem: str | None = None
        self.circle = ""  # of files that wait for each other, this one among them
        self.until: float | None = None  # when its time is over
        self.why = ""  # it was taken back, because of this
        self.mark = 0


class Definitions:
    """Files by name, and the processes that each defines: NAME, or NAME:0, NAME:1 … with `instances`."""

    def __init__(self, directory: str, say: Callable[[str], None]) -> None:
        """`directory` is where earlier definitions are kept while they may come back."""
        self._directory, self._say = directory, say
        try:
            self._on_disk = set(os.listdir(directory))
        except OSError:
            self._on_disk = set()
        self._files: dict[str, _File] = {}
        self._marks = 0  # the sum of all files' marks: the directory's generation
        self._problems: set[str] = set()
        self._trials: dict[str, _File] = {}  # whose newest definition has still to prove itself
        self._candidates: dict[str, Definition] = {}  # newest definitions that wait for others, perhaps in a circle
        self._in_circles: set[str] = set()  # names of files that wait for each other
        self._tangled = False  # whether that is to be found out
        self._companions: dict[str, tuple[Definition, Callable[[ProcessConfig], bool]]] = {}
        self._wanting: dict[str, set[str]] = {}  # name of a companion -> the files that need it

    def __contains__(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        """The names of the files that there are."""
        return iter(self._files)

    def summary(self) -> dict[str, object]:
        """What of the directory is known: comparable with what `ctl` computes from the files."""
        generation = f"{self._marks % 2**128:032x}"
        problems = len(self._problems | self._in_circles)
        return {"generation": generation, "files": len(self._files), "problems": problems}

    # reading

    def read(self, name: str, entry: Entry, now: float) -> set[str]:
        """Take note of what a file says now; the processes that this may concern."""
        file = self._files.setdefault(name, _File())
        concerned = self._processes(name, file)
        self._marks -= file.mark
        file.mark = file_mark(name, blake2b(entry.data or b"", digest_size=16).digest())
        self._marks += file.mark
        shown = printable(name)
        if wrong := problem_with_name(name):
            found: Definition | Problem = Problem(shown, "", wrong)
        elif entry.data is None or entry.why:
            found = Problem(shown, "", entry.why)
        else:
            found = define(shown, entry.data)
        if isinstance(found, Problem):
            self._problems.add(name)
            if file.problem != str(found):
                file.problem = str(found)
                self._say(file.problem)
        else:
            self._problems.discard(name)
            file.problem = None
            if found.config.after or name in self._candidates:
                self._candidates[name], self._tangled = found, True
            elif file.newest is None or file.newest.digest != found.digest or file.newest.text != found.text:
                self._tangled |= bool(self._candidates) or bool(file.newest and file.newest.config.after)
                self._take(name, file, found, now)
                concerned |= self._note_needs(name, file.definition)
        return concerned | self._processes(name, file)

    def untangle(self, now: float) -> set[str]:
        """Let definitions come into force that wait for others, unless they do so in a circle; whom that concerns."""
        if not self._tangled:
            return set()
        self._tangled = False
        newest = {
            name: self._candidates.get(name) or (file.definition if file.why else file.newest)
            for name, file in self._files.items()
        }
        after = {
            name: files_meant(one.config.after, self._files) for name, one in newest.items() if one and one.config.after
        }
        found, concerned = circles(after), set[str]()
        before, self._in_circles = self._in_circles, set(found)
        for name in sorted({*self._candidates, *found, *before} & self._files.keys()):
            file = self._files[name]
            circle = " → ".join(map(printable, found[name])) if name in found else ""
            if circle != file.circle:
                file.circle = circle
                concerned |= self._processes(name, file)
                if circle:
                    self._say(self._problem(name, file) or "")
            candidate = None if circle else self._candidates.pop(name, None)
            if candidate is not None and (file.newest is None or file.newest.text != candidate.text):
                concerned |= self._processes(name, file)
                self._take(name, file, candidate, now)
                concerned |= self._processes(name, file) | self._note_needs(name, file.definition)
        return concerned

    # companions

    def offer(self, name: str, text: bytes, is_needed_by: Callable[[ProcessConfig], bool]) -> None:
        """A program that is to run beside the others as long as a definition in force needs it."""
        found = define(name, text)
        assert isinstance(found, Definition), str(found)
        self._companions[name] = found, is_needed_by
        self._wanting[name] = set()

    def _note_needs(self, name: str, definition: Definition | None) -> set[str]:
        """Which companions are needed, or are not any more, because of what is in force for a file now."""
        concerned = set()
        for companion, (_, is_needed_by) in self._companions.items():
            wanting = self._wanting[companion]
            before = bool(wanting)
            if definition is not None and definition.config.enabled and is_needed_by(definition.config):
                wanting.add(name)
            else:
                wanting.discard(name)
            if bool(wanting) != before:
                concerned.add(companion)
        return concerned

    def remove(self, name: str) -> set[str]:
        """A file is gone; the processes that this concerns."""
        file = self._files.pop(name, None)
        if file is None:
            return {name}
        self._marks -= file.mark
        self._problems.discard(name)
        self._trials.pop(name, None)
        self._unkeep(name)
        self._tangled |= bool(self._candidates) or bool(file.circle)
        self._candidates.pop(name, None)
        return self._processes(name, file) | {name} | self._note_needs(name, None)

    def _processes(self, name: str, file: _File) -> set[str]:
        """Every process that the file may define, the file's own name among them."""
        count = file.definition.config.instances if file.definition is not None else None
        return {name, *copies_of(name, count)}

    def of(self, name: str) -> Source | None:
        """What defines the process `name`; None when nothing does, and it is to go."""
        file = self._files.get(name)
        if file is not None and (file.definition is None or file.definition.config.instances is None):
            return Source(name, file.definition, self._problem(name, file), None, file.why or None)
        if name in self._companions and self._wanting[name] and name not in self._files:
            return Source(name, self._companions[name][0], None)
        base, _, number = name.rpartition(":")
        file = self._files.get(base)
        if file is None or not number.isascii() or not number.isdigit() or str(int(number)) != number:
            return None
        index = int(number)
        if file.definition is None:
            return Source(base, None, file.problem, index)  # it goes on with what it was started from
        if index >= (file.definition.config.instances or 0):
            return None
        return Source(base, file.definition, self._problem(base, file), index, file.why or None)

    @staticmethod
    def _problem(name: str, file: _File) -> str | None:
        if file.circle and not file.problem:
            return f"cannot use {printable(name)}: after: they wait for each other: {file.circle}"
        return file.problem or (f"cannot use {printable(name)}: rolled back: {file.why}" if file.why else None)

    def processes(self, name: str) -> list[str]:
        """The processes that a name means: itself, or the copies that the file of that name defines."""
        file = self._files.get(name)
        if file is None or file.definition is None or file.definition.config.instances is None:
            return [name]
        copies = copies_of(name, file.definition.config.instances)
        return [copy for copy in copies if copy not in self._files]  # a file that is really called so wins

    # taking back what does not become ready

    def _take(self, name: str, file: _File, found: Definition, now: float) -> None:
        """A new good definition comes into force; on trial, where it says so and there is one before it."""
        file.newest, before = found, file.before or file.definition
        kept = self._kept(name)
        if kept is not None and kept.digest == found.digest and not isinstance(old := define(name, kept.text), Problem):
            # As an earlier supervisor left it: on trial still, or taken back.
            file.why, file.before = kept.why, old
            file.definition = old if kept.why else found
            file.until = None if kept.why else now + (found.config.rollback_if_not_ready or 0.0)
            if not kept.why:
                self._trials[name] = file
            return
        if before is None and kept is not None and not isinstance(old := define(name, kept.text), Problem):
            before = old
        file.definition, file.before, file.why, file.until = found, None, "", None
        self._trials.pop(name, None)
        seconds = found.config.rollback_if_not_ready
        if seconds is None or before is None or before.generation == found.generation or not found.config.enabled:
            self._unkeep(name)
            return
        file.before, file.until = before, now + seconds
        self._trials[name] = file
        self._keep(name, _Kept(found.digest, before.text))

    def next_verdict(self) -> float | None:
        """When the next trial is over (monotonic seconds)."""
        return min((file.until for file in self._trials.values() if file.until is not None), default=None)

    @property
    def on_trial(self) -> frozenset[str]:
        """The files whose newest definition has still to prove itself."""
        return frozenset(self._trials)

    def judge(self, name: str, processes: Iterable[Process | None], now: float) -> set[str]:
        """See what has become of a file on trial; the processes concerned if its definition is taken back."""
        file = self._trials.get(name)
        if file is None or file.until is None or file.definition is None:
            return set()
        unready = [one for one in processes if one is None or not _is_proven(one, now)]
        if not unready:
            file.before = file.until = None
            del self._trials[name]
            self._unkeep(name)
            return set()
        doomed = [one for one in unready if one is not None and one.state is State.FATAL]
        if now < file.until and not doomed:
            return set()
        worst = doomed[0] if doomed else unready[0]
        seconds = file.definition.config.rollback_if_not_ready or 0.0
        how = f"{worst.name} is {worst.state}: {worst.reason}".rstrip(": ") if worst else "it did not even start"
        file.why = f"not ready within {seconds:g} s ({how}); the definition before it is in force"
        concerned = self._processes(name, file)
        if file.before is not None:
            self._keep(name, _Kept(file.definition.digest, file.before.text, file.why))
            file.definition = file.before
            concerned |= self._note_needs(name, file.definition)
        file.until = None
        del self._trials[name]
        # What is back may wait for others, and they for it.
        self._tangled |= file.definition.config.after != {} or bool(file.circle)
        self._say(f"{printable(name)}: rolled back: {file.why}")
        return concerned | self._processes(name, file)

    def _kept(self, name: str) -> _Kept | None:
        if name not in self._on_disk:
            return None
        try:
            with open(f"{self._directory}/{name}", "rb") as file:
                return msgspec.json.decode(file.read(), type=_Kept)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None

    def _keep(self, name: str, kept: _Kept) -> None:
        """So that it can come back whoever dies meanwhile. Without room on the disk it is known to us alone."""
        with contextlib.suppress(OSError):
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            write_whole(f"{self._directory}/{name}", msgspec.json.encode(kept), 0o600)
            self._on_disk.add(name)

    def _unkeep(self, name: str) -> None:
        if name in self._on_disk:
            self._on_disk.discard(name)
            with contextlib.suppress(OSError):
                os.unlink(f"{self._directory}/{name}")


def _is_proven(process: Process, now: float) -> bool:
    """Whether the process is as its definition wants it, so that nothing speaks against the definition."""
    if process.wanted is not Wanted.UP:
        return True
    if process.state is State.EXITED:
        return process.has_succeeded
    return is_ready(process, now)
