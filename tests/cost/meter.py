"""Counts what a process asks of the kernel: the same on a slow machine and a fast one.

Bytes and sleeps come from /proc. Calls by name come from strace, which is attached to the threads that there are and
follows no child; where it is missing, or may not be used, the rest is counted all the same.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# An event is over when nothing has happened for so long. What follows one later does so within a second: records of
# what is soon to change again, a look at what a stop waits for, how many descriptors are left (`_TRANSIENT_S`, `_ASK_S`
# and `_SHOWN_AFTER_S` in src/).
_STILL_S = 1.2
_PATIENCE_S = 40.0
_LOOK_S = 0.05
# "TID call(arguments) = result"; when another thread's line comes between, in two halves.
_CALL = re.compile(rb"^(?:(\d+) +)?(\w+)\((.*)$")
_RESUMED = re.compile(rb"^(\d+) +<\.\.\. (\w+) resumed>(.*)$")
_UNFINISHED = b" <unfinished ...>"
_RESULT = re.compile(r"= (\d+)(?: .*)?$")
OPENS = ("open", "openat", "openat2")
_WAITS = ("epoll_wait", "epoll_pwait", "poll", "ppoll", "select", "pselect6")
# How an allocator gets its memory is its own affair, and differs from run to run.
_OF_MEMORY = ("brk", "madvise", "mmap", "mprotect", "mremap", "munmap")


@dataclass(frozen=True)
class Call:
    """One system call: its name, and its arguments and result as strace shows them."""

    name: str
    text: str

    @property
    def paths(self) -> list[str]:
        """The absolute paths among the arguments."""
        return re.findall(r'"(/[^"]*)"', self.text)

    @property
    def result(self) -> int:
        """What it returned, 0 for an error."""
        found = _RESULT.search(self.text)
        return int(found[1]) if found else 0


@dataclass(frozen=True)
class Cost:
    """What was done between two looks. `calls` is None where nobody could see them."""

    written: int  # bytes, to files; what is sent through sockets or spliced is not among them (proc(5), wchar)
    read: int  # the same, read
    sleeps: int  # how often it waited; with strace at it, much more often
    calls: tuple[Call, ...] | None

    def named(self, *names: str) -> list[Call]:
        """The calls of these names."""
        return [call for call in self.calls or () if call.name in names]

    @property
    def opened(self) -> list[str]:
        """The paths of the files that were opened, or were to be."""
        return [path for call in self.named(*OPENS) for path in call.paths]

    @property
    def listed(self) -> list[str]:
        """The paths of directories that were opened to be listed, or were to be."""
        return [path for call in self.named(*OPENS) if "O_DIRECTORY" in call.text for path in call.paths]

    @property
    def figures(self) -> dict[str, int]:
        """What is compared with bounds: by strace, or what can be had without it."""
        if self.calls is None:
            return {"wake-ups": self.sleeps, "bytes": self.written}
        return {
            "calls": len(self.calls), "opens": len(self.opened), "wake-ups": len(self.named(*_WAITS)),
            "bytes": self.written,
        }  # fmt: skip


class Meter:
    """Looks at one process."""

    def __init__(self, pid: int, directory: Path) -> None:
        """Files of strace go to `directory`."""
        self.pid, self._log = pid, directory / f"strace-{pid}"
        self._tracer = attach(pid, self._log) if can_trace() else None
        self._begun = self.counters()

    def close(self) -> None:
        """Leave the process alone."""
        if self._tracer is not None:
            self._tracer.terminate()
            self._tracer.wait(_PATIENCE_S)

    def counters(self) -> dict[str, int]:
        """What only ever grows."""
        found = {"traced": self._log.stat().st_size if self._tracer is not None else 0, "sleeps": 0}
        for status in _statuses(self.pid):
            found["sleeps"] += sum(map(int, re.findall(rb"^voluntary_ctxt_switches:\t(\d+)", status, re.MULTILINE)))
        for line in Path(f"/proc/{self.pid}/io").read_text().splitlines():
            key, _, value = line.partition(": ")
            found[key] = int(value)
        return found

    def is_asleep(self) -> bool:
        """Whether every thread waits."""
        return all(re.search(rb"^State:\tS", status, re.MULTILINE) for status in _statuses(self.pid))

    def begin(self) -> None:
        """Count from now on."""
        self._begun = self.counters()

    def cost(self) -> Cost:
        """What was done since."""
        before, now = self._begun, self.counters()
        more = {key: now[key] - before[key] for key in now}
        calls = None
        if self._tracer is not None:
            with self._log.open("rb") as log:
                log.seek(before["traced"])
                calls = parse(log.read(more["traced"]))
        return Cost(more["wchar"], more["rchar"], more["sleeps"], calls)


def wait_until_still(meters: Sequence[Meter]) -> None:
    """Wait until all of these have slept for a while, each with the counters that it had."""
    end, since, before = time.monotonic() + _PATIENCE_S, time.monotonic(), list[dict[str, int]]()
    while time.monotonic() - since < _STILL_S:
        assert time.monotonic() < end, f"no rest: {[meter.cost().figures for meter in meters]}"
        now = [meter.counters() for meter in meters]
        if now != before or not all(meter.is_asleep() for meter in meters):
            before, since = now, time.monotonic()
        time.sleep(_LOOK_S)


def traced(*options: str) -> list[str]:
    """A command that runs the one behind it and writes down its system calls; `-o FILE` is among the options.

    The strings that are read and written are left out, paths are not.
    """
    return [shutil.which("strace") or "strace", "-q", "-s", "0", *options]


def attach(pid: int, log: Path) -> subprocess.Popen[bytes]:
    """Have strace write to `log` what the threads of a process do from now on.

    :raises PermissionError: when it may not.
    """
    threads = [word for thread in os.listdir(f"/proc/{pid}/task") for word in ("-p", thread)]
    said = log.with_suffix(".said")
    with said.open("wb") as output:
        tracer = subprocess.Popen(
            traced("-o", str(log), *threads), stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    end = time.monotonic() + _PATIENCE_S
    while any(b"\nTracerPid:\t0\n" in status for status in _statuses(pid)):
        if tracer.poll() is not None or time.monotonic() > end:
            tracer.kill()
            tracer.wait()
            raise PermissionError(said.read_text())
        time.sleep(_LOOK_S)
    return tracer


@functools.cache
def can_trace() -> bool:
    """Whether strace is installed and may be attached to what is not its child."""
    if shutil.which("strace") is None:
        return False
    with tempfile.TemporaryDirectory() as directory:
        sleeping = subprocess.Popen(["sleep", "60"])
        try:
            tracer = attach(sleeping.pid, Path(directory) / "log")
            tracer.terminate()
            tracer.wait()
        except PermissionError:
            return False
        finally:
            sleeping.kill()
            sleeping.wait()
    return True


def _statuses(pid: int) -> list[bytes]:
    threads = os.listdir(f"/proc/{pid}/task")
    return [Path(f"/proc/{pid}/task/{thread}/status").read_bytes() for thread in threads]


def parse(text: bytes) -> tuple[Call, ...]:
    """The calls that strace wrote down.

    A wait that goes on at the end of `text` counts, and the end of one that had begun before it does not.
    """
    found, begun = [], dict[bytes, bytes]()
    for line in text.splitlines():
        if match := _RESUMED.match(line):
            thread, name, rest = match.groups()
            rest = begun.pop(thread, b"") + rest
        elif match := _CALL.match(line):
            thread, name, rest = match[1] or b"", match[2], match[3]
            if rest.endswith(_UNFINISHED):
                begun[thread] = rest.removesuffix(_UNFINISHED)
                continue
        else:
            continue  # signals, and ends of threads
        if name.decode() not in _OF_MEMORY:
            found.append(Call(name.decode(), rest.decode(errors="replace")))
    return tuple(found)
