"""From a definition to the order that the keeper carries out: program, environment, user."""

from __future__ import annotations

import fnmatch
import grp
import os
import pwd
from typing import Any

import msgspec

from ..model.config import ProcessConfig
from ..model.names import printable
from ..model.variables import parse_variables
from .files import Unreadable, read_small
from .notify import OURS_ALONE

# execve refuses a longer single string (MAX_ARG_STRLEN, 32 pages), its terminating NUL included.
LONGEST_STRING = 128 * 1024
# Around the words of an env_file; everything else that Unicode calls white space, or the end of a line, is content.


class Impossible(Exception):
    """The process cannot be started as things are; the text says why, in the user's words."""

    def __str__(self) -> str:
        return printable(super().__str__())  # a path may hold anything


class Surroundings(msgspec.Struct, frozen=True):
    """What instances take over from the supervisor where their definition says nothing."""

    environ: dict[str, str]
    cwd: str
    umask: int
    nofile: int | None

    @classmethod
    def present(cls, nofile: int | None = None) -> Surroundings:
        """Those of this very process."""
        umask = os.umask(0)
        os.umask(umask)
        environ = {name: value for name, value in os.environ.items() if name not in OURS_ALONE}
        return cls(environ, os.getcwd(), umask, nofile)


class Owner(msgspec.Struct, frozen=True):
    """Whom to become: None leaves a value as it is."""

    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] | None = None


def order(config: ProcessConfig, surroundings: Surroundings, extra: dict[str, str]) -> dict[str, Any]:
    """The order to start one instance, without its identity. `extra` is environment that only we can know.

    :raises Impossible: when the user, group or program does not exist.
    """
    owner = find_owner(config.uid, config.gid)
    cwd = os.path.join(surroundings.cwd, config.cwd or "")
    env = environment(config, surroundings.environ, cwd) | extra
    path = find_program(config.args[0], env.get("PATH"), surroundings.environ.get("PATH"))
    umask = config.umask_bits
    return {
        "path": path,
        "argv": [path, *config.args[1:]],
        "env": env,
        "cwd": cwd,
        "umask": surroundings.umask if umask is None else umask,
        "nofile": surroundings.nofile,
        "nice": config.nice,
        "oom_score_adj": config.oom_score_adj,
        "limits": config.rlimits,
        **msgspec.structs.asdict(owner),
    }


def environment(config: ProcessConfig, ours: dict[str, str], cwd: str = "/") -> dict[str, str]:
    """What the definition asks for: inherited names and globs, then files, then `env`, and secrets have the last word.

    :raises Impossible: when a file cannot be read.
    """
    inherited = {}
    for pattern in config.env_inherit:
        if pattern in ours:
            inherited[pattern] = ours[pattern]
        elif any(magic in pattern for magic in "*?["):
            inherited |= {name: ours[name] for name in ours if fnmatch.fnmatchcase(name, pattern)}
    for name in config.env_files:
        path = os.path.join(cwd, name)
        text = _read_text("env_file", path)
        try:
            inherited |= parse_variables(text)
        except ValueError as error:
            raise Impossible(f"cannot use env_file: {path}, {error}") from None
    secrets = {}
    for name, file in config.env_secret.items():
        path = os.path.join(cwd, file)
        # Most editors and `echo` end a file with a newline that is not meant.
        secrets[name] = _read_text(f"env_secret {name}", path).removesuffix("\n").removesuffix("\r")
        if "\0" in secrets[name]:
            raise Impossible(f"cannot use env_secret {name}: {path} contains NUL")
    return inherited | config.env | secrets


def _read_text(key: str, path: str) -> str:
    """The content of a file, which is named in what is said of it and never shown."""
    try:
        return read_small(path).decode()
    except Unreadable as error:
        raise Impossible(f"cannot read {key}: {path}: {error}") from None
    except OSError as error:
        raise Impossible(f"cannot read {key}: {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Impossible(f"cannot read {key}: {path}: not UTF-8") from None


def find_program(program: str, child_path: str | None, our_path: str | None) -> str:
    """Where the program is: as said when it has a slash, else on the child's PATH, else on ours, by its absolute path.

    :raises Impossible: when it is on neither.
    """
    if "/" in program:
        return program
    for directory in (child_path or "").split(":") + (our_path or "").split(":"):
        candidate = os.path.join(directory, program)
        if directory and os.access(candidate, os.X_OK) and os.path.isfile(candidate):
            return os.path.abspath(candidate)
    raise Impossible(f"cannot run {program!r}: not found on PATH")


def find_owner(user: int | str | None, group: int | str | None) -> Owner:
    """Whom to become for the keys uid and gid.

    With a user alone, gid and supplementary groups are that user's own, so that nothing of root's is left.

    :raises Impossible: for unknown names, or when we are not root and would have to become somebody else.
    """
    if user is None and group is None:
        return Owner()
    entry = _passwd(user) if user is not None else None
    uid = entry.pw_uid if entry else _number(user)
    if user is not None and uid is None:
        raise Impossible(f"cannot become user {user!r}: there is no such user")
    gid = _gid(group)
    if group is not None and gid is None:
        raise Impossible(f"cannot become group {group!r}: there is no such group")
    if os.geteuid() != 0:
        return _unprivileged(user, uid, group, gid)
    if gid is None and uid is not None:
        gid = entry.pw_gid if entry else uid
    groups = os.getgrouplist(entry.pw_name, gid) if entry and gid is not None else []
    return Owner(uid, gid, tuple(groups))


def _unprivileged(user: object, uid: int | None, group: object, gid: int | None) -> Owner:
    """Being that user already is not an error; becoming another takes root."""
    if uid is not None and uid != os.geteuid():
        raise Impossible(f"cannot become user {user!r}: the supervisor does not run as root")
    if gid is not None and gid != os.getegid():
        raise Impossible(f"cannot become group {group!r}: the supervisor does not run as root")
    return Owner()


def _number(value: int | str | None) -> int | None:
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdigit() else None
    return value


def _passwd(user: int | str) -> pwd.struct_passwd | None:
    try:
        if isinstance(user, str):
            try:
                return pwd.getpwnam(user)
            except KeyError:
                number = _number(user)
                return None if number is None else pwd.getpwuid(number)
        return pwd.getpwuid(user)
    except (KeyError, OverflowError):
        return None


def _gid(group: int | str | None) -> int | None:
    if not isinstance(group, str):
        return group
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return _number(group)
