"""Definitions: what should run."""

from __future__ import annotations

import json
import os

from ncolony.ctllib import BadValue
from ncolony.ctllib.common import (
    check_name,
    check_text,
    encoded,
    items,
    no_such_process,
    parsed,
    read,
    refused,
    shown,
    write,
)

TYPE_CHECKING = False  # see ncolony.ctllib
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from ncolony.ctllib import Path, Places

# uid_t and gid_t are 32 bits and the last value means "leave as it is" (setresuid(2)).
_LARGEST_ID = 2**32 - 2


def add(
    places: Places,
    name: str,
    cmd: Path,
    args: Iterable[Path] | None,
    env: Iterable[str] | Mapping[str, str] | None = None,
    uid: int | str | None = None,
    gid: int | str | None = None,
    extras: Mapping[str, Any] | None = None,
    env_inherit: Iterable[str] | None = None,
    *,
    group: Iterable[str] | str | None = None,
    cwd: Path | None = None,
    umask: int | str | None = None,
    enabled: bool | None = None,
) -> bool:
    """Define the process `name`, or redefine it; True when its file changed, False when it said the same already.

    `env` is a list of "NAME=VALUE" or a mapping. A `uid` or `gid` that is a name must exist on this machine.
    `umask` is octal as text ("022") or a number. `extras` are further keys of the file and win over the others.
    Only the keys given are written.

    :raises BadValue: for a name or value that cannot be; nothing is written then.
    :raises NotThere: when the config directory does not exist.
    :raises CannotAccess: when the file cannot be written.
    """
    deed = f"add {check_name('add', name)}"
    details: dict[str, Any] = {"args": _texts(deed, "args", [cmd, *items(deed, "args", args or [])])}
    if not details["args"][0]:
        raise BadValue(f"cannot {deed}: cmd: is empty")
    if env is not None:
        details["env"] = _environment(deed, env)
    if env_inherit is not None:
        details["env_inherit"] = _texts(deed, "env_inherit", env_inherit)
    if group is not None:
        details["group"] = _texts(deed, "group", [group] if isinstance(group, str) else group)
    if cwd is not None:
        details["cwd"] = _texts(deed, "cwd", [cwd])[0]
    optional = {"uid": uid, "gid": gid, "umask": umask, "enabled": enabled}
    details.update((key, value) for key, value in optional.items() if value is not None)
    if extras is not None:
        details.update(_extras(deed, extras))
    for key in ("uid", "gid"):
        _check_owner(deed, key, details.get(key))
    data = encoded(deed, details)
    # Loading the model takes longer than all the rest: only for keys that are not checked above.
    if umask is not None or enabled is not None or any("." not in key for key in extras or ()):
        _check_definition(deed, name, data)
    path = os.path.join(places.config, name)
    if _says_the_same(path, data):
        return False
    write(deed, path, data)
    return True


def remove(places: Places, name: str) -> None:
    """Remove the definition of the process `name`, which stops it.

    :raises NotThere: when there is no such definition.
    :raises CannotAccess: when it cannot be removed.
    """
    deed = f"remove {check_name('remove', name)}"
    try:
        os.unlink(os.path.join(places.config, name))
    except FileNotFoundError as error:
        raise no_such_process(deed, places) from error
    except OSError as error:
        raise refused(deed, os.path.join(places.config, name), error) from error


def enable(places: Places, name: str) -> bool:
    """Let the process `name` run again; True when its file changed. Everything else in the file stays.

    :raises NotThere: when there is no such definition.
    :raises BadValue: when its file is not a JSON object.
    """
    return _set_enabled(places, name, True, "enable")


def disable(places: Places, name: str) -> bool:
    """Keep the definition of `name` but do not run it; True when its file changed. Everything else in it stays.

    :raises NotThere: when there is no such definition.
    :raises BadValue: when its file is not a JSON object.
    """
    return _set_enabled(places, name, False, "disable")


def _set_enabled(places: Places, name: str, wanted: bool, verb: str) -> bool:
    deed = f"{verb} {check_name(verb, name)}"
    path = os.path.join(places.config, name)
    try:
        details = parsed(read(path))
    except FileNotFoundError as error:
        raise no_such_process(deed, places) from error
    except OSError as error:
        raise refused(deed, path, error) from error
    except ValueError as error:
        raise BadValue(f"cannot {deed}: {path}: {error}") from error
    if details.get("enabled", True) is wanted:
        return False
    details["enabled"] = wanted
    write(deed, path, encoded(deed, details))
    return True


def _texts(deed: str, key: str, values: Iterable[Any]) -> list[str]:
    found = [os.fspath(value) if hasattr(value, "__fspath__") else value for value in items(deed, key, values)]
    for text in found:
        check_text(deed, key, text)
        if not text and key != "args":
            raise BadValue(f"cannot {deed}: {key}: is empty")
    return found


def _environment(deed: str, env: Iterable[str] | Mapping[str, str]) -> dict[str, str]:
    if hasattr(env, "items"):
        pairs = list(env.items())
    else:
        pairs = []
        for entry in _texts(deed, "env", env):
            key, equals, value = entry.partition("=")
            if not equals:
                raise BadValue(f"cannot {deed}: env: expected NAME=VALUE, found {shown(entry)}")
            pairs.append((key, value))
    for key, value in pairs:
        check_text(deed, "env", key)
        check_text(deed, "env", value)
        if not key or "=" in key:
            raise BadValue(f"cannot {deed}: env: {shown(key)} cannot name a variable")
    return dict(pairs)


def _extras(deed: str, extras: Any) -> Mapping[str, Any]:
    if not hasattr(extras, "keys") or not all(isinstance(key, str) for key in extras):
        raise BadValue(f"cannot {deed}: extras: expected an object with texts as keys, found {shown(extras)}")
    return dict(extras)


def _check_owner(deed: str, key: str, owner: object) -> None:
    if owner is None:
        return
    if isinstance(owner, int) and not isinstance(owner, bool):
        if not 0 <= owner <= _LARGEST_ID:
            raise BadValue(f"cannot {deed}: {key}: expected a number from 0 to {_LARGEST_ID}, found {owner}")
        return
    check_text(deed, key, owner)
    import grp  # only needed for names
    import pwd

    try:
        found: object = pwd.getpwnam(str(owner)) if key == "uid" else grp.getgrnam(str(owner))
    except KeyError:
        found = None
    if not found:
        kind = "user" if key == "uid" else "group"
        raise BadValue(f"cannot {deed}: {key}: there is no {kind} {shown(owner)} on this machine")


def _check_definition(deed: str, name: str, data: bytes) -> None:
    from ncolony.model import config  # imports msgspec: 28 ms

    found = config.decode(name, data)
    if isinstance(found, config.Problem):
        raise BadValue(f"cannot {deed}: {found.key}: {found.why}" if found.key else f"cannot {deed}: {found.why}")


def _says_the_same(path: str, data: bytes) -> bool:
    """Whether the file holds these values already. 1, 1.0 and true are three values, as for the supervisor."""
    try:
        return json.dumps(parsed(read(path)), sort_keys=True) == json.dumps(parsed(data), sort_keys=True)
    except (OSError, ValueError, RecursionError):
        return False
