"""Compare what the witnesses noted with what the product wrote: output, its own log, exits."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos import witness

# A whole line of output, in the words of witness.py.
LINE = re.compile(rb"<(\d+) \d+ [a-z0-9-]* \1>")
# An event of the supervisor's text log that carries output of a process.
_EVENT = re.compile(rb"\S+ \[[^\]\s]*\] \[([^\]\s]+)\] (.*)", re.DOTALL)
_CUT = " …".encode()
_CERTAIN, _UNCERTAIN, _UNFINISHED = 1, 2, 4
_SHOWN = 60
# Every counter of a reading: what it is called in the table.
COUNTERS = ("lost", "lost, allowed", "doubled", "disordered", "torn", "joined", "unheard of")


@dataclass
class Fault:
    """Something that must not be, and around which monotonic time it happened, if that is known."""

    text: str
    at: float | None = None


@dataclass
class Batch:
    """Lines that were printed in one go; without `done` nobody knows how many of them."""

    first: int
    last: int
    begun: float
    unfinished: bool
    done: float | None = None


@dataclass
class Instance:
    """What one instance noted of itself."""

    name: str
    identity: str
    pid: int
    up: float
    last_note: float
    ended_by: float = float("inf")  # the next instance was up then
    batches: list[Batch] = field(default_factory=list)
    code: int | None = None  # None: something else than itself ended it

    @property
    def end(self) -> tuple[float, float]:
        """The times between which it ended."""
        return self.last_note, self.ended_by

    def __str__(self) -> str:
        return f"{self.name}, instance {self.identity}, pid {self.pid}"


class Testimony:
    """One witness file, read."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.instances: list[Instance] = []
        self.by_id: dict[str, Instance] = {}
        self.faults: list[Fault] = []
        self.counts: Counter[str] = Counter()
        if path.exists():
            for line in path.read_bytes().decode().split("\n")[:-1]:
                at, word, *rest = line.split()
                getattr(self, f"_{word}")(float(at), *rest)
        self._number_lines()

    def _up(self, at: float, pid: str, identity: str, _next: str) -> None:
        if self.instances:
            self.instances[-1].ended_by = at
        instance = Instance(self.name, identity, int(pid), at, at)
        if identity in self.by_id:
            self.counts["duplicates"] += 1
            self.faults.append(Fault(f"{instance}: two processes are this instance", at))
        self.instances.append(instance)
        self.by_id[identity] = instance

    def _printing(self, at: float, lines: str, *unfinished: str) -> None:
        first, _, last = lines.partition("..")
        now = self.instances[-1]
        now.batches.append(Batch(int(first), int(last), at, bool(unfinished)))
        now.last_note = at

    def _printed(self, at: float, _lines: str) -> None:
        now = self.instances[-1]
        now.batches[-1].done = now.last_note = at

    def _child(self, at: float, _pid: str, identity: str) -> None:
        self.by_id[identity].last_note = at

    def _exit(self, at: float, code: str, identity: str) -> None:
        if identity in self.by_id:
            self.by_id[identity].code, self.by_id[identity].last_note = int(code), at

    def _duplicate(self, at: float, pid: str, identity: str) -> None:
        self.counts["duplicates"] += 1
        self.faults.append(Fault(f"{self.name}: instance {identity}, pid {pid}, came while another was alive", at))

    def _leftover(self, at: float, pid: str, identity: str) -> None:
        self.counts["leftovers"] += 1
        text = f"{self.name}: a descendant of an earlier instance was alive when {identity}, pid {pid}, came"
        self.faults.append(Fault(text, at))

    def _number_lines(self) -> None:
        """What is known of each line by its number, and whose it is."""
        self.batches = [(batch, instance) for instance in self.instances for batch in instance.batches]
        self.firsts = [batch.first for batch, _ in self.batches]
        self.flags = bytearray(1 + (self.batches[-1][0].last if self.batches else 0))
        for batch, _ in self.batches:
            flag = _UNCERTAIN if batch.done is None else _CERTAIN
            self.flags[batch.first : batch.last + 1] = bytes([flag]) * (batch.last + 1 - batch.first)
            if batch.unfinished:
                self.flags[batch.last] |= _UNFINISHED
        self.written = sum(1 for flag in self.flags if flag & _CERTAIN)

    def of_line(self, number: int) -> tuple[Batch, Instance]:
        """The batch and the instance that a line belongs to."""
        return self.batches[bisect_right(self.firsts, number) - 1]


class Reading:
    """The lines of one process as found in one place, counted against its testimony."""

    def __init__(self, where: str, kind: str, testimony: Testimony) -> None:
        self.where, self.kind, self.testimony = where, kind, testimony
        self.seen = bytearray(len(testimony.flags))
        self.highest = 0
        self.part = b""
        self.begun: list[tuple[int, bytes]] = []  # lines of which only the beginning was found
        self.doubled, self.last_doubled = (0, -1), Fault("")  # the newest run of lines that were there before
        self.counts: Counter[str] = Counter()
        self.faults: list[Fault] = []

    def read_stream(self, data: bytes) -> None:
        """Take the bytes as they were printed. Where an instance ended in mid-line, the next one's line follows."""
        begin = 0
        while begin < len(data):
            end = data.find(b"\n", begin)
            piece, begin = (data[begin:], len(data)) if end < 0 else (data[begin:end], end + 1)
            self.take(piece, stream=True)

    def read_event(self, text: bytes) -> None:
        """Take one event's text; a line that is too long for one comes in several."""
        if text.endswith(_CUT):
            self.part += text[: -len(_CUT)]
        else:
            self.take(self.part + text, stream=False)
            self.part = b""

    def take(self, text: bytes, stream: bool) -> None:
        """Account for what stands between two ends of a line."""
        at = found = 0
        for match in LINE.finditer(text):
            if match.start() > at:
                self._debris(text[at : match.start()])
            elif found and not (stream and self._may_end_early(found)):
                self._fault("joined", f"line {found} and what follows are one line: {_short(text)}", found)
            found, at = int(match[1]), match.end()
            self._line(found, match[0])
        if at < len(text):
            self._debris(text[at:])

    def _line(self, number: int, text: bytes) -> None:
        flags = self.testimony.flags
        if number >= len(flags) or not flags[number] or text + b"\n" != witness.line(number, self.kind):
            self._fault("unheard of", f"a line that was never printed: {_short(text)}")
        elif self.seen[number]:
            self._again(number)
        else:
            if number < self.highest:
                self._fault("disordered", f"line {number} after line {self.highest}", number)
            self.seen[number] = 1
            self.highest = max(self.highest, number)

    def _again(self, number: int) -> None:
        """A line that was there before: many in a row are one fault."""
        first, last = self.doubled
        if number == last + 1:
            self.counts["doubled"] += 1
            self.doubled = first, number
            fault = self.last_doubled
            fault.text = re.sub(r"lines? \d+( to \d+)? again$", f"lines {first} to {number} again", fault.text)
        else:
            self._fault("doubled", f"line {number} again", number)
            self.doubled, self.last_doubled = (number, number), self.faults[-1]

    def _may_end_early(self, number: int) -> bool:
        flags = self.testimony.flags
        return number < len(flags) and bool(flags[number] & (_UNCERTAIN | _UNFINISHED))

    def _debris(self, text: bytes) -> None:
        """Part of a line: fine if the instance died while it printed that."""
        flags = self.testimony.flags
        number = self.highest + 1
        while number < len(flags) and flags[number] & _UNCERTAIN:
            if witness.line(number, self.kind).startswith(text):
                return
            number += 1
        number = self.highest + 1
        if number < len(flags) and witness.line(number, self.kind).startswith(text):
            self.begun.append((number, text))  # fine if the rest of it may be lost
        else:
            self._torn(text, self.highest)

    def _torn(self, text: bytes, number: int) -> None:
        self._fault("torn", f"after line {number}: {_short(text)}", number)

    def _fault(self, counter: str, text: str, number: int | None = None) -> None:
        self.counts[counter] += 1
        at, whose = None, self.testimony.name
        if number is not None and 0 < number < len(self.testimony.flags) and self.testimony.batches:
            batch, instance = self.testimony.of_line(number)
            at, whose = batch.begun, str(instance)
        self.faults.append(Fault(f"{self.where}: {counter}: {whose}: {text}", at))

    def finish(self, allowed: Callable[[Instance], bool], kept: Reading | None = None) -> None:
        """Say what is missing; `allowed` tells whose unread output may be, unless it is `kept` in another place."""
        if self.part:
            self._debris(self.part)
        for number, text in self.begun:
            if self.seen[number] or not allowed(self.testimony.of_line(number)[1]):
                self._torn(text, number - 1)
        for first, last in self._missing(kept):
            batch, instance = self.testimony.of_line(first)
            there = kept is not None and kept.seen[first]
            if allowed(instance) and not there:
                self.counts["lost, allowed"] += last - first + 1
                continue
            self.counts["lost"] += last - first + 1
            said = f"{self.where}: lost: {instance}: lines {first} to {last}" + (
                f"; they are in {kept.where}" if kept and there else ""
            )
            self.faults.append(Fault(said, batch.done))

    def _missing(self, kept: Reading | None) -> Iterator[tuple[int, int]]:
        """The certain lines that were not found, as ranges within one batch that are all kept elsewhere or all not."""
        for batch, _ in self.testimony.batches:
            gone = [] if batch.done is None else [n for n in range(batch.first, batch.last + 1) if not self.seen[n]]
            while gone:
                first = gone[0]
                there = kept is not None and kept.seen[first]
                last = first
                while last + 1 in gone and (kept is not None and kept.seen[last + 1]) == there:
                    last += 1
                yield first, last
                gone = [number for number in gone if number > last]


def read_own_log(path: Path, readings: Mapping[str, Reading]) -> None:
    """Give every reading its events of the supervisor's own log."""
    with path.open("rb") as log:
        for line in log:
            if (event := _EVENT.fullmatch(line.removesuffix(b"\n"))) and (name := event[1].decode()) in readings:
                readings[name].read_event(event[2])
            elif LINE.search(line):
                reading = next(iter(readings.values()))
                reading.counts["torn"] += 1
                reading.faults.append(Fault(f"{reading.where}: torn: not an event: {_short(line)}"))


def judge_exits(
    testimony: Testimony,
    signals: set[str],
    records: Mapping[str, Mapping[str, Any]],
    allowed: Callable[[Instance], bool],
) -> tuple[Counter[str], list[Fault]]:
    """Compare the records of ended instances with what these noted; `signals` are those that end one otherwise."""
    counts: Counter[str] = Counter()
    faults: list[Fault] = []

    def fault(counter: str, text: str, at: float | None) -> None:
        counts[counter] += 1
        faults.append(Fault(f"exits: {counter}: {text}", at))

    for instance in testimony.instances:
        record = records.get(instance.identity)
        last, ended_by = instance.end
        at = last if instance.code is not None or ended_by == float("inf") else ended_by
        expected = f"{instance} " + ("was ended" if instance.code is None else f"exited with {instance.code}")
        if record is None and allowed(instance):
            counts["unrecorded, allowed"] += 1
        elif record is None:
            fault("unrecorded", expected, at)
        elif record["code"] is None and record["signal"] is None:
            if allowed(instance):
                counts["unknown, allowed"] += 1
            else:
                fault("unknown", f"{expected}: {record}", at)
        elif (record["code"], record["signal"]) != (instance.code, None) and (
            instance.code is not None or record["signal"] not in signals
        ):
            fault("wrong", f"{expected}: {record}", at)
    for identity, record in records.items():
        if identity in testimony.by_id or record["pid"] is None:
            continue
        # It was ended before it could note anything.
        counts["unwitnessed"] += 1
        if record["code"] is not None:
            fault("wrong", f"{testimony.name}, instance {identity}, never was up: {record}", None)
    return counts, faults


def _short(text: bytes) -> str:
    shown = text.decode("ascii", "backslashreplace")
    return shown if len(shown) <= 2 * _SHOWN else f"{shown[:_SHOWN]} … {shown[-_SHOWN:]} ({len(shown)} characters)"
