"""Output of instances: FIFO -> splice -> log file, rotated; full disks and slow readers."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import sys
import termios
import time

from kept import ENDINGS, ENTRY, MOST_BYTES, older
from kernel import CUT, NO_DESCRIPTORS, peek, reach

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# One splice moves at most a whole enlarged pipe (fs.pipe-max-size is 1 MiB by default).
_CHUNK = 1 << 20
_PIPE = 1 << 16
# A loud instance gets a larger pipe: splice moves 1,500 MB/s of 50 through 1 MiB and 1,200 through 64 KiB. All pipes of
# a user who is not root have 64 MiB together (fs.pipe-user-pages-soft); beyond that new ones hold next to nothing.
_F_SETPIPE_SZ = 1031
_LOUD = _CHUNK if os.geteuid() == 0 else 1 << 18
# Descriptors for logs that were written lately; the others are opened again when they are needed.
_OPEN_AT_MOST = 128
# A log is cut in mid-line only when no newline comes for this long after it is full.
_LONGEST_TAIL = 1 << 13
_SMALLEST = 1 << 12
_LARGEST = 1 << 24
_KEEP = 3
# Lines that come within this time share one entry of the time index.
_STAMP_S = 0.01
# Cuts that are kept, and the size of their file at which older ones go.
_CUTS, _MOST_CUTS = 64, 1 << 12
# In a directory that others may write too, a link is not ours.
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW


class Logs:
    """All logs of a colony: which are open, and each one's share of the budget."""

    def __init__(self, directory: str, budget: int) -> None:
        self.directory, self.budget = directory, budget
        self.by_name: dict[str, Log] = {}
        self.opened: dict[Log, None] = {}
        self.most_open = min(_OPEN_AT_MOST, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8)
        self.attended = False  # a supervisor is connected: what it has not read yet is not thrown away

    def get(self, name: str) -> Log:
        """The log of the process `name`."""
        if name not in self.by_name:
            self.by_name[name] = Log(self, name)
        return self.by_name[name]

    def drop(self, name: str) -> None:
        """Know nothing more of a log."""
        if (log := self.by_name.pop(name, None)) is not None:
            log.close()

    def share(self) -> int:
        """Bytes one file may have, so that all logs with their kept files stay within the budget."""
        return min(max(self.budget // max(len(self.by_name), 1) // (_KEEP + 1), _SMALLEST), _LARGEST)

    def used(self, log: Log) -> None:
        """Note that `log` is open and was written now; close the one that was not written for longest."""
        self.opened.pop(log, None)
        self.opened[log] = None
        if len(self.opened) > self.most_open:
            self.close_one()

    def close_one(self) -> bool:
        """Close the log that was not written for longest, if any is open: for its descriptors."""
        for log in self.opened:
            log.close()
            return True
        return False

    def reopen(self) -> None:
        """Close every file, so that one which was moved away is created anew at the next line."""
        for log in list(self.opened):
            log.close()


class Log:
    """A stream of bytes that a process prints, counted from its first ever: `start` + `size` is where it ends.

    `name` is the process's, or NAME/stderr for the standard error of one whose streams are kept apart.
    """

    __slots__ = (
        "logs name file index start size stamp late dropped read_to forward blocks max_bytes keep configured"
        " loud paused told announced trouble older counted"
    ).split()

    def __init__(self, logs: Logs, name: str) -> None:
        self.logs, self.name = logs, name
        self.file = self.index = -1
        self.start = self.size = self.stamp = self.late = self.dropped = 0
        self.read_to: int | None = None  # up to where the supervisor has forwarded; not known before the first line
        self.forward = self.blocks = True
        self.loud = False  # it filled its FIFO once
        self.max_bytes: int | None = None
        self.keep: int | None = None
        self.configured = False  # before that, nothing is thrown away: it may be wanted
        self.paused: set[int] = set()  # descriptors of FIFOs that are left alone while this log is held back
        self.told = False  # the supervisor was told of output and has not answered yet
        self.announced = 0  # up to where it was told
        self.trouble = ""
        self.older: list[tuple[int, int]] = []  # (start, size) of rotated files, oldest first
        self.counted = False  # `older` is known

    @property
    def directory(self) -> str:
        return f"{self.logs.directory}/{self.name}"

    @property
    def end(self) -> int:
        return self.start + self.size

    def configure(self, settings: dict[str, Any]) -> None:
        """Take on the `log` key of the process's newest definition."""
        self.configured = True
        forward = settings.get("forward", True)
        if forward and not self.forward and self.read_to is not None:
            self.read_to = max(self.read_to, self.end)  # what came before was not to be forwarded
        self.forward, self.blocks = forward, settings.get("overflow") != "drop"
        self.max_bytes, self.keep = settings.get("max_bytes"), settings.get("keep")

    def _open(self) -> None:
        if self.file >= 0:
            return
        size = self.size
        try:
            self._open_files()
        except OSError:
            self.close()
            self.size, self.counted = size, False
            raise

    def _open_files(self) -> None:
        ended = self.end
        os.makedirs(self.directory, mode=0o755, exist_ok=True)
        if os.lstat(self.directory).st_uid not in (0, os.geteuid()):
            raise PermissionError(errno.EPERM, "the directory belongs to another user")
        self._find_older()
        self.file = os.open(f"{self.directory}/current", _FLAGS, 0o644)
        self.index = os.open(f"{self.directory}/current.index", _FLAGS, 0o644)
        self.size = os.lseek(self.file, 0, os.SEEK_END)
        begin = self.older[-1][0] + self.older[-1][1] if self.older else 0
        if self.size == 0:
            begin = max(
                begin, ended, self.read_to or 0
            )  # also when somebody removed the files: what follows is still counted on
        if os.lseek(self.index, 0, os.SEEK_END) >= ENTRY.size:
            said = ENTRY.unpack(os.pread(self.index, ENTRY.size, 0))[0]
            begin = max(begin, said) if said <= MOST_BYTES else begin
        else:
            os.write(self.index, ENTRY.pack(begin, time.time_ns()))
        self.start = begin
        if self.read_to is None or self.read_to > self.end:
            self.read_to = self.announced = self.end
        self.logs.used(self)

    def find(self) -> None:
        """Know where the log ends, if there is one: an earlier keeper may have written more than it told of."""
        with contextlib.suppress(OSError):  # the first line says why
            if os.path.exists(f"{self.directory}/current"):
                self._open()

    def _find_older(self) -> None:
        if not self.counted:
            self.counted = True
            self.older = older(self.directory)

    def expect(self, since: int) -> None:
        """An instance began to print at `since`: nobody may have forwarded it, whatever an earlier keeper knew."""
        if self.read_to is None or self.read_to > since:
            self.read_to = since
        self.find()

    def close(self) -> None:
        """Close the files; the next line opens them again."""
        if self.late:
            self._note_time(ENTRY.pack(self.end, self.late))
        for descriptor in (self.file, self.index):
            if descriptor >= 0:
                os.close(descriptor)
        self.file = self.index = -1
        self.logs.opened.pop(self, None)

    def limit(self) -> int:
        return self.max_bytes or self.logs.share()

    def held_back(self) -> bool:
        """True when a full log may not throw away what the supervisor has still to forward: the writer waits."""
        if not (self.forward and self.blocks and self.logs.attended) or self.read_to is None:
            return False
        return self.end - self.read_to >= self.limit() * (self._kept() + 1)

    def _kept(self) -> int:
        return _KEEP if self.keep is None else self.keep

    def take(self, fifo: int, turns: int, patient: bool = True) -> bool:
        """Move what is in the FIFO into the log, in at most `turns` splices; True when it is empty.

        `patient` leaves output in the FIFO while the log is held back; the last output of an instance does not wait.
        """
        for _ in range(turns):
            if patient and self.held_back():
                return True
            if self.file < 0:
                if not _waiting(fifo):
                    return True
                try:
                    self._open()
                except OSError as error:
                    if error.errno not in NO_DESCRIPTORS or not self.logs.close_one():
                        self._drop(fifo, error)
                    continue
            room = self.limit() - self.size
            moved = self._splice(fifo, min(room, _CHUNK)) if room > 0 else 0
            if moved is None or (self.size >= self.limit() and self.file >= 0 and not self._turn_page(fifo)):
                return True
            if moved == _PIPE:
                self.loud = True
                _enlarge(fifo)
        return False

    def _splice(self, fifo: int, length: int) -> int | None:
        """Bytes moved, or None when the FIFO is empty. splice takes only what it stored, so a SIGKILL loses nothing."""
        try:
            moved = os.splice(fifo, self.file, length, flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            return None
        except OSError as error:
            return self._drop(fifo, error)
        self.size += moved
        reach("output.moved")
        self.trouble = ""
        self._stamp(moved)
        return moved or None

    def _stamp(self, moved: int) -> None:
        now = time.time_ns()
        if now - self.stamp <= _STAMP_S * 1e9:
            self.late = now  # told with the next one, should that come much later
            return
        self.stamp = now
        self.logs.used(self)
        before = ENTRY.pack(self.end - moved, self.late) if self.late else b""
        self._note_time(before + ENTRY.pack(self.end, now))

    def _note_time(self, entries: bytes) -> None:
        self.late = 0
        with contextlib.suppress(OSError):  # a full disk: times are missing, lines are not
            os.write(self.index, entries)

    def cut(self) -> None:
        """An instance's output ends here: what follows begins a new line. Noted where no newline says so."""
        with contextlib.suppress(OSError):  # a full disk: two lines are joined
            self.find()
            if self.file < 0 or self.size == 0 or os.pread(self.file, 1, self.size - 1) == b"\n":
                return
            with open(f"{self.directory}/cuts", "ab", opener=_open_here) as file:
                file.write(CUT.pack(self.end))
                size = file.tell()
            if size > _MOST_CUTS:
                with open(f"{self.directory}/cuts", "rb") as file:
                    newest = file.read()[-_CUTS * CUT.size :]
                with open(f"{self.directory}/cuts.new", "wb", opener=_open_here) as file:
                    file.write(newest)
                os.rename(f"{self.directory}/cuts.new", f"{self.directory}/cuts")

    def _drop(self, fifo: int, error: OSError) -> int | None:
        """The disk is full or the directory gone: the process must run on, so its output is thrown away and counted."""
        self.close()
        self.counted = False
        self.trouble = f"cannot write {self.directory}/current: {error.strerror}"
        try:
            gone = len(os.read(fifo, _PIPE))
        except OSError:
            return None
        self.dropped += gone
        return gone

    def _turn_page(self, fifo: int) -> bool:
        """Begin a new file, at the end of a line: for that the rest of the last line is taken by itself.

        False when the rest of the line has still to be written.
        """
        tail = self.size + _LONGEST_TAIL
        with contextlib.suppress(OSError):  # the next splice says why
            while os.pread(self.file, 1, self.size - 1) != b"\n" and self.size < tail:
                if not (rest := peek(fifo, tail - self.size)):
                    return False
                self.size += os.splice(fifo, self.file, rest.find(b"\n") + 1 or len(rest))
        try:
            reach("rotate.full")
            for ending, name in (("log", "current"), ("index", "current.index")):
                os.rename(f"{self.directory}/{name}", f"{self.directory}/{self.start:020d}.{ending}")
                reach(f"rotate.{ending}")
        except FileNotFoundError:
            self.counted = False  # somebody removed the files: begin anew
            self.close()
            return True
        except OSError as error:
            self.trouble = f"cannot rotate {self.directory}/current: {error.strerror}"
            return True
        self.older.append((self.start, self.size))
        self.close()
        self._throw_away()
        return True

    def _throw_away(self) -> None:
        """Remove the oldest files beyond what is kept, but nothing that the connected supervisor has still to read."""
        while self.configured and len(self.older) > self._kept():
            start, size = self.older[0]
            if self.forward and self.blocks and self.logs.attended and start + size > (self.read_to or 0):
                return
            self.older.pop(0)
            if self.forward:
                self.dropped += max(0, start + size - max(start, self.read_to or 0))
            for ending in ENDINGS:
                with contextlib.suppress(OSError):
                    os.unlink(f"{self.directory}/{start:020d}.{ending}")

    def was_read(self, offset: int) -> None:
        """The supervisor has forwarded everything up to `offset`."""
        self.read_to, self.told = max(self.read_to or 0, offset), False
        if self.older and len(self.older) > self._kept():
            self._throw_away()


def _open_here(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o644)


def _waiting(fifo: int) -> int:
    """Bytes in the FIFO: a log is only created for a process that printed something."""
    return int.from_bytes(fcntl.ioctl(fifo, termios.FIONREAD, b"\0\0\0\0"), sys.byteorder)


def _enlarge(fifo: int) -> None:
    with contextlib.suppress(OSError):  # more than is allowed: it is as good as before, only slower
        fcntl.fcntl(fifo, _F_SETPIPE_SZ, _LOUD)
