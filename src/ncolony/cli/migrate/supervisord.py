"""supervisord.conf: its programs, with their defaults said aloud where ours differ."""

from __future__ import annotations

import dataclasses
import glob
import os
import platform
import re
import shlex
from typing import TYPE_CHECKING, Any

from ncolony.model.config import MOST_INSTANCES
from ncolony.system import files

from . import words
from .report import ERROR, MAPPED, NOT_MAPPED, NOTE, Draft, Key, Notes, Refused, Source

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_INCLUDED = 1000
_ORDER = "a number makes no order here: `after` says for whom a process waits, and how far that must be"
_EVENTS = "no event listeners: `ncolony-notify` sends out what happens, and `ncolony ctl events` shows it"

PROGRAM_KEYS: dict[str, Key] = {
    "command": Key(MAPPED, "`args`, split as supervisord splits it; no shell either"),
    "process_name": Key(MAPPED, "the name of the file"),
    "numprocs": Key(MAPPED, "`instances`, or a file each where `%(process_num)s` is used outside `process_name`"),
    "numprocs_start": Key(MAPPED, "the numbers in the files; with `instances` they begin at 0, which is noted"),
    "priority": Key(NOTE, _ORDER),
    "autostart": Key(MAPPED, "`enabled`; `ncolony ctl enable NAME` starts it"),
    "startsecs": Key(MAPPED, "`threshold`"),
    "startretries": Key(MAPPED, "`give_up` and `max_restart_delay`; the waits double instead of growing by a second"),
    "autorestart": Key(
        MAPPED, '`restart`: true is `"always"`, false `"never"`, unexpected (the default) `"on-failure"`'
    ),
    "exitcodes": Key(MAPPED, "`success_codes`"),
    "stopsignal": Key(MAPPED, "`stop`"),
    "stopwaitsecs": Key(MAPPED, "`kill_time`, or the seconds in `stop`; the default of 10 is written out"),
    "stopasgroup": Key(MAPPED, '`stop_scope`: `"tree"` for true, `"process"` for false'),
    "killasgroup": Key(NOTE, "SIGKILL always goes to everything the process started"),
    "user": Key(MAPPED, "`uid`"),
    "redirect_stderr": Key(MAPPED, "one stream for both is the rule here; false with files makes `log.stderr`"),
    "stdout_logfile": Key(MAPPED, "`log.stdout`; AUTO needs nothing, output is always kept"),
    "stdout_logfile_maxbytes": Key(MAPPED, "`log.max_bytes`"),
    "stdout_logfile_backups": Key(MAPPED, "`log.keep`"),
    "stdout_capture_maxbytes": Key(NOT_MAPPED, "no capture mode"),
    "stdout_events_enabled": Key(NOT_MAPPED, _EVENTS),
    "stdout_syslog": Key(
        NOT_MAPPED, "no syslog: output is in the supervisor's own log, which systemd or Docker collect"
    ),
    "stderr_logfile": Key(MAPPED, "`log.stderr`"),
    "stderr_logfile_maxbytes": Key(MAPPED, "`log.max_bytes`, which is one for both streams"),
    "stderr_logfile_backups": Key(MAPPED, "`log.keep`, which is one for both streams"),
    "stderr_capture_maxbytes": Key(NOT_MAPPED, "no capture mode"),
    "stderr_events_enabled": Key(NOT_MAPPED, _EVENTS),
    "stderr_syslog": Key(
        NOT_MAPPED, "no syslog: output is in the supervisor's own log, which systemd or Docker collect"
    ),
    "environment": Key(MAPPED, '`env`; the rest of the environment is inherited there, so `env_inherit` is `["*"]`'),
    "directory": Key(MAPPED, "`cwd`"),
    "umask": Key(MAPPED, "`umask`"),
    "serverurl": Key(NOTE, "there is no server to reach; NCOLONY_NAME and NCOLONY_CONFIG are set instead"),
}
GLOBAL_KEYS: dict[str, Key] = {
    "logfile": Key(NOTE, "of supervisord itself: `python -m twisted --log-file FILE ncolony`"),
    "logfile_maxbytes": Key(NOTE, "of supervisord itself: rotate the supervisor's log with logrotate and SIGUSR1"),
    "logfile_backups": Key(NOTE, "of supervisord itself: rotate the supervisor's log with logrotate and SIGUSR1"),
    "loglevel": Key(NOTE, "of supervisord itself: `python -m twisted --log-level LEVEL ncolony`"),
    "pidfile": Key(NOTE, "of supervisord itself: the pid is in the file `supervisor.json` of the state directory"),
    "umask": Key(MAPPED, "`umask` of every program without one"),
    "nodaemon": Key(NOTE, "the supervisor always runs in the foreground"),
    "silent": Key(NOTE, "of supervisord itself: with `--log-file` nothing goes to standard output"),
    "minfds": Key(NOTE, "the supervisor takes what it may; a program that needs a limit gets `limits.nofile`"),
    "minprocs": Key(NOTE, "the supervisor takes what it may; a program that needs a limit gets `limits.nproc`"),
    "nocleanup": Key(NOTE, "kept output stays within `--log-budget`, across starts of the supervisor"),
    "childlogdir": Key(NOTE, "`--logs DIR` of the supervisor"),
    "user": Key(NOTE, "start the supervisor as this user, or give each program a `uid`"),
    "directory": Key(MAPPED, "`cwd` of every program without one"),
    "strip_ansi": Key(NOT_MAPPED, "output is kept as it is"),
    "environment": Key(MAPPED, "`env` of every program, below the program's own"),
    "identifier": Key(NOTE, "a colony is known by its directories"),
}
GROUP_KEYS: dict[str, Key] = {
    "programs": Key(MAPPED, "`group` of each of them"),
    "priority": Key(NOTE, _ORDER),
}
OTHER_SECTIONS: dict[str, Key] = {
    "[include] files": Key(MAPPED, "the files are read, relative to the file that names them"),
    "[unix_http_server]": Key(NOTE, "the directories are the interface: `ncolony ctl` needs no socket"),
    "[inet_http_server]": Key(NOT_MAPPED, "no port; run `ncolony ctl` on the machine, over ssh for example"),
    "[supervisorctl]": Key(NOTE, "`ncolony ctl` needs the two directories only"),
    "[rpcinterface:supervisor]": Key(NOTE, "the directories are the interface"),
    "[rpcinterface:x]": Key(NOT_MAPPED, "no plugins run inside the supervisor"),
    "[fcgi-program:x]": Key(
        NOT_MAPPED, "it takes its socket as standard input, and `sockets` passes it as descriptor 3"
    ),
    "[eventlistener:x]": Key(NOT_MAPPED, _EVENTS),
}
_DEFAULT_RETRIES, _DEFAULT_STARTSECS, _DEFAULT_WAIT_S = 3, 1, 10
# Where output ends up in supervisord's own, which is where it goes here anyway.
_OWN_OUTPUT = frozenset({"/dev/stdout", "/dev/stderr", "/dev/fd/1", "/dev/fd/2", "/proc/self/fd/1", "/proc/self/fd/2"})


@dataclasses.dataclass
class _Item:
    file: str
    line: int
    key: str
    value: str


@dataclasses.dataclass
class _Section:
    file: str
    line: int
    name: str
    items: dict[str, _Item] = dataclasses.field(default_factory=dict)


def read(path: str, text: str, source: Source) -> None:
    """Fill `source` with what the text, and the files it includes, define.

    :raises Refused: when the file as a whole makes no sense.
    """
    sections = _parse(path, text, {})
    _include(path, sections, source)
    for item in sections.pop("DEFAULT", _Section(path, 0, "")).items.values():
        for section in sections.values():
            section.items.setdefault(item.key, item)
    base = _globals(sections, source)
    members = _groups(sections, source)
    for section in sections.values():
        kind, _, name = section.name.partition(":")
        if kind == "program":
            _program(section, name.strip(), members.get(name.strip(), ""), base, source)
        elif section.name not in ("supervisord", "include") and kind != "group":
            _other(section, kind, source)


# --- the file format: configparser's, as supervisord sets it up, with lines ---


def _parse(path: str, text: str, sections: dict[str, _Section]) -> dict[str, _Section]:
    current: _Section | None = None
    item: _Item | None = None
    indent = 0
    for number, raw in enumerate(words.lines(text), 1):
        line, commented = _without_comment(raw)
        if not line.strip():
            if item is not None and not commented:
                item.value += "\n"
            continue
        here = len(line) - len(line.lstrip())
        if item is not None and here > indent:
            item.value += "\n" + line.strip()
            continue
        indent, line = here, line.strip()
        if header := re.match(r"\[(.+)\]", line):
            current, item = sections.setdefault(header[1], _Section(path, number, header[1])), None
            continue
        if current is None:
            raise Refused("no [section] comes before this line", number, value=line)
        parts = re.split("[=:]", line, maxsplit=1)
        if len(parts) < 2 or not parts[0].strip():
            raise Refused("expected KEY = VALUE", number, value=line)
        item = _Item(path, number, parts[0].strip().lower(), parts[1].strip())
        current.items[item.key] = item
    for section in sections.values():
        for one in section.items.values():
            one.value = one.value.rstrip()
    return sections


def _without_comment(line: str) -> tuple[str, bool]:
    if line.lstrip().startswith(("#", ";")):
        return "", True
    found = re.search(r"\s[;#]", line)
    return (line[: found.start()], True) if found else (line, False)


def _include(path: str, sections: dict[str, _Section], source: Source) -> None:
    section = sections.get("include")
    if section is None:
        return
    item = section.items.get("files")
    if item is None:
        raise Refused("an [include] section needs files", section.line)
    wanted = _expand(item.value, _common(os.path.dirname(os.path.abspath(path))), item)
    base, seen = os.path.dirname(os.path.abspath(path)), 0
    for pattern in wanted.split():
        found = sorted(glob.glob(os.path.join(base, pattern)))
        if not found:
            source.add(NOTE, f"no file matches {pattern}", item.line, "files", item.value)
        for name in found:
            seen += 1
            if seen > _MOST_INCLUDED:
                raise Refused(f"includes more than {_MOST_INCLUDED} files", item.line, "files", item.value)
            _read_included(name, sections, source)
    source.add(MAPPED, "", item.line, "files", item.value)


def _read_included(name: str, sections: dict[str, _Section], source: Source) -> None:
    try:
        _parse(name, files.read_small(name).decode(), sections)
    except Refused as refused:
        source.refuse(refused, file=name)
    except UnicodeDecodeError:
        source.add(ERROR, "cannot read it: not UTF-8", file=name)
    except (OSError, files.Unreadable) as error:
        source.add(ERROR, f"cannot read it: {getattr(error, 'strerror', None) or error}", file=name)


# --- %(name)s ---


def _common(here: str) -> dict[str, str | int]:
    found: dict[str, str | int] = {f"ENV_{key}": value for key, value in os.environ.items()}
    return {**found, "here": here, "host_node_name": platform.node()}


_EXPANSION = re.compile(r"%(?:(%)|\(([^)]*)\)([-#0 +]*)([0-9]{0,3})(?:\.[0-9]{1,3})?([a-zA-Z])|())", re.ASCII)


def _expand(text: str, known: dict[str, str | int], item: _Item) -> str:
    """`text` with %(name)s and kin replaced, as Python's % does it but for absurd widths."""

    def replaced(found: re.Match[str]) -> str:
        if found[1]:
            return "%"
        if found[2] is None:
            raise Refused("a % stands alone: write %% for a percent sign", item.line, item.key, item.value)
        if found[2] not in known:
            why = f"%({found[2]})s is not known here"
            if found[2].startswith("ENV_"):
                why = f"{found[2].removeprefix('ENV_')} is not in the environment of this command: set it, import again"
            raise Refused(why, item.line, item.key, item.value)
        value = known[found[2]]
        if found[5] != "s":
            try:
                value = int(value)
            except ValueError:
                raise Refused(f"%({found[2]}){found[5]}: not a number", item.line, item.key, item.value) from None
        try:
            return found[0] % {found[2]: value}
        except (ValueError, TypeError, OverflowError):
            raise Refused(f"{found[0]} is no format", item.line, item.key, item.value) from None

    return _EXPANSION.sub(replaced, text)


# --- what holds for all programs ---


@dataclasses.dataclass
class _Base:
    """What [supervisord] says for every program."""

    env: dict[str, str] = dataclasses.field(default_factory=dict)
    cwd: str | None = None
    umask: str | None = None


def _globals(sections: dict[str, _Section], source: Source) -> _Base:
    base = _Base()
    section = sections.get("supervisord")
    if section is None:
        return base
    for item in section.items.values():
        notes = Notes(source, file=item.file)
        key = f"supervisord.{item.key}"
        rule = GLOBAL_KEYS.get(item.key, Key(NOT_MAPPED, "supervisord knows no such key"))
        try:
            value = _expand(item.value, _common(os.path.dirname(os.path.abspath(item.file))), item)
            if item.key == "environment":
                base.env = _pairs(value)
            elif item.key == "directory":
                base.cwd = value
            elif item.key == "umask":
                base.umask = _umask(value)
            elif item.key == "strip_ansi" and not words.truth(value):
                rule = Key(MAPPED, "")
        except Refused as refused:
            raise Refused(refused.why, item.line, key, item.value) from None
        notes.by_rule(rule, item.line, key, item.value)
    return base


def _groups(sections: dict[str, _Section], source: Source) -> dict[str, str]:
    """program -> the group that it is in."""
    members: dict[str, str] = {}
    for section in sections.values():
        kind, _, group = section.name.partition(":")
        if kind != "group":
            continue
        for item in section.items.values():
            notes = Notes(source, file=item.file)
            key = f"{section.name}.{item.key}"
            if item.key != "programs":
                notes.by_rule(GROUP_KEYS.get(item.key, Key(NOT_MAPPED, "no such key")), item.line, key, item.value)
                continue
            for program in filter(None, (one.strip() for one in item.value.split(","))):
                if f"program:{program}" not in sections:
                    notes.lost(item.line, key, item.value, f"there is no [program:{program}]")
                members[program] = group.strip()
            notes.mapped(item.line, key, item.value)
    return members


def _other(section: _Section, kind: str, source: Source) -> None:
    """A section that defines no process here: every key of it shares its fate."""
    named = f"[{section.name}]" if f"[{section.name}]" in OTHER_SECTIONS else f"[{kind}:x]"
    if f"[{kind}]" in OTHER_SECTIONS:
        named = f"[{kind}]"
    rule = OTHER_SECTIONS.get(named, Key(NOT_MAPPED, "supervisord knows no such section"))
    notes = Notes(source, file=section.file)
    if not section.items:
        notes.by_rule(rule, section.line, f"[{section.name}]", "")
    for item in section.items.values():
        Notes(source, file=item.file).by_rule(rule, item.line, f"{section.name}.{item.key}", item.value)


# --- one program ---


@dataclasses.dataclass
class _Build:
    """One process in the making."""

    section: _Section
    known: dict[str, str | int]
    notes: Notes
    config: dict[str, Any] = dataclasses.field(default_factory=dict)

    def text(self, key: str, default: str = "") -> str:
        """The value of a key, expanded."""
        item = self.section.items.get(key)
        if item is None:
            return default
        here = os.path.dirname(os.path.abspath(item.file))
        return _expand(item.value, {**self.known, "here": here}, item)

    def note(self, key: str, why: str) -> None:
        """Say how the mapping of a key is not exact."""
        item = self.section.items.get(key)
        if item is not None:
            self.notes.note(item.line, key, item.value, why)
        else:
            self.notes.note(self.section.line, key, "", why)

    def lost(self, key: str, why: str) -> None:
        """Say that a key has no effect here."""
        item = self.section.items[key]
        self.notes.lost(item.line, key, item.value, why)

    def log(self, key: str, value: Any) -> None:
        """Set a key of `log`."""
        self.config.setdefault("log", {})[key] = value


def _program(section: _Section, name: str, group: str, base: _Base, source: Source) -> None:
    notes = Notes(source, name, section.file)
    try:
        drafts = _processes(section, name, group, base, notes)
    except Refused as refused:
        source.refuse(refused, name, section.file)
        return
    told = {(found.line, found.key) for found in source.findings if found.process == name}
    for item in section.items.values():
        if item.key not in PROGRAM_KEYS:
            notes.lost(item.line, item.key, item.value, "supervisord knows no such key")
        elif (item.line, item.key) not in told:
            notes.by_rule(PROGRAM_KEYS[item.key], item.line, item.key, item.value)
    source.drafts.extend(drafts)


def _processes(section: _Section, name: str, group: str, base: _Base, notes: Notes) -> list[Draft]:
    known = {
        **_common(os.path.dirname(os.path.abspath(section.file))),
        "program_name": name,
        "group_name": group or name,
    }
    first = _Build(section, {**known, "process_num": 0, "numprocs": 1}, notes)
    count = _guarded(first, "numprocs", lambda text: words.whole(text, 1, MOST_INSTANCES)) or 1
    start = _guarded(first, "numprocs_start", lambda text: words.whole(text, 0, 10**9)) or 0
    built = []
    for number in range(start, start + count):
        build = _Build(section, {**known, "process_num": number, "numprocs": count}, notes)
        _fill(build, base)
        built.append((build.text("process_name", name), build.config))
    groups = [group] if group else []
    configs = [config for _, config in built]
    if count > 1 and all(config == configs[0] for config in configs):
        first.note("numprocs", f"the processes are called {name}:0 to {name}:{count - 1}")
        if start:
            first.note("numprocs_start", "the numbers begin at 0")
        config = {**configs[0], "instances": count}
        return [Draft(name, {**config, "group": groups} if groups else config, section.line)]
    if count > 1:
        if len({process for process, _ in built}) != count:
            item = section.items.get("process_name")
            why = "with numprocs above 1, process_name must hold %(process_num)s"
            raise Refused(why, item.line if item else section.line, "process_name", item.value if item else "")
        groups.append(name)
        first.note("numprocs", f"a file each; `ncolony ctl restart-group {name}` means all of them")
    return [
        Draft(process, {**config, "group": groups} if groups else config, section.line) for process, config in built
    ]


def _guarded(build: _Build, key: str, convert: Callable[[str], Any]) -> Any:
    """The converted value of a key, None where it is absent; what is wrong names the key."""
    item = build.section.items.get(key)
    if item is None:
        return None
    try:
        return convert(build.text(key))
    except Refused as refused:
        raise Refused(refused.why, item.line, item.key, item.value, refused.result) from None


def _fill(build: _Build, base: _Base) -> None:
    build.known.update({f"ENV_{key}": value for key, value in base.env.items()})
    env = {**base.env, **(_guarded(build, "environment", _pairs) or {})}
    build.known.update({f"ENV_{key}": value for key, value in env.items()})
    if "command" not in build.section.items:
        raise Refused("a program needs a command", build.section.line, "command")
    build.config["args"] = _guarded(build, "command", _split)
    build.config["env_inherit"] = ["*"]
    if env:
        build.config["env"] = env
    for key, name, convert in (("user", "uid", words.owner), ("directory", "cwd", str), ("umask", "umask", _umask)):
        value = _guarded(build, key, convert)
        if value is None:
            value = getattr(base, name, None)
        if value is not None:
            build.config[name] = value
    if _guarded(build, "autostart", words.truth) is False:
        build.config["enabled"] = False
    _restarting(build)
    _stopping(build)
    _output(build)
    for key in ("stdout_capture_maxbytes", "stderr_capture_maxbytes"):
        if _guarded(build, key, words.size) == 0:
            _means_nothing(build, key)
    for key in ("stdout_events_enabled", "stderr_events_enabled", "stdout_syslog", "stderr_syslog"):
        if _guarded(build, key, words.truth) is False:
            _means_nothing(build, key)


def _means_nothing(build: _Build, key: str) -> None:
    """A feature that is turned off is not missed."""
    item = build.section.items[key]
    build.notes.mapped(item.line, key, item.value)


def _restarting(build: _Build) -> None:
    def policy(text: str) -> str:
        if text.strip().lower() == "unexpected":
            return "on-failure"
        return "always" if words.truth(text) else "never"

    build.config["restart"] = _guarded(build, "autorestart", policy) or "on-failure"
    codes = _guarded(build, "exitcodes", _codes)
    if codes is not None and codes != [0]:
        build.config["success_codes"] = codes
    seconds = _guarded(build, "startsecs", words.whole)
    if seconds is not None:
        build.config["threshold"] = seconds
    seconds = _DEFAULT_STARTSECS if seconds is None else seconds
    retries = _guarded(build, "startretries", words.whole)
    retries = _DEFAULT_RETRIES if retries is None else retries
    if build.config["restart"] == "never":
        if seconds or "startretries" in build.section.items:
            build.note("startretries", "restart is never, so a start that fails is not retried")
        return
    if retries >= 1000:
        build.note("startretries", "never gives up: at most 999 retries can be counted")
        return
    longest = max(1, retries)
    waits = [min(2**n, longest) for n in range(min(retries, 10))] + [longest] * max(0, retries - 10)
    build.config["max_restart_delay"] = longest
    build.config["give_up"] = {"failures": retries + 1, "within": sum(waits) + (retries + 1) * (seconds + 1)}


def _stopping(build: _Build) -> None:
    name = _guarded(build, "stopsignal", words.stop_signal) or "TERM"
    wait = _guarded(build, "stopwaitsecs", words.whole)
    wait = _DEFAULT_WAIT_S if wait is None else wait
    if name == "TERM":
        build.config["kill_time"] = wait
    else:
        build.config["stop"] = [words.as_step(name, wait)]
    whole_group = bool(_guarded(build, "stopasgroup", words.truth))
    if not whole_group:
        build.config["stop_scope"] = "process"
    if _guarded(build, "killasgroup", words.truth):
        item = build.section.items["killasgroup"]
        build.notes.mapped(item.line, item.key, item.value)


def _output(build: _Build) -> None:
    together = bool(_guarded(build, "redirect_stderr", words.truth))
    out = _logfile(build, "stdout")
    err = _logfile(build, "stderr")
    if out.startswith("/"):
        build.log("stdout", out)
    if not together and err.startswith("/"):
        build.log("stderr", err)
    elif not together and out.startswith("/"):
        build.log("stderr", True)
    elif together and err.startswith("/"):
        build.note("stderr_logfile", "redirect_stderr is true, so this file is not used")
    if out == "none" and (together or err == "none"):
        build.log("forward", False)
    sizes = [_guarded(build, f"{stream}_logfile_maxbytes", words.size) for stream in ("stdout", "stderr")]
    keeps = [_guarded(build, f"{stream}_logfile_backups", words.whole) for stream in ("stdout", "stderr")]
    if any(size == 0 for size in sizes):
        for stream, size in zip(("stdout", "stderr"), sizes, strict=True):
            if size == 0:
                build.note(f"{stream}_logfile_maxbytes", "kept output is always bounded; the default is used")
    wanted = [size for size in sizes if size]
    if wanted:
        build.log("max_bytes", max(4096, *wanted))
        if len(set(wanted)) > 1 or min(wanted) < 4096:
            for stream, size in zip(("stdout", "stderr"), sizes, strict=True):
                if size:
                    build.note(f"{stream}_logfile_maxbytes", f"one size for both streams: {max(4096, *wanted)} bytes")
    kept = [keep for keep in keeps if keep is not None]
    if kept:
        build.log("keep", min(100_000, max(kept)))
        if len(set(kept)) > 1:
            build.note("stderr_logfile_backups", f"one number for both streams: {max(kept)}")


def _logfile(build: _Build, stream: str) -> str:
    """Where a stream goes: an absolute path, "auto", "none" or "own"."""
    key = f"{stream}_logfile"
    value = build.text(key, "auto").strip()
    if value.lower() in ("auto", ""):
        return "auto"
    if value.lower() in ("none", "off"):
        build.note(key, "output is kept nevertheless, within `--log-budget`, and left out of the supervisor's log")
        return "none"
    if value.lower() == "syslog":
        build.lost(key, PROGRAM_KEYS["stdout_syslog"].text)
        return "own"
    if value in _OWN_OUTPUT:
        build.note(key, "output is in the supervisor's own log, each line under the process's name")
        return "own"
    if value.endswith("/"):
        item = build.section.items[key]
        raise Refused("a file is expected, not a directory", item.line, key, item.value)
    return os.path.abspath(os.path.expanduser(value))


# --- values ---


def _split(text: str) -> list[str]:
    try:
        found = shlex.split(text)
    except ValueError as error:
        raise Refused(f"cannot be split into words: {str(error).lower()}") from None
    if not found:
        raise Refused("the command is empty")
    return found


def _pairs(text: str) -> dict[str, str]:
    """KEY="value",KEY2=value2, by the rules of Python's shlex as supervisord uses it."""
    lexer = shlex.shlex(text, posix=True)
    lexer.wordchars += "/.+-():"
    try:
        tokens = list(lexer)
    except ValueError as error:
        raise Refused(f'expected KEY="value",…: {str(error).lower()}') from None
    found = {}
    for at in range(0, len(tokens), 4):
        three = tokens[at : at + 3]
        if len(three) != 3 or three[1] != "=" or tokens[at + 3 : at + 4] not in ([], [","]):
            raise Refused(
                'expected KEY="value",KEY2="value2": quote values with other characters than letters and digits'
            )
        found[three[0]] = three[2]
    return found


def _codes(text: str) -> list[int]:
    return [words.whole(part, 0, 255) for part in text.split(",") if part.strip()]


def _umask(text: str) -> str:
    if not re.fullmatch(r"(0o)?[0-7]{1,4}", text.strip()) or int(text, 8) > 0o777:
        raise Refused("expected octal digits such as 022")
    return text.strip()
