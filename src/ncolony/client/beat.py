"""A heart for programs without Twisted: a thread, or a task of asyncio's.

    from ncolony.client import beat

    heart = beat.start(alive=lambda: worker.is_busy_or_idle())   # a thread
    await beat.run()                                             # asyncio, until cancelled
    heart = beat.task()                                          # the same as a task

What is to be touched, and how often, stands in the program's config file: in each `heartbeat` of `check`, in upstream's
`ncolony.beatcheck`, and for `watchdog` in the environment. All of it beats at once, at a third of the shortest period.
Where none of them asks, nothing beats.
"""

from __future__ import annotations

import os

from . import notify

TYPE_CHECKING = False  # the module `typing` takes longer to import than all of this
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping
    from typing import Any

    Say = Callable[[str], None]

# As in ncolony.model.conditions, which is not imported here: what `period` of a check is where it is left out.
DEFAULT_PERIOD_S = 10.0
# So often within a period: one beat may come late, and one be missed.
BEATS_PER_PERIOD = 3
# Nobody looks more often than every 0.05 s; and what no clock can count is not waited for.
_SHORTEST_S, _LONGEST_S = 0.01, 86400.0
# The largest file that can be a config file.
_LARGEST = 1 << 20


class Pulse:
    """What is asked of this program: the files to touch, and whether a watchdog waits for a word. `beat` does both.

    `interval` is the seconds from one beat to the next, None when nothing is asked. `say` is told in one line what is
    wrong, once, and once more when it has passed.
    """

    def __init__(self, environment: Mapping[str, str] | None = None, say: Say | None = None) -> None:
        variables = os.environ if environment is None else environment
        self._say = _warn if say is None else say
        self._name = variables.get("NCOLONY_NAME", "")
        self._troubles: dict[str, str] = {}
        asked = _heartbeats(configured(variables, self._say), self._say)
        # Absolute: the program may go to another directory.
        self.paths = tuple(dict.fromkeys(os.path.abspath(path) for path, _ in asked))
        self._watchdog = notify.watchdog_period()
        periods = [period for _, period in asked] + ([self._watchdog] if self._watchdog else [])
        self.interval = min(max(min(periods) / BEATS_PER_PERIOD, _SHORTEST_S), _LONGEST_S) if periods else None

    def files(self) -> list[str]:
        """The files that are touched, as far as it can be told now."""
        return [inside(path, self._name) if self._name else path for path in self.paths]

    def beat(self) -> None:
        """Show a sign of life, once. Raises nothing: what goes wrong is told, and tried again with the next beat."""
        for path in self.paths:
            self.attempt(path)
        if self._watchdog:
            notify.watchdog()

    def attempt(self, path: str) -> None:
        """Touch one of the files."""
        try:
            touch(path, self._name)
            trouble = ""
        except (OSError, ValueError) as error:
            trouble = f"cannot beat: {getattr(error, 'filename', None) or path}: {_reason(error)}"
        self.note(path, trouble)

    def note(self, what: str, trouble: str) -> None:
        """Tell what is wrong with something, or "" that nothing is, when that is new."""
        before = self._troubles.get(what, "")
        if trouble and not before:
            self._troubles[what] = trouble
            self._say(trouble)
        elif before and not trouble:
            self._say(f"no more: {self._troubles.pop(what)}")


def touch(path: str, name: str = "") -> None:
    """Set the time of a file to now, making it where it is missing; of a directory, that of the file `name` in it.

    Its content is left alone, so this needs no room on a disk once the file is there.

    :raises OSError: when it cannot be done.
    """
    path = inside(path, name)
    try:
        os.utime(path)
    except FileNotFoundError:
        # Not through a link that leads nowhere: what it is to make is somebody else's choice.
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        os.close(os.open(path, flags, 0o644))
        os.utime(path)


def inside(path: str, name: str) -> str:
    """The file that `path` means: itself, or the one called `name` where it is a directory.

    :raises ValueError: when that has no name.
    """
    if not os.path.isdir(path):
        return path
    if not name:
        raise ValueError("it is a directory, and NCOLONY_NAME is not set")
    return os.path.join(path, name)


# --- what beats ---


class Thread:
    """A thread that beats, until `stop`. `is_asked` tells whether anybody wants it to."""

    def __init__(self, pulse: Pulse, alive: Callable[[], object] | None) -> None:
        import threading

        self._pulse, self._alive = pulse, alive
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        if pulse.interval is not None:
            self._thread = threading.Thread(target=self._run, name="ncolony-beat", daemon=True)
            self._thread.start()

    @property
    def is_asked(self) -> bool:
        """Whether anybody waits for a sign of life of this program."""
        return self._pulse.interval is not None

    def stop(self) -> None:
        """Beat no more; returns when the last beat is over."""
        import threading

        self._stopped.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while True:
            if self._is_alive():
                self._pulse.beat()
            if self._stopped.wait(self._pulse.interval):
                return

    def _is_alive(self) -> bool:
        if self._alive is None:
            return True
        try:
            found = bool(self._alive())
        except Exception as error:  # noqa: BLE001 (it is the program's: whatever it is, the heart stands still)
            self._pulse.note("alive", f"cannot beat: alive() failed: {error!r}")
            return False
        self._pulse.note("alive", "")
        return found


def start(alive: Callable[[], object] | None = None) -> Thread:
    """Beat in a thread, the first time at once, until its `stop` is called or the program ends.

    A thread goes on when the rest of the program hangs. So give it `alive`, which is called before each beat, in the
    thread: while it returns something false, or raises, the heart stands still.
    """
    return Thread(Pulse(), alive)


async def run() -> None:
    """Beat from the event loop, the first time at once, until cancelled; at once over where nobody asks for it."""
    import asyncio

    pulse = Pulse()
    while pulse.interval is not None:
        pulse.beat()
        await asyncio.sleep(pulse.interval)


_tasks: set[Any] = set()


def task() -> asyncio.Task[None]:
    """`run` as a task of the running event loop, which is kept until it is cancelled."""
    import asyncio

    found = asyncio.get_running_loop().create_task(run(), name="ncolony-beat")
    # The loop itself holds tasks weakly.
    _tasks.add(found)
    found.add_done_callback(_tasks.discard)
    return found


# --- what is asked ---


def configured(environment: Mapping[str, str], say: Say) -> dict[str, Any]:
    """What this program's config file says; nothing where it is run by somebody else, or it cannot be read."""
    text: str | bytes | None = environment.get("NCOLONY_CONFIG")
    where = "NCOLONY_CONFIG"
    if text is None:
        where = environment.get("NCOLONY_CONFIG_FILE", "")
        if not where:
            return {}
    import json

    try:
        if text is None:
            with open(where, "rb") as file:
                text = file.read(_LARGEST + 1)
        found = json.loads(text)
    except OSError as error:
        say(f"cannot beat: {where}: {_reason(error)}")
        return {}
    except (ValueError, RecursionError):
        say(f"cannot beat: {where} holds no JSON")
        return {}
    return found if isinstance(found, dict) else {}


def _heartbeats(config: dict[str, Any], say: Say) -> list[tuple[str, float]]:
    """(path, period) of everything in a config file that asks for a heart."""
    checks = config.get("check", [])
    wanted = [("check.heartbeat", one) for one in (checks if isinstance(checks, list) else []) if _has_heart(one)]
    found = [_heartbeat(key, one["heartbeat"], one.get("period", DEFAULT_PERIOD_S), say) for key, one in wanted]
    upstream = config.get("ncolony.beatcheck")
    if isinstance(upstream, dict):
        found.append(_heartbeat("ncolony.beatcheck", upstream.get("status"), upstream.get("period"), say))
    elif upstream is not None:
        say(f"cannot beat: ncolony.beatcheck: expected an object, found {upstream!r}")
    return [one for one in found if one is not None]


def _has_heart(check: object) -> bool:
    return isinstance(check, dict) and check.get("heartbeat") is not None


def _heartbeat(key: str, path: object, period: object, say: Say) -> tuple[str, float] | None:
    if not isinstance(path, str) or not path or "\0" in path:
        say(f"cannot beat: {key}: expected a path, found {path!r}")
        return None
    if isinstance(period, bool) or not isinstance(period, int | float) or not 0 < period < float("inf"):
        say(f"cannot beat: {key}: expected a period in seconds, found {period!r}")
        return None
    return path, float(period)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _warn(text: str) -> None:
    import logging

    logging.getLogger("ncolony.client").warning(text)
