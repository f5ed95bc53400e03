"""Whether config files are good, before any supervisor sees them: offline, one finding per thing that is wrong."""

from __future__ import annotations

import grp
import json
import os
import pwd
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from ncolony import ctllib
from ncolony.decide.order import circles, files_meant
from ncolony.model.config import Definition, Problem, ProcessConfig, define
from ncolony.model.names import copies_of, is_ignored, printable, problem_with_name
from ncolony.system.files import Directory, Entry
from ncolony.system.launch import Impossible, find_program


class Finding(msgspec.Struct, frozen=True):
    """One thing that is wrong with one file, or only doubtful.

    `path` is the file's path as it was given and `name` its name, `key` the key at fault ("" for the whole file), and
    `why` says what is wrong with it and what was found. A problem keeps the file from being used; a warning does not.
    """

    path: str
    name: str
    key: str
    why: str
    is_warning: bool = False

    def __str__(self) -> str:
        key = f" {self.key}:" if self.key else ""
        return f"{'warning:' if self.is_warning else 'cannot use'} {printable(self.path)}:{key} {self.why}"


class Source(msgspec.Struct, frozen=True):
    """One config file as it was found: its definition, or None and the problems that it has.

    `warnings` are the model's, "key: what is doubtful", of a file with problems too.
    """

    path: str
    name: str
    data: bytes
    definition: Definition | None
    problems: tuple[Finding, ...] = ()
    warnings: tuple[str, ...] = ()


def check(paths: Iterable[ctllib.Path], *, strict_modes: bool = True) -> list[Finding]:
    """What is wrong with config files. `paths` are files, or directories all of whose config files are meant.

    Whether two files of one directory get in each other's way is looked at too. With `strict_modes`, and as root, files
    that anybody may write are problems, as they are to a supervisor.

    :raises NotThere: when one of the paths does not exist.
    :raises CannotAccess: when a directory cannot be read.
    """
    strict = strict_modes and os.geteuid() == 0
    sources: list[Source] = []
    for path in paths:
        sources += read(path, strict) if os.path.isdir(path) else [_one_file(os.fspath(path), strict)]
    directories: dict[str, list[Source]] = {}
    for source in sources:
        directories.setdefault(os.path.dirname(source.path), []).append(source)
    collisions = [one for together in directories.values() for one in find_collisions(together)]
    collisions += [one for together in directories.values() for one in find_circles(together)]
    if all(os.path.isdir(path) for path in paths):
        collisions += [one for together in directories.values() for one in find_strangers(together)]
    found: list[Finding] = []
    for source in sources:
        found += [*source.problems, *(one for one in collisions if one.path == source.path), *_doubts(source)]
    return found


def read(directory: ctllib.Path, strict: bool = False) -> list[Source]:
    """Every config file of a directory, by name.

    :raises NotThere: when there is no such directory.
    :raises CannotAccess: when it cannot be read.
    """
    path = os.fspath(directory)
    try:
        entries = Directory(path, is_ignored, strict).scan()
    except OSError as error:
        raise _cannot_read(path, error) from error
    return [_source(os.path.join(path, name), name, entry) for name, entry in sorted(entries.items()) if entry]


def _one_file(path: str, strict: bool) -> Source:
    directory, name = os.path.split(path)
    try:
        entry = Directory(directory or ".", lambda _: False, strict).look([name])[name]
    except KeyError:
        entry = None
    if entry is None:
        raise _cannot_read(path, FileNotFoundError(2, os.strerror(2)))
    return _source(path, name, entry)


def _cannot_read(path: str, error: OSError) -> ctllib.Error:
    why = f"cannot read {path!r}: {error.strerror or error}"
    missing = isinstance(error, FileNotFoundError | NotADirectoryError)
    raised: ctllib.NotThere | ctllib.CannotAccess = ctllib.NotThere(why) if missing else ctllib.CannotAccess(why)
    raised.errno = error.errno
    return raised


def _source(path: str, name: str, entry: Entry) -> Source:
    shown = printable(name)
    wrong = "" if is_ignored(name) else problem_with_name(name)
    if wrong or entry.data is None or entry.why:
        return Source(path, shown, entry.data or b"", None, (Finding(path, shown, "", wrong or entry.why),))
    definition = define(shown, entry.data)
    if isinstance(definition, Definition):
        return Source(path, shown, entry.data, definition, warnings=definition.warnings)
    problems, warnings = _all_problems(definition, entry.data)
    findings = tuple(Finding(path, shown, one.key, one.why) for one in problems)
    return Source(path, shown, entry.data, None, findings, warnings)


def _all_problems(first: Problem, data: bytes) -> tuple[list[Problem], tuple[str, ...]]:
    """Every problem of a file, and the warnings: what follows the first is found by taking away the key at fault."""
    found = [first]
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return found, ()
    while found[-1].key:
        content = _without(content, found[-1].key)
        try:
            following = define(first.name, json.dumps(content).encode())
        except RecursionError:
            break
        if isinstance(following, Definition):
            return found, following.warnings
        if following == found[-1]:
            break
        found.append(following)
    return found, ()


def _without(content: dict[str, Any], key: str) -> dict[str, Any]:
    """A config file's content without the key of a problem, such as "nice", "log.keep" or "args[0]"."""
    outer, _, inner = key.partition("[")[0].partition(".")
    if outer == "args":
        return {**content, "args": ["a program"]}
    kept = {name: value for name, value in content.items() if name != outer}
    if outer == "log" and isinstance(log := content.get("log"), dict) and inner in log:
        kept["log"] = {name: value for name, value in log.items() if name != inner}
    return kept


def find_collisions(sources: Iterable[Source]) -> list[Finding]:
    """The files whose name is that of a copy of another: a file "web:0" beside "web" with instances."""
    by_name = {source.name: source for source in sources if source.definition is not None}
    found = []
    for name, source in by_name.items():
        base, _, _ = name.rpartition(":")
        other = by_name.get(base)
        if (
            other is not None
            and other.definition is not None
            and name in copies_of(base, other.definition.config.instances)
        ):
            count = other.definition.config.instances
            found.append(Finding(source.path, name, "", f"{base} with instances of {count} has a process of this name"))
    return found


def find_circles(sources: Iterable[Source]) -> list[Finding]:
    """The files that wait for each other in a circle, so that none of them would ever start."""
    found = []
    by_name, after = _orders(sources)
    for name, way in circles(after).items():
        why = f"they wait for each other: {' → '.join(way)}"
        found.append(Finding(by_name[name].path, name, "after", why))
    return found


def find_strangers(sources: Iterable[Source]) -> list[Finding]:
    """The files that wait for what no file of their directory defines."""
    by_name, after = _orders(sources)
    return [
        Finding(by_name[name].path, name, "after", f"there is no process {other!r}", is_warning=True)
        for name, others in after.items()
        for other in sorted(others - by_name.keys())
    ]


def _orders(sources: Iterable[Source]) -> tuple[dict[str, Source], dict[str, set[str]]]:
    """The files by name, and for those that wait for others the files that these are."""
    by_name = {source.name: source for source in sources}
    after = {
        name: files_meant(source.definition.config.after, by_name)
        for name, source in by_name.items()
        if source.definition is not None and source.definition.config.after
    }
    return by_name, after


# --- what may be wrong, which only the machine that it runs on can say for certain ---


def _doubts(source: Source) -> Iterator[Finding]:
    """What looks wrong with a file, beside its problems."""
    doubts = [tuple(warning.split(": ", 1)) for warning in source.warnings]
    if source.definition is not None:
        config = source.definition.config
        doubts += [*_unknown_owners(config), *_missing_files(config), *_missing_program(config)]
    for key, why in doubts:
        yield Finding(source.path, source.name, key, why, is_warning=True)
    if is_ignored(os.path.basename(source.path)):
        yield Finding(source.path, source.name, "", "in a config directory, a file of this name is ignored", True)


def _unknown_owners(config: ProcessConfig) -> Iterator[tuple[str, str]]:
    for key, owner, look_up in (("uid", config.uid, pwd.getpwnam), ("gid", config.gid, grp.getgrnam)):
        if not isinstance(owner, str) or owner.isdigit():
            continue
        try:
            look_up(owner)
        except KeyError:
            kind = "user" if key == "uid" else "group"
            yield key, f"there is no {kind} {printable(owner)!r} on this machine"


def _missing_files(config: ProcessConfig) -> Iterator[tuple[str, str]]:
    """The files and the directory that it names which are not there. Nobody knows it of what is relative to nothing."""
    if config.cwd is not None and os.path.isabs(config.cwd) and not os.path.isdir(config.cwd):
        yield "cwd", f"there is no directory {printable(config.cwd)!r}"
    named = [("env_file", path) for path in config.env_files]
    named += [(f"env_secret.{printable(name)}", path) for name, path in config.env_secret.items()]
    for key, path in named:
        full = os.path.join(config.cwd or "", path)
        if os.path.isabs(full) and not os.path.exists(full):
            yield key, f"there is no file {printable(path)!r}"


def _missing_program(config: ProcessConfig) -> Iterator[tuple[str, str]]:
    program = config.args[0]
    if "/" in program:
        full = os.path.join(config.cwd or "", program)
        if os.path.isabs(full) and not os.access(full, os.X_OK):
            why = "may not be executed" if os.path.exists(full) else "there is no such program"
            yield "args", f"{printable(program)!r}: {why}"
    elif not config.env_files:  # which may say another PATH
        try:
            find_program(program, config.env.get("PATH"), os.environ.get("PATH"))
        except Impossible as impossible:
            yield "args", str(impossible)


def as_json(findings: Iterable[Finding]) -> list[Mapping[str, Any]]:
    """Findings as the command line prints them with --json."""
    found: list[Mapping[str, Any]] = []
    for one in findings:
        level = "warning" if one.is_warning else "problem"
        found.append({"file": printable(one.path), "name": one.name, "level": level, "key": one.key, "why": one.why})
    return found
