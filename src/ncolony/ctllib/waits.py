"""Waiting until what was asked for has come about."""

from __future__ import annotations

import os
import time

from ncolony.ctllib import DEFAULT_WAIT_S, NO_SUPERVISOR, Error, Failed, NotThere, TimedOut
from ncolony.ctllib.common import check_name, poll, read, refused, shown, state_directory
from ncolony.ctllib.messages import end_keeper
from ncolony.ctllib.reports import Answer, Status, answer, copies_in, reported, supervisor
from ncolony.model.names import MOST_INSTANCES, copies_of

TYPE_CHECKING = False  # see ncolony.ctllib
if TYPE_CHECKING:
    from collections.abc import Callable

    from ncolony.ctllib import Path, Places
    from ncolony.model.config import Definition

    # What is called again and again while one waits, such as to tell people how it goes.
    Meanwhile = Callable[[], object] | None


def wait_for_answer(
    places: Places,
    message_id: str,
    timeout: float = DEFAULT_WAIT_S,
    *,
    state: Path | None = None,
    meanwhile: Meanwhile = None,
) -> Answer:
    """Wait up to `timeout` seconds for what became of a message: an answer that says done or failed.

    `meanwhile` is called again and again while it waits, here and in the functions below.

    :raises TimedOut: when it says neither by then.
    """
    found = None
    for _ in poll(timeout, meanwhile):
        found = answer(places, message_id, state=state) or found
        if found is not None and (found.state != "accepted" or not found.accepted):
            return found
    why = "the supervisor took it but has not finished" if found else "no supervisor answered"
    raise TimedOut(f"cannot see the end of message {message_id}: {why} within {seconds(timeout)}{hint(places, state)}")


def wait_for_shutdown(
    places: Places,
    message_id: str,
    timeout: float = DEFAULT_WAIT_S,
    *,
    state: Path | None = None,
    meanwhile: Meanwhile = None,
) -> None:
    """Wait up to `timeout` seconds until the message that `shutdown` sent is carried out: nothing runs any more.

    Should the supervisor be killed meanwhile, its keeper is asked in its place.

    :raises Failed: when the supervisor refuses.
    :raises TimedOut: when something still runs by then.
    """
    deadline = time.monotonic() + timeout
    for _ in poll(timeout, meanwhile):
        found = answer(places, message_id, state=state)
        if found is not None and found.state == "failed":
            raise Failed(f"cannot shut down: {found.why or 'the supervisor gives no reason'}")
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
    raise TimedOut(f"cannot shut down: after {seconds(timeout)} the supervisor has not ended")


def _withdrawn(places: Places, message_id: str) -> bool:
    """Remove a message that nobody is there to take: it must not end the next supervisor. False when it was taken."""
    try:
        os.unlink(os.path.join(places.messages, message_id))
    except OSError:
        return False
    return True


def wait_for_applied(
    places: Places,
    name: str,
    timeout: float = DEFAULT_WAIT_S,
    *,
    state: Path | None = None,
    meanwhile: Meanwhile = None,
) -> Status | None:
    """Wait up to `timeout` seconds until what the config directory now says of `name` is in effect.

    That is: running, or stopped where it should not run, under the present definition; returns its status. With
    `instances` that holds for each copy, the copies that are too many are gone, and the last one's status is
    returned. Where the definition is gone, the process has to be gone too; returns None.

    :raises Failed: when the definition is bad or was taken back, or the process ended in failure for good.
    :raises TimedOut: when it is not in effect by then.
    """
    goal = f"see {check_name('see', name)} applied"
    definition, written_ns = _defined(places, name, goal)
    expected: list[str] = [] if definition is None else stands_for(name, definition.config.instances)
    directory = os.path.join(state_directory(places, state), "status")
    found: Status | None = None
    left: list[str] = []
    for _ in poll(timeout, meanwhile):
        left = []
        for one in expected:
            found = reported(directory, one)
            if definition is not None and not _is_applied(directory, found, definition, written_ns, goal):
                left.append(_as_it_is(name, one, found))
        surplus = [one for one in copies_in(directory, places, name) if one not in expected]
        left += [_as_it_is(name, one, reported(directory, one)) for one in surplus]
        if not left:
            return found
    goal = f"see {shown(name)} gone" if definition is None else goal
    more = f", and {len(left) - 1} more are not as they should be" if len(left) > 1 else ""
    raise TimedOut(f"cannot {goal}: after {seconds(timeout)} {left[0]}{more}{hint(places, state)}")


def _defined(places: Places, name: str, goal: str) -> tuple[Definition | None, int]:
    """What the file of `name` says and when it was written; None when there is none.

    :raises Failed: when it makes no sense.
    """
    path = os.path.join(places.config, name)
    try:
        data, written_ns = read(path), os.stat(path).st_mtime_ns
    except FileNotFoundError:
        return None, 0
    except OSError as error:
        raise refused(goal, path, error) from error
    from ncolony.model import config  # imports msgspec: 28 ms

    definition = config.define(name, data)
    if isinstance(definition, config.Problem):
        raise Failed(str(definition))
    return definition, written_ns


def stands_for(name: str, instances: object) -> list[str]:
    """The processes that a config file `name` with this value of its key `instances` stands for."""
    if not isinstance(instances, int) or isinstance(instances, bool) or instances > MOST_INSTANCES:
        return [name]  # whatever the file says of it is not in force
    return copies_of(name, instances)


def _is_applied(directory: str, found: Status | None, definition: Definition, written_ns: int, goal: str) -> bool:
    """Whether this definition is in force and nothing more will come of it by itself.

    :raises Failed: when it cannot be, or came to a bad end.
    """
    if found is None:
        return False
    if found.digest == definition.digest:
        return _is_settled(found, definition)
    why = found.problem or found.rolled_back
    if why and _is_newer(directory, found.name, written_ns):
        raise Failed(f"cannot {goal}: {why}")
    return False


def _is_settled(found: Status, definition: Definition) -> bool:
    if found.wanted == "down" or not definition.config.enabled:
        return found.state in ("STOPPED", "EXITED", "FATAL")
    ended = found.last_exit
    if found.state == "EXITED" and ended is not None and ended.code in definition.config.success_codes:
        return True
    if found.state == "EXITED" or (found.state == "FATAL" and found.next_try is None):
        raise Failed(f"cannot see {shown(found.name)} running: {as_it_is(found)}")
    return found.state == "RUNNING"


def _is_newer(directory: str, name: str, written_ns: int) -> bool:
    try:
        return os.stat(os.path.join(directory, name)).st_mtime_ns > written_ns
    except OSError:
        return False


def _as_it_is(name: str, one: str, found: Status | None) -> str:
    """How a process stands; one that is not asked for by its own name is named."""
    text = as_it_is(found)
    if one == name:
        return text
    return f"nothing is reported of {shown(one)}" if found is None else f"{shown(one)} is {text.removeprefix('it is ')}"


def as_it_is(found: Status | None) -> str:
    """How a process stands, as the end of a sentence."""
    if found is None:
        return "nothing is reported of it"
    why = found.problem or found.reason
    return f"it is {found.state}: {why}" if why else f"it is {found.state}"


def seconds(timeout: float) -> str:
    """A number of seconds as it is told."""
    return f"{round(timeout, 2):g} s"


def hint(places: Places, state: Path | None) -> str:
    """That no supervisor runs, where that is so, as the end of a sentence."""
    try:
        return "" if supervisor(places, state=state) else f"; {NO_SUPERVISOR}"
    except Error:
        return ""
