"""Executing the installed version of ourselves in our place: same pid, same lock, same pipes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import msgspec

from ..keeper.kernel import reach
from .orphans import Orphans, kill

# Tells the new program that it takes over: the number of a descriptor with what is handed to it, or TRIAL.
VARIABLE = "NCOLONY_HANDOVER"
# It is only to show that it can be started: options parsed, modules imported.
TRIAL = "trial"
# What it says then.
_CAN_START = "ncolony can be started"
# A machine may be slow; python and Twisted take 0.3 s to start.
PATIENCE_S = 60.0
# What may come while nobody listens waits for the new program.
_SIGNALS = (
    signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD,
)  # fmt: skip


class Handover(msgspec.Struct):
    """What the new program gets: descriptors that stay open, and what was asked for."""

    lock: int
    shown: int  # the lock that shows others that we are there
    fifos: dict[str, int]
    version: str
    nofile: int | None  # the soft limit of descriptors that we were started with
    message: str | None = None  # the file name of the message that asked for it
    # name -> its instance that is being stopped: number, next step of the sequence, seconds until then
    stopping: dict[str, tuple[int, int, float]] = {}


def command() -> list[str]:
    """The command line that we were started with, run by the same interpreter."""
    return [sys.executable, *sys.orig_argv[1:]]


def end_trial() -> None:
    """End here if we were only to show that we can be started."""
    if os.environ.get(VARIABLE) == TRIAL:
        print(_CAN_START)
        sys.exit(0)


def received() -> Handover | None:
    """What an earlier program handed to us, once: what we start must not find it."""
    value = os.environ.pop(VARIABLE, "")
    if not value.isdigit():
        return None
    with open(int(value), "rb") as file:
        handover = msgspec.json.decode(file.read(), type=Handover)
    for descriptor in (handover.lock, handover.shown, *handover.fifos.values()):
        os.set_inheritable(descriptor, False)
    return handover


def try_out(reactor: Any, orphans: Orphans, done: Callable[[str], None]) -> int:
    """Start the installed version to see whether it can be; `done(why not, or "")` follows. The pid of the trial.

    :raises OSError: when not even that is possible.
    """
    output = tempfile.TemporaryFile()  # noqa: SIM115  # until the trial has ended
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, output.fileno(), 1),
        (os.POSIX_SPAWN_DUP2, output.fileno(), 2),
    ]
    environment = {**os.environ, VARIABLE: TRIAL}
    try:
        pid = os.posix_spawn(
            sys.executable, command(), environment, file_actions=actions, setsid=True, setsigmask=()
        )  # fmt: skip
    except OSError:
        output.close()
        raise
    late = reactor.callLater(PATIENCE_S, kill, pid)

    def ended(status: int) -> None:
        if late.active():
            late.cancel()
        with output:
            output.seek(0)
            said = output.read().decode("utf-8", "backslashreplace").strip().splitlines()
        code = os.waitstatus_to_exitcode(status)
        if code == 0 and said[-1:] == [_CAN_START]:
            done("")
        else:
            done(f"the installed version cannot start: {said[-1] if said else f'it ended with {code}'}")

    orphans.expect(pid, ended)
    return pid


def execute(handover: Handover) -> None:
    """Become the installed version, with signals held off. Returns only by an error.

    :raises OSError: when it cannot be executed; nothing has changed then.
    """
    kept = (handover.lock, handover.shown, *handover.fifos.values())
    # Unlinked, so that it goes with its last descriptor.
    with tempfile.TemporaryFile() as file:
        file.write(msgspec.json.encode(handover))
        file.flush()
        file.seek(0)
        try:
            for descriptor in (*kept, file.fileno()):
                os.set_inheritable(descriptor, True)
            reach("upgrade.execute")
            os.execve(sys.executable, command(), {**os.environ, VARIABLE: str(file.fileno())})
        finally:
            for descriptor in kept:
                with contextlib.suppress(OSError):
                    os.set_inheritable(descriptor, False)
            hear_signals()


def hold_off_signals() -> None:
    """From now on signals wait for the new program; those that came before are still worked off by this one."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def hear_signals() -> None:
    """Let the signals in that came while nobody listened."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
