"""One run of a command."""

# Twisted is typed, but not all of it.
# mypy: allow-untyped-calls

from __future__ import annotations

import array
import fcntl
import math
import os
import signal
import subprocess
import termios
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

from twisted.internet import defer

from .output import LINE_LIMIT, Lined, Lines

SETTLE_S = 1.0
"""Seconds that a killed group has to vanish before the run is given up (zombies nobody reaps would hold it forever)."""


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

    def __init__(self, reactor: Any, file: IO[bytes], stream: str, output: Lined) -> None:
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


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended: its exit code or the name of a signal, whether that is success, and the same in words."""

    code: int | None
    signal: str | None
    success: bool
    text: str


class Run:
    """One run of the command, until it has ended and its process group is empty.

    Raises OSError or ValueError when the command cannot be started. `use_pidfd=False` notices its end by looking
    again and again, as on systems without pidfds.
    """

    def __init__(
        self,
        reactor: Any,
        output: Lined,
        args: Sequence[str],
        timeout: float | None,
        grace: float,
        *,
        use_pidfd: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._reactor = reactor
        self._output = output
        self._who = repr(args[0])
        self._timeout = timeout
        self._grace = grace
        self._deadline = math.inf if timeout is None else reactor.seconds() + timeout
        # Nobody waits for this object's buffers: the pipes are read without blocking, and it is reaped by poll().
        self._process = subprocess.Popen(
            args,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            env=env,
        )
        self.done: defer.Deferred[None] = defer.Deferred()
        self._code: int | None = None
        self._sent: signal.Signals | None = None
        self._stopping = False
        self._why_stopped = ""
        self._over = False
        self._leftovers = False
        self._left_running = ""
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

    @property
    def stopped(self) -> bool:
        """Whether it was told to end."""
        return self._stopping

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

    def stop(self, why: str = "") -> None:
        """End the run: SIGTERM to the group now if it has not had it, SIGKILL after the grace.

        Without a reason, nothing is said about its end.
        """
        self._stopping = True
        self._why_stopped = why
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
        if delay == math.inf:
            return
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
        if self._stopping:
            return self._how(code) if self._why_stopped else None
        return None if code == 0 and self._sent is None else self._how(code)

    def _how(self, code: int) -> str:
        how = f"ended with exit code {code}" if code >= 0 else f"was ended by signal {signal_name(-code)}"
        return f"{how}{self._reason()}"

    @property
    def end(self) -> End:
        """How the run ended; it has."""
        assert self._code is not None
        name = signal_name(-self._code) if self._code < 0 else None
        success = self._code == 0 and self._sent is None
        return End(None if name else self._code, name, success, self._left_running or self._how(self._code))

    def _reason(self) -> str:
        if self._stopping:
            return f": {self._why_stopped or 'the scheduler was stopped'}"
        if self._sent is None or self._timeout is None:
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
        lives = somebody_lives(self.pid)
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
            self._left_running = f"left processes running, which were ended by signal {name}{self._reason()}"
            self._output.problem(f"{self._who} {self._left_running}")
        self.done.callback(None)


def somebody_lives(group: int) -> bool:
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


def signal_name(number: int) -> str:
    """Return the name of a signal without SIG."""
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return str(number)


def _plain(seconds: float) -> str:
    return repr(seconds).removesuffix(".0")
