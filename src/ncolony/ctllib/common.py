"""What the other modules here share: names checked, files read and written, and errors told in our words."""

from __future__ import annotations

import errno
import json
import os
import stat
import time

from ncolony.ctllib import BadValue, CannotAccess, NotThere
from ncolony.model import names as _names
from ncolony.system import files as _files

TYPE_CHECKING = False  # see ncolony.ctllib
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

    from ncolony.ctllib import Error, Path, Places

# Polling: short enough that nobody notices, growing so that a long wait costs nothing.
_FIRST_DELAY_S = 0.002
_LONGEST_DELAY_S = 0.05
_TOO_LONG_TO_SHOW = 80


def shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _TOO_LONG_TO_SHOW else text[:_TOO_LONG_TO_SHOW] + "…"


def exists(pid: object) -> bool:
    """Whether there is a process of this pid, whoever it belongs to. What can be no pid is none."""
    if not isinstance(pid, int) or isinstance(pid, bool) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def check_name(verb: str, name: object) -> str:
    """The name as it is shown in errors, once it is known to be one."""
    wrong = _names.problem_with_name(name) if isinstance(name, str) else "the name is not text"
    if wrong:
        raise BadValue(f"cannot {verb} {shown(name)}: {wrong}")
    return shown(name)


def items(deed: str, key: str, values: Iterable[Any]) -> Iterable[Any]:
    # A single text would be taken letter by letter.
    if isinstance(values, str | bytes):
        raise BadValue(f"cannot {deed}: {key}: expected a list of texts, found {shown(values)}")
    return values


def check_text(deed: str, key: str, text: object) -> None:
    if not isinstance(text, str):
        raise BadValue(f"cannot {deed}: {key}: expected text, found {shown(text)}")
    if "\0" in text:
        raise BadValue(f"cannot {deed}: {key}: {shown(text)} contains NUL")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadValue(f"cannot {deed}: {key}: {shown(text)} is not valid UTF-8") from error


def encoded(deed: str, details: Mapping[str, Any]) -> bytes:
    try:
        data = json.dumps(details, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except UnicodeEncodeError as error:
        raise BadValue(f"cannot {deed}: a text in it is not valid UTF-8") from error
    except RecursionError as error:
        raise BadValue(f"cannot {deed}: nested too deeply") from error
    except (TypeError, ValueError) as error:
        raise BadValue(f"cannot {deed}: {error}") from error
    if len(data) > _files.LARGEST:
        raise BadValue(f"cannot {deed}: its file would be {len(data)} bytes, more than {_files.LARGEST}")
    return data


def parsed(data: bytes) -> dict[str, Any]:
    """The JSON object in `data`.

    :raises ValueError: saying why it is none.
    """
    try:
        found = json.loads(data.decode())  # a third faster than letting json find out the encoding
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    return found


def read(path: str) -> bytes:
    """The content of a regular file of reasonable size; never blocks.

    :raises OSError: when it is something else or cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if found.st_size > _files.LARGEST:
            raise OSError(errno.EFBIG, f"larger than {_files.LARGEST} bytes")
        return os.read(descriptor, found.st_size + 1)
    finally:
        os.close(descriptor)


def write(deed: str, path: str, data: bytes) -> None:
    try:
        # What was private stays private: the file may hold secrets.
        mode = stat.S_IMODE(os.stat(path).st_mode) & 0o664
    except OSError:
        mode = 0o664
    try:
        _files.write_whole(path, data, mode)
    except OSError as error:
        raise refused(deed, path, error) from error


def refused(deed: str, path: str, error: OSError) -> Error:
    directory = os.path.dirname(path) or "."
    if error.errno == errno.ENOENT and not os.path.isdir(directory):
        raised: NotThere | CannotAccess = NotThere(f"cannot {deed}: there is no directory {directory!r}")
    else:
        raised = CannotAccess(f"cannot {deed}: {path!r}: {error.strerror or error}")
    raised.errno = error.errno
    return raised


def no_such_process(deed: str, places: Places) -> NotThere:
    raised = NotThere(f"cannot {deed}: there is no such process in {os.fspath(places.config)!r}")
    raised.errno = errno.ENOENT
    return raised


def state_directory(places: Places, state: Path | None) -> str:
    from ncolony.system import places as _places  # imports hashlib, which what only writes does not need

    found = _places.state_directory(places.config, places.messages, state)
    # Where others can make directories too, the default may be one that somebody made for us to believe.
    if state is None and (why := _places.why_not_ours(os.path.dirname(found))):
        raise CannotAccess(f"cannot use {found!r}: {why}")
    return found


def poll(timeout: float, meanwhile: Callable[[], object] | None = None) -> Iterator[None]:
    """Come round at once, then more and more slowly, the last time when `timeout` seconds have passed.

    In between, `meanwhile` is called.
    """
    deadline = time.monotonic() + timeout
    delay = _FIRST_DELAY_S
    while True:
        yield
        left = deadline - time.monotonic()
        if left <= 0:
            return
        if meanwhile is not None:
            meanwhile()
        time.sleep(min(delay, left))
        delay = min(delay * 1.5, _LONGEST_DELAY_S)
