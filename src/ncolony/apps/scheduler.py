"""Run a short-lived command again and again: ``python -m twisted ncolony-scheduler``.

Each run is a session and process group of its own. After its timeout the group gets SIGTERM, and after the grace
SIGKILL. A run is over when its command has ended and its group is empty; whoever has left the group and merely holds
the output open is not waited for.
"""

# Twisted is typed, but not all of it.
# mypy: allow-untyped-calls

from __future__ import annotations

import array
import fcntl
import getopt
import math
import os
import select
import signal
import stat
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, Any, Protocol

from twisted.application import service
from twisted.internet import defer, error
from twisted.logger import Logger
from twisted.python import usage

from ncolony.decide import schedule
from ncolony.system.clock import make_steady

LINE_LIMIT = 64 * 1024
"""Bytes of output after which a line is split; one pipe's worth, as for the processes of the supervisor."""

FULL = 256 * 1024
"""Bytes waiting for a slow standard output above which the command's output is left in its pipe."""

OVERFULL = 4 * FULL
"""Bytes waiting for a slow standard output above which lines are dropped and counted."""

SETTLE_S = 1.0
"""Seconds that a killed group has to vanish before the run is given up (zombies nobody reaps would hold it forever)."""

LAST_WORDS_S = 1.0
"""Seconds that a slow standard output has to take the last lines when we stop."""

SHORTEST_S = 0.001
"""The shortest frequency and timeout: below it only the starting of processes would be measured."""


# Options


class Options(usage.Options):
    """Options of the scheduler; seconds may be fractions."""

    synopsis = "[options]"
    longdesc = "Run a command at once and then periodically, one run at a time, and print what it prints line by line."

    optParameters = [  # noqa: RUF012, N815 (Twisted's interface)
        ["frequency", None, None, "Seconds from the start of one run to the start of the next (required)."],
        ["timeout", None, None, "Seconds a run may take before its process group gets SIGTERM (required)."],
        ["grace", None, None, "Seconds from SIGTERM to SIGKILL (required)."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["args"] = []
        self.words: list[str] = []

    def opt_arg(self, arg: str) -> None:
        """The command, then each of its arguments (give it once per word; at least one is required)."""
        self["args"].append(arg)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:  # noqa: N802 (Twisted's interface)
        """Parse the words after the plugin's name, which are kept to find the words before it."""
        self.words = list(sys.argv[1:] if options is None else options)
        super().parseOptions(options)

    def parseArgs(self, *rest: str) -> None:  # noqa: N802 (Twisted's interface)
        """Refuse words that belong to no option."""
        if rest:
            raise usage.UsageError(f"unexpected {rest[0]!r}: give the command and its arguments as --arg WORD each")

    def postOptions(self) -> None:  # noqa: N802 (Twisted's interface)
        """Check every option; raises UsageError naming the first that is missing or makes no sense."""
        if not self["args"]:
            raise usage.UsageError("--arg is required: the command to run")
        if not self["args"][0]:
            raise usage.UsageError("--arg: the command is empty")
        self["frequency"] = _seconds("frequency", self["frequency"], SHORTEST_S)
        self["timeout"] = _seconds("timeout", self["timeout"], SHORTEST_S)
        self["grace"] = _seconds("grace", self["grace"], 0.0)


def _seconds(name: str, text: str | None, least: float) -> float:
    """Return the option's value as seconds; raises UsageError."""
    if text is None:
        raise usage.UsageError(f"--{name} is required")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < least:
        raise usage.UsageError(f"--{name} must be a number of seconds, {least:g} or more, not {text!r}")
    return value


# Output: bytes from the command's pipes -> lines -> our log


_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code != ord("\t")}
_CONTROLS |= {0x2028: "\\u2028", 0x2029: "\\u2029"}


class Lines:
    """Cuts a stream of bytes into printable lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """Return the lines that `data` completes."""
        *whole, rest = (self._rest + data).split(b"\n")
        lines = [piece for line in whole for piece in _pieces(line.removesuffix(b"\r"))]
        *long, self._rest = _pieces(rest)
        return [_printable(piece) for piece in (*lines, *long)]

    def end(self) -> list[str]:
        """Return the last line if it had no newline."""
        rest, self._rest = self._rest, b""
        return [_printable(rest)] if rest else []


def _pieces(line: bytes) -> list[bytes]:
    """Split a line that is too long, between characters where it is UTF-8."""
    pieces = []
    while len(line) > LINE_LIMIT:
        cut = LINE_LIMIT
        while cut > LINE_LIMIT - 4 and line[cut] & 0xC0 == 0x80:
            cut -= 1
        if line[cut] & 0xC0 == 0x80:
            cut = LINE_LIMIT
        pieces.append(line[:cut])
        line = line[cut:]
    return [*pieces, line]


def _printable(line: bytes) -> str:
    """Return the line as text in which bytes that are not UTF-8, and control characters, are shown escaped."""
    text = line.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else text.translate(_CONTROLS)


class Output(Protocol):
    """Where the command's lines and our own go."""

    @property
    def full(self) -> bool:
        """Whether the command's output should be left in its pipe for now."""

    def when_room(self, call: Callable[[], None]) -> None:
        """Have `call` called each time this is no longer full."""

    def lines(self, stream: str, lines: Sequence[str]) -> None:
        """Take lines of the command's output."""

    def problem(self, text: str) -> None:
        """Take one line about the command."""

    def finish(self) -> defer.Deferred[None]:
        """Return a Deferred that fires when all has been written, or cannot be."""


class EventOutput:
    """Sends lines to Twisted's log, one event each."""

    full = False

    def __init__(self) -> None:
        self._log = Logger(namespace="ncolony.scheduler")

    def when_room(self, call: Callable[[], None]) -> None:
        """Do nothing: this is never full."""

    def lines(self, stream: str, lines: Sequence[str]) -> None:
        """Emit one event per line, with the fields `line` and `stream`."""
        for line in lines:
            self._log.info("{line}", line=line, stream=stream)

    def problem(self, text: str) -> None:
        """Emit one event with the field `problem`."""
        self._log.error("{problem}", problem=text)

    def finish(self) -> defer.Deferred[None]:
        """Return a Deferred that has fired."""
        return defer.succeed(None)


class BareOutput:
    """Writes lines to a descriptor as they are, never blocking on a slow reader and never failing.

    The descriptor is shared with Twisted's log and perhaps with other programs, so it cannot be made non-blocking.
    Instead no more is written at a time than a pipe that polls as writable has room for.
    """

    def __init__(self, reactor: Any, fd: int | None) -> None:
        self._reactor = reactor
        self._fd = fd
        # A descriptor of our own: the reactor's epoll forgets one that somebody else closes.
        self._own = -1 if fd is None else os.dup(fd)
        self._at_once = 0 if fd is None else OVERFULL if stat.S_ISREG(os.fstat(fd).st_mode) else select.PIPE_BUF
        self._poll = select.poll()
        if fd is not None:
            self._poll.register(self._own, select.POLLOUT)
        self._waiting = bytearray()
        self._dropped = 0
        self._inside_line = False
        self._watched = False
        self._room: list[Callable[[], None]] = []
        self._empty: defer.Deferred[None] | None = None
        self._last_call: Any = None

    @property
    def full(self) -> bool:
        """Whether more than `FULL` bytes wait to be written."""
        return len(self._waiting) > FULL

    def when_room(self, call: Callable[[], None]) -> None:
        """Have `call` called each time all waiting lines have been written."""
        self._room.append(call)

    def lines(self, stream: str, lines: Sequence[str]) -> None:
        """Write the lines."""
        for line in lines:
            self._put(line)
        self._write()

    def problem(self, text: str) -> None:
        """Write the text as a line."""
        self._put(text)
        self._write()

    def _put(self, line: str) -> None:
        """Let the line wait for its writing."""
        if self._own < 0:
            return
        if len(self._waiting) > OVERFULL:
            self._dropped += 1
            return
        if not self._waiting and self._inside_line:
            # The line before was cut off by a full disk.
            self._waiting += b"\n"
        self._waiting += line.encode("utf-8", "backslashreplace") + b"\n"

    def _write(self) -> None:
        """Write as much as can be written without waiting, and watch for room for the rest."""
        try:
            while self._waiting and self._poll.poll(0):
                piece = self._waiting[: self._at_once]
                written = os.write(self._own, piece)
                self._inside_line = written > 0 and piece[written - 1] != ord("\n")
                del self._waiting[:written]
        except BlockingIOError:
            pass  # somebody else made it non-blocking
        except OSError:
            self._waiting.clear()  # a reader that is gone or a full disk must stop nothing
        if not self._waiting:
            self._emptied()
        elif not self._watched:
            self._watched = True
            self._reactor.addWriter(self)

    def _emptied(self) -> None:
        if self._watched:
            self._watched = False
            self._reactor.removeWriter(self)
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self.problem(f"{dropped} lines of output were dropped: nobody read standard output")
            return
        for call in self._room:
            call()
        if self._empty is not None:
            empty, self._empty = self._empty, None
            self._last_call.cancel()
            empty.callback(None)

    def finish(self) -> defer.Deferred[None]:
        """Return a Deferred that fires when all is written, or after `LAST_WORDS_S` when nobody reads."""
        if self._own < 0 or (not self._waiting and self._poll.poll(0)):
            return defer.succeed(None)
        self._empty = empty = defer.Deferred[None]()
        self._last_call = self._reactor.callLater(LAST_WORDS_S, self._abandon)
        if not self._watched:
            self._watched = True
            self._reactor.addWriter(self)
        return empty

    def _abandon(self) -> None:
        """Give up what is still waiting; Twisted's own last words must not block on the same reader either."""
        empty, self._empty = self._empty, None
        self._waiting.clear()
        if self._fd is not None:
            _write_to_nowhere(self._fd)
        if empty is not None:
            empty.callback(None)

    # What the reactor calls.

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._own

    def logPrefix(self) -> str:  # noqa: N802 (Twisted's interface)
        """Return our name in the reactor's complaints."""
        return "standard output"

    def doWrite(self) -> None:  # noqa: N802 (Twisted's interface)
        """Write on, there is room."""
        self._write()

    def connectionLost(self, reason: object) -> None:  # noqa: N802 (Twisted's interface)
        """Forget what waits: the reader is gone."""
        self._watched = False
        self._waiting.clear()
        self._emptied()


def _write_to_nowhere(fd: int) -> None:
    """Make what is written to `fd` from now on vanish."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, fd)
    os.close(null)


# One run


class _Watch:
    """Has a descriptor watched by the reactor; closes it when done."""

    def __init__(self, reactor: Any, fd: int, close: Callable[[], object], call: Callable[[], None]) -> None:
        self._reactor = reactor
        self._fd = fd
        self._close = close
        self._call = call
        reactor.addReader(self)

    def fileno(self) -> int:
        """Return the descriptor, -1 when closed."""
        return self._fd

    def logPrefix(self) -> str:  # noqa: N802 (Twisted's interface)
        """Return our name in the reactor's complaints."""
        return "scheduler"

    def doRead(self) -> None:  # noqa: N802 (Twisted's interface)
        """Call back."""
        self._call()

    def connectionLost(self, reason: object) -> None:  # noqa: N802 (Twisted's interface)
        """Close, and call back: a hang-up is news too."""
        if self._fd >= 0:
            self.close()
            self._call()

    def pause(self) -> None:
        """Watch no longer, for now."""
        self._reactor.removeReader(self)

    def resume(self) -> None:
        """Watch again."""
        self._reactor.addReader(self)

    def close(self) -> None:
        """Stop watching and close the descriptor."""
        if self._fd >= 0:
            self._reactor.removeReader(self)
            self._close()
            self._fd = -1


class _Pipe:
    """Reads one of the command's output streams."""

    def __init__(self, reactor: Any, file: IO[bytes], stream: str, output: Output) -> None:
        self._stream = stream
        self._output = output
        self._lines = Lines()
        self._fd = file.fileno()
        os.set_blocking(self._fd, False)
        self._paused = False
        self._ended = False
        self._watch = _Watch(reactor, self._fd, file.close, self._readable)

    def _readable(self) -> None:
        if self._watch.fileno() < 0:
            self._end()
            return
        self._read(LINE_LIMIT)
        if self._output.full and not self._ended:
            self._paused = True
            self._watch.pause()

    def _read(self, size: int) -> int:
        """Read at most `size` bytes and pass on the lines; return how many there were."""
        try:
            data = os.read(self._fd, size)
        except BlockingIOError:
            return 0
        if not data:
            self._end()
        self._output.lines(self._stream, self._lines.feed(data))
        return len(data)

    def resume(self) -> None:
        """Read again, after a pause because the output was full."""
        if self._paused and not self._ended:
            self._paused = False
            self._watch.resume()

    def take(self) -> None:
        """Read what is in the pipe at this moment, but not what somebody keeps writing to it."""
        if self._ended:
            return
        count = array.array("i", [0])
        fcntl.ioctl(self._fd, termios.FIONREAD, count)
        left = count[0]
        while left > 0 and (got := self._read(min(left, LINE_LIMIT))):
            left -= got

    def close(self) -> None:
        """Take what is there, the line without a newline included, and close: whoever still writes is not ours."""
        try:
            self.take()
        finally:
            self._end()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._watch.close()
            self._output.lines(self._stream, self._lines.end())


class Run:
    """One run of the command, until it has ended and its process group is empty.

    Raises OSError or ValueError when the command cannot be started. `use_pidfd=False` notices its end by looking
    again and again, as on systems without pidfds.
    """

    def __init__(
        self,
        reactor: Any,
        output: Output,
        args: Sequence[str],
        timeout: float,
        grace: float,
        *,
        use_pidfd: bool = True,
    ) -> None:
        self._reactor = reactor
        self._output = output
        self._who = repr(args[0])
        self._timeout = timeout
        self._grace = grace
        self._deadline = reactor.seconds() + timeout
        # Nobody waits for this object's buffers: the pipes are read without blocking, and it is reaped by poll().
        self._process = subprocess.Popen(
            args,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        self.done: defer.Deferred[None] = defer.Deferred()
        self._code: int | None = None
        self._sent: signal.Signals | None = None
        self._stopping = False
        self._over = False
        self._leftovers = False
        self._pause = 0.005
        self._timer: Any = None
        self._watch: _Watch | None = None
        self._pipes: list[_Pipe] = []
        try:
            self._attach(use_pidfd)
        except OSError as problem:
            # It runs, so it must be minded even where its output cannot be had.
            output.problem(f"cannot read the output of {self._who}: {problem.strerror}")
        self._arm()

    @property
    def pid(self) -> int:
        """The command's process id, which is its session's and group's too."""
        return self._process.pid

    def _attach(self, use_pidfd: bool) -> None:
        """Have the reactor watch the pipes and the process."""
        for file, stream in ((self._process.stdout, "stdout"), (self._process.stderr, "stderr")):
            assert file is not None
            self._pipes.append(_Pipe(self._reactor, file, stream, self._output))
        if use_pidfd and hasattr(os, "pidfd_open"):
            # Where this fails (an old kernel, a seccomp filter) the timer looks instead.
            with suppress(OSError):
                fd = os.pidfd_open(self.pid)
                self._watch = _Watch(self._reactor, fd, lambda: os.close(fd), self._look)

    def resume(self) -> None:
        """Read on, after a pause because the output was full."""
        for pipe in self._pipes:
            pipe.resume()

    def stop(self) -> None:
        """End the run: SIGTERM to the group now if it has not had it, SIGKILL after the grace."""
        self._stopping = True
        if self._sent is None:
            self._deadline = self._reactor.seconds()
        self._look()

    def kill(self) -> None:
        """End the run: SIGKILL to the group now."""
        self._stopping = True
        self._sent = signal.SIGTERM
        self._deadline = self._reactor.seconds()
        self._look()

    def _look(self) -> None:
        """Do what is due now, whatever happened: every wake-up comes here."""
        if self._over:
            return
        try:
            self._advance()
        except Exception as problem:  # noqa: BLE001 (whatever it is, the run must still be ended in time)
            self._output.problem(f"cannot mind {self._who}: {problem!r}")
            self._deadline = max(self._deadline, self._reactor.seconds() + SETTLE_S)
        if not self._over:
            self._arm()

    def _advance(self) -> None:
        if self._code is None:
            self._reap()
        while True:
            if self._code is not None and not self._group_lives():
                self._finish()
                return
            now = self._reactor.seconds()
            if now < self._deadline:
                return
            if self._sent is None:
                self._signal(signal.SIGTERM, now + self._grace)
            elif self._sent is signal.SIGTERM or self._code is None:
                self._signal(signal.SIGKILL, now + SETTLE_S)
            else:
                self._finish()
                return

    def _arm(self) -> None:
        """Have `_look` called at the deadline, or earlier where nothing else would tell of a change."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        delay = self._deadline - self._reactor.seconds()
        if self._watch is None:
            delay = min(delay, self._pause)
            self._pause = min(self._pause * 2, 0.25)
        self._timer = self._reactor.callLater(max(0.0, delay), self._look)

    def _reap(self) -> None:
        code = self._process.poll()
        if code is None:
            return
        self._code = code
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        self._pause = 0.005
        alive = self._group_lives()
        for pipe in self._pipes:
            if alive:
                pipe.take()
            else:
                pipe.close()
        if report := self._verdict(code):
            self._output.problem(f"{self._who} {report}")

    def _verdict(self, code: int) -> str | None:
        """Return what is to be said about the command's end, None when nothing is."""
        if self._stopping or (code == 0 and self._sent is None):
            return None
        how = f"ended with exit code {code}" if code >= 0 else f"was ended by signal {_signal_name(-code)}"
        return f"{how}{self._reason()}"

    def _reason(self) -> str:
        if self._sent is None:
            return ""
        grace = f" and grace of {_plain(self._grace)} s" if self._sent is signal.SIGKILL else ""
        return f" after its timeout of {_plain(self._timeout)} s{grace}"

    def _signal(self, number: signal.Signals, deadline: float) -> None:
        """Send a signal to the group and set the next deadline.

        Before the command is reaped its number cannot be anybody else's; after that `_group_lives` has just said so.
        """
        self._sent = number
        self._deadline = deadline
        self._leftovers = self._leftovers or self._code is not None
        self._pause = 0.005
        # Gone, or changed to another user meanwhile: there is nobody (left) that we may signal.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _group_lives(self) -> bool:
        """Return whether somebody is left in the group of the command, which has been reaped."""
        # As PID 1 we are the parent of its orphans, whose zombies would keep the group.
        with suppress(ChildProcessError):
            while os.waitpid(-self.pid, os.WNOHANG)[0]:
                pass
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        # The number of a living group is given to no new process, so a process with it means that our group has gone
        # and the number has been used again.
        try:
            os.kill(self.pid, 0)
            return False
        except PermissionError:
            return False
        except ProcessLookupError:
            pass
        before = self._reactor.seconds()
        lives = _somebody_lives(self.pid)
        # Looking costs time where there are thousands of processes; it shall not take more than a twentieth of ours.
        self._pause = max(self._pause, 20 * (self._reactor.seconds() - before))
        return lives

    def _finish(self) -> None:
        self._over = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        for pipe in self._pipes:
            with suppress(OSError):
                pipe.close()
        if self._leftovers and not self._stopping:
            name = "KILL" if self._sent is signal.SIGKILL else "TERM"
            self._output.problem(
                f"{self._who} left processes running, which were ended by signal {name}{self._reason()}"
            )
        self.done.callback(None)


def _somebody_lives(group: int) -> bool:
    """Return whether a process group of that session has a member that is no zombie.

    In a container whose init reaps late or never, zombies would else make every run last until its timeout.
    """
    try:
        pids = [name for name in os.listdir("/proc") if name.isdecimal()]
    except OSError:
        pids = []
    if not pids:
        return True  # no /proc: what the caller knows must do
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue  # ended meanwhile
        state, _, its_group, its_session, *more = fields
        # A main thread that has ended is shown as a zombie while other threads of its process go on.
        ended = state in b"ZX" and int(more[13]) <= 1
        if int(its_group) == group == int(its_session) and not ended:
            return True
    return False


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return str(number)


def _plain(seconds: float) -> str:
    return repr(seconds).removesuffix(".0")


# The service


class Scheduler(service.Service):
    """Starts a run at once and then each period, unless the last one still goes on."""

    def __init__(
        self,
        reactor: Any,
        output: Output,
        args: Sequence[str],
        frequency: float,
        timeout: float,
        grace: float,
        *,
        use_pidfd: bool = True,
    ) -> None:
        self._reactor = reactor
        self._output = output
        self._args = list(args)
        self._frequency = frequency
        self._timeout = timeout
        self._grace = grace
        self._use_pidfd = use_pidfd
        self._job: schedule.Job | None = None
        self._timer: Any = None
        self._run: Run | None = None
        self._log = Logger(namespace="ncolony.scheduler")
        output.when_room(self._resume)

    def startService(self) -> None:  # noqa: N802 (Twisted's interface)
        """Begin once the reactor runs."""
        service.Service.startService(self)
        self._reactor.callWhenRunning(self._begin)

    def stopService(self) -> defer.Deferred[None]:  # noqa: N802 (Twisted's interface)
        """End the run that is going; the Deferred fires when it is gone and its output is written."""
        service.Service.stopService(self)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        gone: defer.Deferred[None] = defer.Deferred()
        if self._run is None:
            gone.callback(None)
        else:
            self._run.done.addCallback(lambda _: gone.callback(None))
            self._run.stop()
        return gone.addCallback(lambda _: self._output.finish())

    def kill(self) -> None:
        """End the run that is going by SIGKILL."""
        if self._run is not None:
            self._run.kill()

    def _begin(self) -> None:
        if self.running:
            rules = schedule.Rules(every=self._frequency)
            self._job, _ = schedule.begin(rules, time.time(), self._reactor.seconds())
            self._happened(schedule.Tick())

    def _happened(self, event: schedule.Event) -> None:
        """Do what follows from the event, and have this called at the next moment at which something may."""
        assert self._job is not None
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._job, effects = schedule.step(self._job, event, time.time(), self._reactor.seconds())
        for effect in effects:
            if isinstance(effect, schedule.Run):
                self._start(effect.number)
            elif isinstance(effect, schedule.Note):
                self._log.debug("{word}: {why}", word=effect.word.value, why=effect.why)
        if self.running:
            wait = schedule.next_wake(self._job, time.time(), self._reactor.seconds())
            self._timer = self._reactor.callLater(wait, self._happened, schedule.Tick())

    def _start(self, number: int) -> None:
        try:
            run = Run(self._reactor, self._output, self._args, self._timeout, self._grace, use_pidfd=self._use_pidfd)
        except Exception as problem:  # noqa: BLE001 (whatever it is, the next period tries again)
            why = (problem.strerror if isinstance(problem, OSError) else None) or str(problem)
            self._output.problem(f"cannot run {self._args[0]!r}: {why}")
            self._reactor.callLater(0, self._happened, schedule.Ended(number, success=False))
            return
        self._run = run
        run.done.addCallback(self._ended, number)

    def _ended(self, _: None, number: int) -> None:
        self._run = None
        self._happened(schedule.Ended(number, success=True))

    def _resume(self) -> None:
        if self._run is not None:
            self._run.resume()


class Signals(service.Service):
    """Makes SIGTERM, SIGINT and SIGHUP a clean stop with exit status 0, and the second of them a SIGKILL.

    Twisted's own handlers would end this process by the same signal after a clean stop.
    """

    def __init__(self, reactor: Any, scheduler: Scheduler) -> None:
        self._reactor = reactor
        self._scheduler = scheduler
        self._asked = False

    def startService(self) -> None:  # noqa: N802 (Twisted's interface)
        """Take over once the reactor has installed its handlers."""
        service.Service.startService(self)
        self._reactor.callWhenRunning(self._install)

    def stopService(self) -> None:  # noqa: N802 (Twisted's interface)
        """Make a signal that came before we took over end in a clean exit too."""
        service.Service.stopService(self)
        if getattr(self._reactor, "_exitSignal", None) is not None:
            self._reactor._exitSignal = None

    def _install(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # a host program that runs us in a thread keeps its signals
        hangup_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        # A command would inherit ignored and blocked signals from us, but not handlers. Popen resets the two that
        # Python itself ignores; ignoring TTIN and TTOU means nothing in a session without a terminal.
        for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTTIN, signal.SIGTTOU}:
            if signal.getsignal(number) is signal.SIG_IGN:
                signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if number != signal.SIGHUP or not hangup_ignored:
                signal.signal(number, lambda *_: self._reactor.callFromThread(self._stop))

    def _stop(self) -> None:
        if self._asked:
            self._scheduler.kill()
        else:
            self._asked = True
            with suppress(error.ReactorNotRunning):  # somebody else has stopped it already
                self._reactor.stop()


def makeService(opts: Any) -> service.MultiService:  # noqa: N802 (Twisted's interface)
    """Return the scheduler's service; `opts` has the keys args, frequency, timeout and grace (seconds)."""
    # Not at the top: `--reactor` must have had its choice first.
    from twisted.internet import reactor

    make_steady(reactor)
    output = _choose_output(reactor, opts)
    together = service.MultiService()
    scheduler = Scheduler(reactor, output, opts["args"], opts["frequency"], opts["timeout"], opts["grace"])
    scheduler.setName("scheduler")
    signals = Signals(reactor, scheduler)
    signals.setName("signals")
    # Signals first: the first run must already have default dispositions.
    signals.setServiceParent(together)
    scheduler.setServiceParent(together)
    return together


def _choose_output(reactor: Any, opts: Any) -> Output:
    """Return bare standard output unless a log was asked for; under another host than `twist`, its log."""
    parent = getattr(opts, "parent", None)
    if parent is None or "logFile" not in parent:
        return EventOutput()
    log_file = parent["logFile"]
    if _log_was_chosen(parent, getattr(opts, "words", [])):
        # A log file in an encoding that lacks a character would else lose the line.
        if hasattr(log_file, "reconfigure"):
            log_file.reconfigure(errors="backslashreplace")
        return EventOutput()
    try:
        return BareOutput(reactor, None if log_file is None else log_file.fileno())
    except (OSError, ValueError):
        return BareOutput(reactor, None)  # standard output is closed


def _log_was_chosen(parent: Any, words: list[str]) -> bool:
    """Return whether `twist` was given --log-file or --log-format; its options keep only the values."""
    before = len(sys.argv) - len(words) - 1
    if before > 0 and sys.argv[before:] == [parent.subCommand, *words]:
        given, _ = getopt.getopt(sys.argv[1:before], parent.shortOpt, parent.longOpt)
        return any(name.replace("_", "-") in ("--log-file", "--log-format") for name, _ in given)
    # Somebody else's command line: what can be seen is another file than standard output.
    return parent["logFile"] is not sys.__stdout__
