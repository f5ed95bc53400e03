"""A colony that lasts as long as somebody holds on to it, and leaves nothing behind however he ends.

The guard is a process between him and the supervisor. It stops the supervisor when he says so or is gone, sees to the
end of the keeper, and removes the colony's directory.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

from .shutdown import end_keeper

# A keeper that lost its supervisor, and then its guard, ends everything after this.
LINGER_S = 2
# Without a supervisor the keeper stops everything by itself; its stop sequences take as long as they take.
_KEEPER_S = 60.0
_PR_SET_PDEATHSIG = 1
# To the supervisor these mean the same; two of one kind could be taken for one when they come at once.
_WISHES = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Guarded:
    """A private colony while it runs: its output to read, and the means to stop it."""

    def __init__(self, directory: str, make: Callable[[], Sequence[str]], cwd: str) -> None:
        """Begin. `directory` is made, for us alone, and removed at the end.

        `make()` is called in another process, when the directory is there: it fills it and returns the supervisor's
        command, whose --state is `directory`/state. A failure of any of that is told in `output`.
        """
        self.output, theirs = os.pipe()
        reading, self._control = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os._exit(_guard(directory, make, cwd, theirs, reading, (self.output, self._control)))
        os.close(theirs)
        os.close(reading)

    def stop(self) -> None:
        """Stop everything; called again, without waiting."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._control, b"t")

    def wait(self) -> int:
        """Wait until nothing is left; the supervisor's exit code, as a shell would tell it."""
        _, status = os.waitpid(self.pid, 0)
        os.close(self.output)
        os.close(self._control)
        return _as_shell(os.waitstatus_to_exitcode(status))


def _guard(
    directory: str, make: Callable[[], Sequence[str]], cwd: str, output: int, control: int, others: Sequence[int]
) -> int:
    """All that the guard does; its exit code. Nobody hears what it says but through `output`."""
    for number in _STOPPING:
        signal.signal(number, signal.SIG_IGN)
    os.setsid()
    for descriptor in others:
        os.close(descriptor)
    code = 1
    try:
        os.mkdir(directory, 0o700)
        try:
            code = _supervise(make(), cwd, output, control)
            with contextlib.suppress(FileNotFoundError):
                end_keeper(f"{directory}/state", _KEEPER_S)
        finally:
            shutil.rmtree(directory)
    except Exception as error:  # noqa: BLE001
        with contextlib.suppress(OSError):
            os.write(output, f"cannot run a colony in {directory}: {error}\n".encode(errors="backslashreplace"))
    return code


def _supervise(command: Sequence[str], cwd: str, output: int, control: int) -> int:
    """Run the supervisor until it ends; its exit code, as a shell would tell it."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    guard = os.getpid()

    def prepare() -> None:
        for number in _STOPPING:
            signal.signal(number, signal.SIG_DFL)
        if sys.platform == "linux":
            # Should the guard be killed, this is what is left of it.
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != guard:
            os._exit(1)

    # The only thread: what is called between fork and exec can find no lock held.
    supervisor = subprocess.Popen(
        command, cwd=cwd, stdin=nowhere, stdout=output, stderr=output, start_new_session=True, preexec_fn=prepare
    )
    listening, told = [control, wake], 0
    while supervisor.poll() is None:
        for descriptor in select.select(listening, [], [])[0]:
            word = os.read(descriptor, 1)
            if descriptor == wake:
                continue
            if not word:
                listening.remove(control)
            if word or not told:
                supervisor.send_signal(_WISHES[min(told, len(_WISHES) - 1)])
                told += 1
    return _as_shell(supervisor.returncode)


def _as_shell(code: int) -> int:
    return code if code >= 0 else 128 - code
