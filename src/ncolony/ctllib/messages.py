"""Messages: what the supervisor is asked to do."""

from __future__ import annotations

import errno
import itertools
import json
import os
import time

from ncolony.ctllib import (
    DEFAULT_WAIT_S,
    NOTHING_RUNS,
    REPORTS,
    SCOPES,
    BadValue,
    CannotAccess,
    Failed,
    NotThere,
    TimedOut,
)
from ncolony.ctllib.common import check_name, check_text, shown, state_directory, write

TYPE_CHECKING = False  # see ncolony.ctllib
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ncolony.ctllib import Path, Places


def restart(
    places: Places,
    name: str,
    *,
    rolling: int | None = None,
    instance: int | None = None,
    why: str = "",
    message_id: str | None = None,
) -> str:
    """Ask for the process `name` to be restarted; returns the message's id, which is its file name.

    `rolling` restarts so many of its copies at a time, each ready before the next. With the number of an `instance` it
    is done only if that one still runs. `why` is shown as the reason. Who gives the `message_id` asks once at most,
    however often: the message is the same file.

    :raises BadValue: when `rolling` is not 1 or more.
    """
    deed = f"restart {check_name('restart', name)}"
    content: dict[str, str | int] = {"type": "RESTART", "name": name, **_in_turn(deed, rolling)}
    if instance is not None:
        content["instance"] = instance
    if why:
        check_text(deed, "why", why)
        content["why"] = why
    return _send(places, deed, content, message_id)


def restart_all(places: Places, *, rolling: int | None = None) -> str:
    """Ask for every process that should run to be restarted, `rolling` at a time; returns the message's id.

    :raises BadValue: when `rolling` is not 1 or more.
    """
    return _send(places, "restart all", {"type": "RESTART-ALL", **_in_turn("restart all", rolling)})


def _in_turn(deed: str, rolling: int | None) -> dict[str, int]:
    if rolling is None:
        return {}
    if not isinstance(rolling, int) or isinstance(rolling, bool) or not 1 <= rolling < 1 << 31:
        raise BadValue(f"cannot {deed}: rolling: expected a number of 1 or more, found {shown(rolling)}")
    return {"rolling": rolling}


def restart_group(places: Places, group: str, *, rolling: int | None = None) -> str:
    """Ask for the processes of a group to be restarted, `rolling` at a time; returns the message's id.

    :raises BadValue: when the name is none, or `rolling` is not 1 or more.
    """
    deed = f"restart group {shown(group)}"
    if not group:
        raise BadValue(f"cannot {deed}: the group's name is empty")
    check_text(deed, "group", group)
    return _send(places, deed, {"type": "RESTART-GROUP", "group": group, **_in_turn(deed, rolling)})


def start(places: Places, name: str, *, message_id: str | None = None) -> str:
    """Ask for the process `name` to be started; returns the message's id."""
    return _send(places, f"start {check_name('start', name)}", {"type": "START", "name": name}, message_id)


def stop(
    places: Places, name: str, *, instance: int | None = None, why: str = "", message_id: str | None = None
) -> str:
    """Ask for the process `name` to be stopped until it is started or changed; returns the message's id.

    With the number of an `instance`, that one alone is meant. `why` is shown as the reason.
    """
    content: dict[str, str | int] = {"type": "STOP", "name": name}
    content |= {} if instance is None else {"instance": instance}
    content |= {"why": why} if why else {}
    return _send(places, f"stop {check_name('stop', name)}", content, message_id)


def signal(places: Places, name: str, signal: str | int, scope: str = "process") -> str:
    """Ask for a signal to be sent to the process `name`; returns the message's id.

    `signal` is "HUP", "SIGHUP" or 1. `scope` is "process", for its own pid alone, or "tree", for all that it started.

    :raises BadValue: for a signal or scope that there is not.
    """
    deed = f"signal {check_name('signal', name)}"
    from ncolony.model import config  # imports msgspec: 28 ms

    if isinstance(signal, bool) or not isinstance(signal, str | int) or config.signal_number(signal) is None:
        raise BadValue(f"cannot {deed}: there is no signal {shown(signal)}")
    if scope not in SCOPES:
        raise BadValue(f"cannot {deed}: scope: expected one of {', '.join(SCOPES)}, found {shown(scope)}")
    return _send(places, deed, {"type": "SIGNAL", "name": name, "signal": signal, "scope": scope})


def report(places: Places, name: str, what: str, instance: int | None = None, why: str = "") -> str:
    """Tell the supervisor how the process `name` is, for those who look after it; returns the message's id.

    `what` is "ready", "healthy" or "unhealthy", and of a job "late", "on-time" or "skipped". With the number of an
    `instance` it holds for that one alone.

    :raises BadValue: for another word.
    """
    deed = f"report on {check_name('report on', name)}"
    if what not in REPORTS:
        raise BadValue(f"cannot {deed}: what: expected one of {', '.join(REPORTS)}, found {shown(what)}")
    content: dict[str, str | int] = {"type": "REPORT", "name": name, "what": what, "why": why}
    return _send(places, deed, content if instance is None else content | {"instance": instance})


def scan(places: Places) -> str:
    """Ask the supervisor to look at its directories now; returns the message's id."""
    return _send(places, "scan", {"type": "SCAN"})


def upgrade(places: Places) -> str:
    """Ask the supervisor to go on as the version that is installed now; returns the message's id."""
    return _send(places, "upgrade", {"type": "UPGRADE"})


def shutdown(places: Places, *, state: Path | None = None, timeout: float = DEFAULT_WAIT_S) -> str:
    """Ask for everything to be stopped and ended, supervisor and keeper included; returns the message's id.

    Where no supervisor runs but its keeper still holds processes, the keeper is asked, and it is waited for up to
    `timeout` seconds; returns "" when it has stopped everything and ended. `wait_for_shutdown` waits in both cases.

    :raises NotThere: when neither runs. No message is left then: it would end the next supervisor.
    :raises TimedOut: when the keeper has not ended in time.
    :raises Failed: when it ended before everything else had.
    :raises CannotAccess: when it cannot be asked.
    """
    from ncolony.ctllib.reports import supervisor  # most of what is sent needs no report

    if supervisor(places, state=state) is None and end_keeper(places, state, timeout):
        return ""
    return _send(places, "shut down", {"type": "SHUTDOWN"})


def end_keeper(places: Places, state: Path | None, timeout: float) -> bool:
    """End a keeper that has no supervisor; False when it turns out to have one."""
    from ncolony.system.shutdown import Died, Unfinished, end_keeper  # imports socket

    try:
        end_keeper(state_directory(places, state), timeout)
    except BlockingIOError:
        return False
    except Unfinished as error:
        raise TimedOut(f"cannot shut down: after {round(timeout, 2):g} s the keeper has not ended: {error}") from error
    except Died as error:
        raise Failed("cannot shut down: the keeper ended before everything else had") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raised = NotThere(f"cannot shut down: {NOTHING_RUNS}")
        raised.errno = errno.ENOENT
        raise raised from error
    except OSError as error:
        refused = CannotAccess(f"cannot shut down: cannot reach the keeper: {error.strerror or error}")
        refused.errno = error.errno
        raise refused from error
    return True


restartAll = restart_all  # noqa: N816  # upstream's name

_counter = itertools.count()
_last_time_ns = 0


def _message_id() -> str:
    """A name that no other message has and that sorts after all earlier ones of this process."""
    global _last_time_ns
    _last_time_ns = max(time.time_ns(), _last_time_ns + 1)
    return f"{_last_time_ns}-{os.getpid()}-{next(_counter)}"


def _send(places: Places, deed: str, content: Mapping[str, str | int], message_id: str | None = None) -> str:
    if message_id is None:
        message_id = _message_id()
    else:
        check_name(f"{deed} with the message", message_id)
    write(deed, os.path.join(places.messages, message_id), json.dumps(content, ensure_ascii=False).encode())
    return message_id
