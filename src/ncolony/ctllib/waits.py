"""Waiting until what was asked for has come about."""

from __future__ import annotations

import os
import time

from ncolony.ctllib import DEFAULT_WAIT_S, NO_SUPERVISOR, Error, Failed, NotThere, TimedOut
from ncolony.ctllib.common import check_name, parsed, poll, read, refused, shown, state_directory
from ncolony.ctllib.messages import end_keeper
from ncolony.ctllib.reports import Answer, Status, reported, supervisor

TYPE_CHECKING = False  # see ncolony.ctllib
if TYPE_CHECKING:
    from ncolony.ctllib import Path, Places
    from ncolony.model.config import Definition


def wait_for_answer(
    places: Places, message_id: str, timeout: float = DEFAULT_WAIT_S, *, state: Path | None = None
) -> Answer:
    """Wait up to `timeout` seconds for what became of a message: an answer that says done or failed.

    :raises TimedOut: when it says neither by then.
    """
    path = os.path.join(state_directory(places, state), "answers", message_id)
    answer = None
    for _ in poll(timeout):
        try:
            answer = Answer(parsed(read(path)))
        except (OSError, ValueError):
            continue
        if answer.state != "accepted" or not answer.accepted:
            return answer
    why = "the supervisor took it but has not finished" if answer else "no supervisor answered"
    raise TimedOut(
        f"cannot see the end of message {message_id}: {why} within {round(timeout, 2):g} s{_hint(places, state)}"
    )


def wait_for_shutdown(
    places: Places, message_id: str, timeout: float = DEFAULT_WAIT_S, *, state: Path | None = None
) -> None:
    """Wait up to `timeout` seconds until the message that `shutdown` sent is carried out: nothing runs any more.

    Should the supervisor be killed meanwhile, its keeper is asked in its place.

    :raises Failed: when the supervisor refuses.
    :raises TimedOut: when something still runs by then.
    """
    deadline = time.monotonic() + timeout
    answer_path = os.path.join(state_directory(places, state), "answers", message_id)
    for _ in poll(timeout):
        try:
            answer = Answer(parsed(read(answer_path)))
        except (OSError, ValueError):
            answer = Answer({})
        if answer.state == "failed":
            raise Failed(f"cannot shut down: {answer.why or 'the supervisor gives no reason'}")
        if supervisor(places, state=state) is not None:
            continue
        taken = not _withdrawn(places, message_id)
        try:
            if end_keeper(places, state, max(0.0, deadline - time.monotonic())):
                return
        except NotThere:
            if taken:
                return
            raise
    raise TimedOut(f"cannot shut down: after {round(timeout, 2):g} s the supervisor has not ended")


def _withdrawn(places: Places, message_id: str) -> bool:
    """Remove a message that nobody is there to take: it must not end the next supervisor. False when it was taken."""
    try:
        os.unlink(os.path.join(places.messages, message_id))
    except OSError:
        return False
    return True


def wait_for_applied(
    places: Places, name: str, timeout: float = DEFAULT_WAIT_S, *, state: Path | None = None
) -> Status | None:
    """Wait up to `timeout` seconds until what the config directory now says of `name` is in effect.

    That is: running, or stopped where it should not run, under the present definition; returns its status. Where the
    definition is gone, until the process is gone too; returns None.

    :raises Failed: when the definition is bad, or the process ended in failure for good.
    :raises TimedOut: when it is not in effect by then.
    """
    goal = f"see {check_name('see', name)} applied"
    path = os.path.join(places.config, name)
    try:
        data, written_ns = read(path), os.stat(path).st_mtime_ns
    except FileNotFoundError:
        _wait_for_gone(places, name, timeout, state)
        return None
    except OSError as error:
        raise refused(goal, path, error) from error
    from ncolony.model import config  # imports msgspec: 28 ms

    definition = config.define(name, data)
    if isinstance(definition, config.Problem):
        raise Failed(str(definition))
    directory = os.path.join(state_directory(places, state), "status")
    found = None
    for _ in poll(timeout):
        found = reported(directory, name)
        if found is None:
            continue
        if found.digest == definition.digest:
            if _is_settled(found, definition):
                return found
        elif found.problem and _is_newer(directory, name, written_ns):
            raise Failed(f"cannot {goal}: {found.problem}")
    raise TimedOut(f"cannot {goal}: after {round(timeout, 2):g} s {_as_it_is(found)}{_hint(places, state)}")


def _wait_for_gone(places: Places, name: str, timeout: float, state: Path | None) -> None:
    directory = os.path.join(state_directory(places, state), "status")
    found = None
    for _ in poll(timeout):
        found = reported(directory, name)
        if found is None:
            return
    raise TimedOut(
        f"cannot see {shown(name)} gone: after {round(timeout, 2):g} s {_as_it_is(found)}{_hint(places, state)}"
    )


def _is_settled(found: Status, definition: Definition) -> bool:
    """Whether nothing more will come of this definition by itself.

    :raises Failed: when it came to a bad end.
    """
    if found.wanted == "down" or not definition.config.enabled:
        return found.state in ("STOPPED", "EXITED", "FATAL")
    ended = found.last_exit
    if found.state == "EXITED" and ended is not None and ended.code in definition.config.success_codes:
        return True
    if found.state in ("EXITED", "FATAL"):
        raise Failed(f"cannot see {shown(found.name)} running: {_as_it_is(found)}")
    return found.state == "RUNNING"


def _is_newer(directory: str, name: str, written_ns: int) -> bool:
    try:
        return os.stat(os.path.join(directory, name)).st_mtime_ns > written_ns
    except OSError:
        return False


def _as_it_is(found: Status | None) -> str:
    if found is None:
        return "nothing is reported of it"
    why = found.problem or found.reason
    return f"it is {found.state}: {why}" if why else f"it is {found.state}"


def _hint(places: Places, state: Path | None) -> str:
    try:
        return "" if supervisor(places, state=state) else f"; {NO_SUPERVISOR}"
    except Error:
        return ""
