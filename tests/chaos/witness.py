"""What the storm's colony runs: a program that counts its own lines and notes all it does in a file of its own.

    python -I -S witness.py FOLDER NAME MODE

FOLDER/NAME is the witness: whole lines, each begun by the monotonic time in seconds. Who reads it needs nobody's word.

    T up PID IDENTITY NEXT          alive, alone, and the first line to come bears the number NEXT
    T printing FIRST..LAST [open]   about to write these lines to standard output ("open": the last without its end)
    T printed FIRST..LAST           all of them are written
    T child PID IDENTITY            a descendant in a session of its own
    T exit CODE IDENTITY            about to exit; nothing but SIGKILL comes between
    T duplicate PID IDENTITY        another instance of NAME was alive
    T leftover PID IDENTITY         a descendant of an earlier instance was alive

A line of output is "<NUMBER LENGTH text NUMBER>", so that it proves by itself that it is whole. FOLDER/NAME.lock is
held for life. Standard library only, and little of it: many of these live for some milliseconds.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_TEXT = b"abcdefghijklmnopqrstuvwxyz0123456789-" * 3000
_TAIL = 1 << 14
_TERM_AND_INT = (signal.SIGTERM, signal.SIGINT)
# Where an instance of another's tree is found alive.
_DUPLICATE, _LEFTOVER = 198, 199


def chance(least: int, most: int) -> int:
    """A number from `least` to `most`; the module `random` would take longer to import than some of us live."""
    return least + int.from_bytes(os.urandom(4), "big") % (most - least + 1)


def nap(least_ms: int, most_ms: int) -> None:
    """Sleep for so many milliseconds."""
    time.sleep(chance(least_ms, most_ms) / 1000)


def length_of(number: int, kind: str) -> int:
    """How long the text of a line is: mostly short; in a burst now and then longer than a page, a pipe, an event."""
    if kind == "bare":
        return 0
    if kind == "burst":
        if number % 641 == 0:
            return 100_000
        return 9000 if number % 97 == 0 else 100 + number * 7919 % 1900
    return number * 7919 % 160


def line(number: int, kind: str) -> bytes:
    """One line of output."""
    length = length_of(number, kind)
    return b"<%d %d %s %d>\n" % (number, length, _TEXT[:length], number)


class Witness:
    """One instance: its locks, its notes, and the number of its next line."""

    def __init__(self, folder: str, name: str, kind: str) -> None:
        self.path, self.kind = f"{folder}/{name}", kind
        self.identity = os.environ.get("NCOLONY_INSTANCE", "none")
        self.notes = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        self.mine = self.lock(".lock", "duplicate", _DUPLICATE)
        os.close(self.lock(".child.lock", "leftover", _LEFTOVER))
        self.next = self.find_next()
        self.note(f"up {os.getpid()} {self.identity} {self.next}")

    def lock(self, ending: str, fault: str, code: int) -> int:
        """Hold a lock, or note that somebody else does and exit."""
        descriptor = os.open(self.path + ending, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.note(f"{fault} {os.getpid()} {self.identity}")
            self.exit(code)
        return descriptor

    def note(self, text: str) -> None:
        """Append one line in one write."""
        os.write(self.notes, f"{time.monotonic():.6f} {text}\n".encode())

    def find_next(self) -> int:
        """The number after the last that an earlier instance may have printed."""
        size = os.fstat(self.notes).st_size
        tail = os.pread(self.notes, _TAIL, max(0, size - _TAIL))
        for words in [one.split() for one in reversed(tail.split(b"\n")[:-1])]:
            if len(words) > 2 and words[1] == b"printing":
                return int(words[2].partition(b"..")[2]) + 1
            if len(words) > 4 and words[1] == b"up":
                return int(words[4])
        assert size <= _TAIL, "no line number within the last notes"
        return 1

    def say(self, count: int, whole: bool = True) -> None:
        """Print lines; the last without a newline at its end if it is not to be `whole`."""
        first, last = self.next, self.next + count - 1
        self.next = last + 1
        data = b"".join(line(number, self.kind) for number in range(first, last + 1))
        self.note(f"printing {first}..{last}" + ("" if whole else " open"))
        left = memoryview(data if whole else data[:-1])
        while left:
            left = left[os.write(1, left) :]
        self.note(f"printed {first}..{last}")

    def exit(self, code: int) -> NoReturn:
        """Note the code, then exit with it; a polite signal that comes in between finds deaf ears."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _TERM_AND_INT)
        self.note(f"exit {code} {self.identity}")
        os._exit(code)

    def have_child(self, deaf: bool) -> None:
        """Leave a grandchild in a session of its own, fostered by whoever fosters orphans; wait until it has a lock."""
        told, tell = os.pipe()
        child = os.fork()
        if child:
            os.close(tell)
            os.waitpid(child, 0)
            os.read(told, 1)
            os.close(told)
            return
        os.setsid()
        if os.fork():
            os._exit(0)
        # A lock goes with the last descriptor of its file: what is inherited must not keep our parent's.
        os.close(self.mine)
        os.close(told)
        if deaf:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        held = os.open(self.path + ".child.lock", os.O_RDWR)
        fcntl.flock(held, fcntl.LOCK_EX)
        self.note(f"child {os.getpid()} {self.identity}")
        os.close(tell)
        while True:
            signal.pause()


def live(witness: Witness, mode: str) -> None:
    """Live as the mode says; most modes never return."""
    if mode in ("deaf", "deaf-parent"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if mode == "polite":
        signal.signal(signal.SIGTERM, lambda *_: witness.exit(chance(0, 99)))
    if mode in ("parent", "deaf-parent", "orphaner"):
        witness.have_child(deaf=mode == "deaf-parent" or chance(0, 3) == 0)
    if mode == "short":
        witness.say(chance(1, 3))
        nap(5, 80)
        witness.say(chance(1, 2), whole=chance(0, 3) != 0)
        witness.exit(chance(0, 99))
    if mode in ("mortal", "orphaner"):
        for _ in range(chance(3, 20)):
            witness.say(chance(1, 5))
            nap(20, 200)
        witness.exit(chance(0, 99))
    if mode == "killed":
        witness.say(chance(1, 5))
        nap(50, 1500)
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "silent":
        signal.pause()
    while mode == "burst":
        witness.say(200)
        nap(1200, 2500)
    while True:
        witness.say(chance(1, 6))
        nap(30, 300)


def main(folder: str, name: str, mode: str) -> None:
    """Be an instance of the process `name`."""
    live(Witness(folder, name, mode), mode)


if __name__ == "__main__":
    main(*sys.argv[1:])
