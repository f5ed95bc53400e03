"""The messages directory: requests in order, each once; what makes no sense is set aside; answers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any

import msgspec
from twisted.logger import Logger

from ..decide.answer import Goal, Verdict, verdict
from ..decide.lifecycle import Process
from ..keeper.kernel import reach
from ..model.config import Problem
from ..model.message import Answer, Message, decode, decode_answer
from ..model.names import is_ignored, printable
from .files import Entry, Tray, write_whole

_log = Logger(namespace="ncolony")
# Somebody may still be writing a message that makes no sense; after this long without a change nobody is.
_STILL_S = 2.0
_ANSWERS_KEPT_S = 3600.0
# At most so many answers, and messages that made no sense, the newest: whoever may send them is not to fill the disk.
_MOST_ANSWERS, _MOST_REJECTED = 10_000, 1000
# So many are handled at a time, at 1 to 2 ms each: between them come reports of the keeper and whatever else is due.
_AT_ONCE = 8
# What tells one version of a message from another.
_Mark = tuple[int, bytes]


class Inbox:
    """Takes messages in the order of (time, name) and calls `act(file name, message)` for each."""

    def __init__(
        self,
        reactor: Any,
        messages: str,
        state: str,
        act: Callable[[str, Message], None],
        problem: Callable[[str, str], object],
    ) -> None:
        self._reactor, self._act, self._problem = reactor, act, problem
        self._directory = Tray(messages, is_ignored)
        self._answers, self._rejected = f"{state}/answers", f"{state}/rejected"
        self._odd: dict[str, tuple[_Mark, float]] = {}
        self._given: dict[str, float] = {}  # answer -> when it was given, the oldest first
        self._first = True
        # What is to be handled: name -> time, entry, and whether it was there when we began.
        self._waiting: dict[str, tuple[int, Entry, bool]] = {}
        self._going_on: Any = None
        self.guarded: Callable[[Callable[[], None]], None] = lambda call: call()  # what a turn of ours is part of
        self._aside = dict.fromkeys(_oldest_first(self._rejected))  # what was set aside
        self.answered: Callable[[str, Answer], object] = lambda name, answer: None
        self.closed = False  # a supervisor that is ending takes no more requests
        self._unwritten: dict[str, Answer] = {}
        self._stuck: dict[str, _Mark] = {}  # handled, but they cannot be removed

    def scan(self, names: Iterable[str] | None = None) -> None:
        """Handle what is new: of all files, or of these.

        :raises OSError: when the directory cannot be listed.
        """
        changed = self._directory.scan() if names is None else self._directory.look(names)
        for name, entry in changed.items():
            if entry is None:
                self._odd.pop(name, None)
                self._stuck.pop(name, None)
                self._waiting.pop(name, None)
            else:
                self._waiting[name] = entry.mtime_ns, entry, self._first
        self._first = False
        self._work()

    def _work(self) -> None:
        """Handle some of what waits, the oldest first, and go on in another turn."""
        if len(self._waiting) > 1:
            self._waiting = dict(sorted(self._waiting.items(), key=lambda item: (item[1][0], item[0])))
        for name in list(self._waiting)[:_AT_ONCE]:
            if self.closed:
                return
            _, seen, first = self._waiting.pop(name)
            # One at a time: whoever may send messages is not to fill our memory.
            if (opened := self._directory.open(name, seen)) is not None:
                self._take(name, opened, first)
        if self._waiting and self._going_on is None:
            self._going_on = self._reactor.callLater(0, self._go_on)
        self._expire()

    def _go_on(self) -> None:
        self._going_on = None
        self.guarded(self._work)

    def _take(self, name: str, entry: Entry, first: bool) -> None:
        if first and self._answered(name, entry):
            if not self.remove(name):
                self._stuck[name] = _mark(entry)
            return
        message = Problem(name, "", entry.why) if entry.data is None else decode(name, entry.data)
        if isinstance(message, Problem):
            self._doubt(name, entry, f"{message.key}: {message.why}" if message.key else message.why)
            return
        self._odd.pop(name, None)
        if self._stuck.get(name) == _mark(entry):
            return
        reach("message.read")
        self._act(name, message)
        reach("message.acted")
        if not self.remove(name):
            self._stuck[name] = _mark(entry)

    def _answered(self, name: str, entry: Entry) -> bool:
        """An earlier supervisor has done what this very message asks, and died before it removed it."""
        path = f"{self._answers}/{name}"
        try:
            with open(path, "rb") as file:
                answer = decode_answer(file.read())
            # One that was accepted is carried on with: see Requests.resume.
            over = answer is not None and (answer.state != "accepted" or bool(answer.goal))
            return os.stat(path).st_mtime_ns >= entry.mtime_ns and over
        except OSError:
            return False

    def remove(self, name: str) -> bool:
        """Remove a handled message; False where that is not allowed, and then it must not be handled again."""
        try:
            os.unlink(f"{self._directory.path}/{name}")
        except FileNotFoundError:
            pass
        except OSError as error:
            if name not in self._stuck:
                _log.error("cannot remove message {name}: {why}", name=printable(name), why=error.strerror)
            return False
        self._directory.seen.pop(name, None)
        return True

    def obviate(self, kind: type[Message]) -> None:
        """Answer and remove the messages of a kind that ask for what is done already."""
        with contextlib.suppress(OSError):
            waiting = {name: seen for name, (_, seen, _) in self._waiting.items()}
            for name, seen in (waiting | self._directory.scan()).items():
                entry = None if seen is None else self._directory.open(name, seen)
                if entry is not None and entry.data is not None and isinstance(decode(name, entry.data), kind):
                    self.answer(name, Answer(accepted=True, state="done"))
                    self.remove(name)

    def _doubt(self, name: str, entry: Entry, why: str) -> None:
        """Set the message aside, unless it changes within 2 s."""
        known = self._odd.get(name)
        now = self._reactor.seconds()
        if known is None or known[0] != _mark(entry):
            self._odd[name] = (_mark(entry), now)
            self._reactor.callLater(_STILL_S, self._again, name)
        elif now - known[1] >= _STILL_S:
            del self._odd[name]
            self._reject(name, why)

    def _again(self, name: str) -> None:
        if name in self._odd and not self.closed:
            with contextlib.suppress(OSError):
                self.guarded(lambda: self.scan([name]))

    def _reject(self, name: str, why: str) -> None:
        with contextlib.suppress(OSError):
            write_whole(f"{self._rejected}/{name}.reason", f"{printable(why)}\n".encode())
        self.answer(name, Answer(accepted=False, state="failed", why=why))
        source, target = f"{self._directory.path}/{name}", f"{self._rejected}/{name}"
        try:
            os.rename(source, target)
        except OSError:  # another filesystem, or a read-only one
            if not self.remove(name):
                self._stuck[name] = (0, b"")
        self._aside.pop(name, None)
        self._aside[name] = None
        while len(self._aside) > _MOST_REJECTED:
            oldest = next(iter(self._aside))
            del self._aside[oldest]
            for path in (f"{self._rejected}/{oldest}", f"{self._rejected}/{oldest}.reason"):
                with contextlib.suppress(OSError):
                    os.unlink(path)

    def answer(self, name: str, answer: Answer) -> None:
        """Write the answer to a message; where the disk is full, later."""
        self.answered(name, answer)
        self._write(name, answer)

    def _write(self, name: str, answer: Answer) -> None:
        try:
            write_whole(f"{self._answers}/{name}", msgspec.json.encode(answer))
        except OSError as error:
            self._unwritten[name] = answer
            self._problem("answers", f"cannot write {self._answers}: {error.strerror}")
            return
        self._unwritten.pop(name, None)
        if not self._unwritten:
            self._problem("answers", "")
        self._given.pop(name, None)
        self._given[name] = self._reactor.seconds()

    def retry(self) -> None:
        """Write the answers that could not be written, and remove the messages that could not be removed."""
        for name, answer in list(self._unwritten.items()):
            self._write(name, answer)
        for name in list(self._stuck):
            if self.remove(name):
                del self._stuck[name]

    def _expire(self) -> None:
        """Remove answers that are older than an hour, or too many."""
        now = self._reactor.seconds()
        while self._given and (
            now - self._given[name := next(iter(self._given))] > _ANSWERS_KEPT_S or len(self._given) > _MOST_ANSWERS
        ):
            del self._given[name]
            with contextlib.suppress(OSError):
                os.unlink(f"{self._answers}/{name}")

    def earlier(self) -> list[tuple[str, Answer]]:
        """What an earlier supervisor had accepted and not finished. Its answers are kept for an hour from now.

        How old they are nobody can tell: the clock may have been set.
        """
        unfinished = []
        with contextlib.suppress(OSError), os.scandir(self._answers) as listing:
            for found in listing:
                self._given[found.name] = self._reactor.seconds()
                with contextlib.suppress(OSError), open(found.path, "rb") as file:
                    answer = decode_answer(file.read())
                    if answer is not None and answer.state == "accepted":
                        unfinished.append((found.name, answer))
        return unfinished


def _mark(entry: Entry) -> _Mark:
    return entry.mtime_ns, b"" if entry.data is None else blake2b(entry.data, digest_size=16).digest()


def _oldest_first(directory: str) -> list[str]:
    """The names of the messages that an earlier supervisor set aside."""
    found = []
    with contextlib.suppress(OSError), os.scandir(directory) as listing:
        for entry in listing:
            with contextlib.suppress(OSError):
                name = entry.name.removesuffix(".reason")
                found.append((entry.stat(follow_symlinks=False).st_ctime_ns, name))
    return [name for _, name in sorted(found)]


class _Request:
    """A message that was accepted and is not done yet."""

    __slots__ = ("failed", "generation", "goal", "message", "names", "remaining")

    def __init__(self, message: str, goal: Goal, since: dict[str, int], generation: str) -> None:
        self.message, self.goal, self.generation = message, goal, generation
        self.names, self.remaining = tuple(since), since
        self.failed: list[str] = []


class Requests:
    """Accepted messages, until each of their processes has got there or has failed to."""

    def __init__(self, answer: Callable[[str, Answer], None], record: Callable[[Iterable[str]], None]) -> None:
        self._write, self._record = answer, record
        self._by_name: dict[str, list[_Request]] = {}

    def accept(self, message: str, goal: Goal, since: dict[str, int], generation: str) -> None:
        """Answer that the message is accepted; `since` has the newest instance's number of every name."""
        request = _Request(message, goal, since, generation)
        for name in since:
            self._by_name.setdefault(name, []).append(request)
        self._answer(request)

    def resume(self, message: str, answer: Answer) -> None:
        """Carry on with what an earlier supervisor accepted."""
        request = _Request(message, Goal(answer.goal), dict(answer.since), answer.generation)
        request.names = answer.names
        for name in answer.since:
            self._by_name.setdefault(name, []).append(request)

    def judge(self, name: str, process: Process | None) -> None:
        """See which requests about the process are settled, and answer them; what is known of it is written first."""
        for request in list(self._by_name.get(name, ())):
            result = verdict(request.goal, request.remaining[name], process)
            if result is Verdict.OPEN:
                continue
            self._by_name[name].remove(request)
            since = request.remaining.pop(name)
            if result is Verdict.FAILED:
                request.failed.append(f"{name}: {_why_failed(request.goal, process, since)}")
            if not request.remaining:
                self._record(request.names)
                self._answer(request)
        if not self._by_name.get(name, True):
            del self._by_name[name]

    def _answer(self, request: _Request) -> None:
        state = "accepted" if request.remaining else "failed" if request.failed else "done"
        why = "; ".join(request.failed)
        answer = Answer(accepted=True, state=state, why=why, names=request.names, generation=request.generation)
        if request.remaining:
            answer = msgspec.structs.replace(answer, goal=request.goal.value, since=dict(request.remaining))
        self._write(request.message, answer)


def _why_failed(goal: Goal, process: Process | None, since: int) -> str:
    if process is None or process.number < since:
        return "its file was removed"
    return "it was started again meanwhile" if goal is Goal.DOWN else process.reason
