"""Looks by a program: run as the user, in the directory and with the environment of the process."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
from typing import Any

import msgspec

from ...model.config import Definition, signal_name
from ...system import launch
from .outcome import GOOD, OURS, Done, Outcome, lowered, quoted

# Of what it prints the end is kept, in which the last line is.
_KEPT = 1 << 12
_CHUNK = 1 << 16
# Where there are no pidfds one has to look again and again.
_LOOK_S = 0.02
_LONGEST_SHOWN = 80


def shown(command: tuple[str, ...]) -> str:
    """The command as people are told of it."""
    text = quoted(shlex.join(command))
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"


class Foreign(Exception):
    """It cannot be run as that user, or in that environment; the text says why. No fault of the process."""


def order_of(
    definition: Definition, command: tuple[str, ...], name: str, index: int | None, surroundings: launch.Surroundings
) -> dict[str, Any]:
    """What to run for the process `name`, the copy number `index` of its file.

    :raises Foreign: when the user or the environment cannot be had.
    :raises launch.Impossible: when there is no such program.
    """
    config = msgspec.structs.replace(definition.config, args=command)
    extra = {"NCOLONY_NAME": name}
    if index is not None:
        extra["NCOLONY_INDEX"] = str(index)
    if len(definition.text) + len("NCOLONY_CONFIG=") < launch.LONGEST_STRING:
        extra["NCOLONY_CONFIG"] = definition.text.decode()
    # Whoever ends us ends what we have started too, and finds it by this.
    if ours := os.environ.get("NCOLONY_INSTANCE"):
        extra["NCOLONY_INSTANCE"] = ours
    try:
        launch.find_owner(config.uid, config.gid)
        launch.environment(config, surroundings.environ, os.path.join(surroundings.cwd, config.cwd or ""))
    except launch.Impossible as impossible:
        raise Foreign(str(impossible)) from None
    return launch.order(config, surroundings, extra)


class Run:
    """One run of a program in a process group of its own, which is killed when it is over or takes too long."""

    def __init__(self, reactor: Any, order: dict[str, Any], timeout: float, done: Done) -> None:
        self._reactor, self._order, self._timeout, self._done = reactor, order, timeout, done
        self._process: subprocess.Popen[bytes] | None = None
        self._output = b""
        self._pipe: _Reading | None = None
        self._end_watch: _Reading | None = None
        self._timer: Any = None
        self._look: Any = None
        self._timed_out = self._silent = False

    def begin(self) -> None:
        """Start it."""
        try:
            self._process = process = _spawn(self._order)
        except OSError as error:
            # Of several things that can be missing, Python names the one.
            missing = error.filename if isinstance(error.filename, str) else self._order["path"]
            what = "enter" if missing == self._order["cwd"] else "run"
            self._fail(Outcome(f"cannot {what} {missing}: {lowered(error.strerror)}", unknown=error.errno in OURS))
            return
        except (ValueError, subprocess.SubprocessError) as error:
            self._fail(Outcome(f"cannot run {self._order['path']}: {error}"))
            return
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        self._pipe = _Reading(self._reactor, process.stdout.fileno(), self._read)
        self._timer = self._reactor.callLater(self._timeout, self._too_long)
        try:
            self._end_watch = _Reading(self._reactor, os.pidfd_open(process.pid), self._ended)
        except (OSError, AttributeError):
            self._look = self._reactor.callLater(_LOOK_S, self._look_again)

    def _fail(self, outcome: Outcome) -> None:
        # Later: many of them one in another would be too deep.
        self._reactor.callLater(0, lambda: None if self._silent else self._done(outcome))

    def cancel(self) -> None:
        """Nobody wants to know any more: kill it. It is still waited for, so that it leaves no zombie."""
        self._silent = True
        self._kill()

    def close(self) -> None:
        """We are about to end: kill it and wait for it."""
        self.cancel()
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):  # where not even that ends it, nothing will
                self._process.wait(1)

    def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None and self._pipe is not None
        try:
            data = os.read(self._process.stdout.fileno(), _CHUNK)
        except BlockingIOError:
            return
        if data:
            self._output = (self._output + data)[-_KEPT:]
        else:
            self._pipe.close()

    def _too_long(self) -> None:
        self._timed_out = True
        self._kill()

    def _kill(self) -> None:
        # It is not reaped yet, so its number is nobody else's.
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _look_again(self) -> None:
        assert self._process is not None
        if os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            self._look = self._reactor.callLater(_LOOK_S, self._look_again)
        else:
            self._ended()

    def _ended(self) -> None:
        """It has ended: what it left in its group ends too. Whoever holds its output open is not waited for."""
        process = self._process
        assert process is not None and process.stdout is not None and self._pipe is not None
        if self._pipe.is_open:
            self._read()
        self._pipe.close()
        if self._end_watch is not None:
            descriptor = self._end_watch.fileno()
            self._end_watch.close()
            os.close(descriptor)
        self._kill()
        code = process.wait()
        process.stdout.close()
        if self._timer.active():
            self._timer.cancel()
        if not self._silent:
            self._done(self._judged(code))

    def _judged(self, code: int) -> Outcome:
        if self._timed_out:
            return Outcome(f"no end within {self._timeout:g} s{self._last_line()}")
        if code == 0:
            return GOOD
        how = f"exit code {code}" if code > 0 else f"killed by SIG{signal_name(-code)}"
        return Outcome(how + self._last_line())

    def _last_line(self) -> str:
        lines = self._output.decode("utf-8", "backslashreplace").splitlines()
        last = next((line for line in reversed(lines) if line.strip()), "")
        return f": {quoted(last)}" if last else ""


def _spawn(order: dict[str, Any]) -> subprocess.Popen[bytes]:
    """Start the program. Its group is its own; its session is ours, so that whoever ends us finds it."""
    become: dict[str, Any] = {}
    for key, argument in (("uid", "user"), ("gid", "group"), ("groups", "extra_groups")):
        if order[key] is not None:
            become[argument] = order[key]
    return subprocess.Popen(
        order["argv"],
        executable=order["path"],
        cwd=order["cwd"],
        env=order["env"],
        umask=order["umask"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
        process_group=0,
        **become,
    )


class _Reading:
    """Has the reactor watch a descriptor."""

    def __init__(self, reactor: Any, descriptor: int, call: Any) -> None:
        self._reactor, self._descriptor, self._call = reactor, descriptor, call
        self.is_open = True
        reactor.addReader(self)

    def fileno(self) -> int:
        """The descriptor; the reactor asks."""
        return self._descriptor

    def logPrefix(self) -> str:  # noqa: N802 (Twisted's interface)
        """Our name in the reactor's complaints."""
        return "check"

    def doRead(self) -> None:  # noqa: N802 (Twisted's interface)
        """There is something."""
        self._call()

    def connectionLost(self, reason: object) -> None:  # noqa: N802 (Twisted's interface)
        """A hang-up is something too."""
        if self.is_open:
            self._call()

    def close(self) -> None:
        """Watch no longer."""
        if self.is_open:
            self.is_open = False
            self._reactor.removeReader(self)
