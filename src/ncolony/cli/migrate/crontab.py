"""crontab: jobs at fixed intervals become schedulers; jobs at times of day wait for cron expressions."""

from __future__ import annotations

import os
import re
import sys
from typing import Any, NamedTuple

from . import words
from .report import MAPPED, NOT_MAPPED, NOTE, Draft, Key, Notes, Refused, Source

_LATER = "a time of day, week or month: cron expressions come in a later version of the scheduler"
KEYS: dict[str, Key] = {
    "minute": Key(MAPPED, "`*`, `*/N` where N divides 60, or one minute: an interval, `--frequency`"),
    "hour": Key(MAPPED, "`*`, or `*/N` where N divides 24 with one minute: an interval, `--frequency`"),
    "day of month": Key(NOT_MAPPED, f"{_LATER}; `*` is fine"),
    "month": Key(NOT_MAPPED, f"{_LATER}; `*` is fine"),
    "day of week": Key(NOT_MAPPED, f"{_LATER}; `*` is fine"),
    "user": Key(MAPPED, "`uid`, in the format of /etc/crontab"),
    "command": Key(MAPPED, "`--arg`, run by SHELL; what follows an unescaped `%` is its standard input"),
    "@reboot": Key(NOTE, '`restart` is `"never"`: it runs when the supervisor first starts it, not only after a boot'),
    "@hourly": Key(MAPPED, "`--frequency=3600`"),
    "@daily": Key(NOT_MAPPED, _LATER),
    "@midnight": Key(NOT_MAPPED, _LATER),
    "@weekly": Key(NOT_MAPPED, _LATER),
    "@monthly": Key(NOT_MAPPED, _LATER),
    "@yearly": Key(NOT_MAPPED, _LATER),
    "@annually": Key(NOT_MAPPED, _LATER),
    "SHELL": Key(MAPPED, "the shell that runs the commands below it"),
    "PATH": Key(MAPPED, "`env.PATH`; cron's own is `/usr/bin:/bin`, written out"),
    "HOME": Key(MAPPED, "`env.HOME` and `cwd`"),
    "MAILTO": Key(NOT_MAPPED, "no mail: what a job prints is in the log, `ncolony ctl history` keeps its last lines"),
    "MAILFROM": Key(NOT_MAPPED, "no mail"),
    "CRON_TZ": Key(NOTE, "intervals know no time zone"),
    "RANDOM_DELAY": Key(NOT_MAPPED, "the scheduler delays nothing by chance"),
    "any other NAME = VALUE": Key(MAPPED, "`env` of the jobs below it"),
}
# Without a limit in cron, a job gets a day; the scheduler must be told one.
_TIMEOUT_S, _GRACE_S = 86_400, 10
_CRON_PATH = "/usr/bin:/bin"
_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_DAYS = "sun mon tue wed thu fri sat".split()
_FIELDS: list[tuple[str, int, int, list[str]]] = [
    ("minute", 0, 59, []),
    ("hour", 0, 23, []),
    ("day of month", 1, 31, []),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 7, _DAYS),
]
_NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
# Words that begin a command line without being what it is about.
_NOT_A_NAME = frozenset("cd test [ ] [[ ]] ! if then nice ionice flock exec sudo env command time true sh bash".split())
_ASSIGNMENT = re.compile(r"""\s*("[^"]*"|'[^']*'|[A-Za-z_][A-Za-z0-9_]*)\s*=(.*)""")


class _Job(NamedTuple):
    line: int
    when: str
    user: str
    command: str
    stdin: str | None


def read(path: str, text: str, source: Source, with_user: bool = False) -> None:
    """Fill `source` with a process for each job that an interval expresses. `with_user`: the format of /etc/crontab."""
    env: dict[str, str] = {}
    names: dict[str, int] = {}
    for number, line in enumerate(words.lines(text), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if assignment := _ASSIGNMENT.fullmatch(line):
            _assign(number, assignment[1].strip("\"'"), _unquoted(assignment[2].strip()), env, source)
            continue
        try:
            job = _job(number, stripped, with_user)
            draft = _draft(job, dict(env), source)
        except Refused as refused:
            source.add(refused.result, refused.why, number, refused.key, refused.value or stripped)
            continue
        base = words.legal_name(draft.name)
        names[base] = names.get(base, 0) + 1
        draft.name = base if names[base] == 1 else f"{base}-{names[base]}"
        source.drafts.append(draft)


def has_users(text: str) -> bool:
    """Whether the jobs have a user in their sixth column: each does, and it is one that is known here."""
    found = False
    for line in words.lines(text):
        stripped = line.strip()
        if not stripped or stripped.startswith("#") or _ASSIGNMENT.fullmatch(line):
            continue
        parts = stripped.split(None, 2 if stripped.startswith("@") else 6)
        if len(parts) < (3 if stripped.startswith("@") else 7) or words.home_of(parts[-2]) is None:
            return False
        found = True
    return found


def looks_like_one(text: str) -> bool:
    """Whether some line is a job."""
    for number, line in enumerate(words.lines(text), 1):
        if re.match(r"\s*(@[a-z]+|[0-9*][0-9*/,-]*\s+[0-9*])", line):
            try:
                _job(number, line.strip(), False)
            except Refused:
                continue
            return True
    return False


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value


def _assign(line: int, name: str, value: str, env: dict[str, str], source: Source) -> None:
    rule = KEYS.get(name, KEYS["any other NAME = VALUE"])
    if rule.fate == MAPPED:
        env[name] = value
    elif name == "MAILTO" and not value:
        rule = Key(MAPPED, "")
    Notes(source).by_rule(rule, line, name, value)


def _job(line: int, text: str, with_user: bool) -> _Job:
    """The parts of a job's line.

    :raises Refused: when it is none.
    """
    fields = 1 if text.startswith("@") else 5
    parts = text.split(None, fields + with_user)
    if len(parts) < fields + with_user + 1:
        raise Refused("expected five times or @WORD, " + ("a user, " if with_user else "") + "and a command", line)
    when = " ".join(parts[:fields]).lower() if fields == 1 else " ".join(parts[:fields])
    if fields == 1 and when != "@reboot" and when not in _NICKNAMES:
        raise Refused("there is no such time", line, when)
    command, stdin = _percent(parts[-1])
    return _Job(line, when, parts[fields] if with_user else "", command, stdin)


def _percent(text: str) -> tuple[str, str | None]:
    r"""The command, and its standard input if there is a % in it; \% is a percent sign."""
    parts = [part.replace("\\%", "%") for part in re.split(r"(?<!\\)%", text)]
    return parts[0].strip(), "\n".join(parts[1:]) + "\n" if len(parts) > 1 else None


def _values(text: str, name: str, least: int, most: int, named: list[str], line: int) -> set[int]:
    """What one of the five fields means."""
    found: set[int] = set()
    for part in text.lower().split(","):
        span, slash, step = part.partition("/")
        first, dash, last = span.partition("-")
        try:
            if span == "*":
                low, high = least, most
            else:
                low = _value(first, least, most, named)
                high = _value(last, least, most, named) if dash else most if slash else low
            width = words.whole(step, 1, most) if slash else 1
        except Refused as refused:
            raise Refused(f"{name} {text}: {refused.why}", line) from None
        if high < low:
            raise Refused(f"{name} {text}: the range ends before it begins", line)
        found.update(range(low, high + 1, width))
    return found


def _value(text: str, least: int, most: int, named: list[str]) -> int:
    return named.index(text) + (1 if named is _MONTHS else 0) if text in named else words.whole(text, least, most)


def interval(when: str, line: int = 0) -> int | None:
    """The seconds between two runs, where all runs are equally far apart and less than a day; else None.

    :raises Refused: when it is no time.
    """
    texts = _NICKNAMES.get(when, when).split()
    minutes, hours, days, months, weekdays = (
        _values(text, *field, line) for text, field in zip(texts, _FIELDS, strict=True)
    )
    weekdays = {day % 7 for day in weekdays}
    if len(days) < 31 or len(months) < 12 or len(weekdays) < 7:
        return None
    runs = sorted(60 * hour + minute for hour in hours for minute in minutes)
    gaps = {(after - before) % 1440 for before, after in zip(runs, [*runs[1:], runs[0]], strict=True)}
    return gaps.pop() * 60 if len(runs) > 1 and len(gaps) == 1 else None


def _draft(job: _Job, env: dict[str, str], source: Source) -> Draft:
    shell = env.pop("SHELL", "/bin/sh")
    if job.stdin is None:
        args = [shell, "-c", job.command]
    else:
        args = ["/bin/sh", "-c", 'printf %s "$1" | "$2" -c "$3"', "cron", job.stdin, shell, job.command]
    name = _name(job.command)
    notes = Notes(source, name)
    config: dict[str, Any] = {}
    if job.user:
        config["uid"] = words.owner(job.user)
    home = env.get("HOME") or words.home_of(config.get("uid"))
    if home is None:
        notes.note(job.line, "user", job.user, "there is no such user here: HOME and cwd are left out")
    else:
        config["cwd"] = home
        env["HOME"] = home
    if job.user:
        env.setdefault("LOGNAME", job.user)
        env.setdefault("USER", job.user)
    env = {"PATH": _CRON_PATH, "SHELL": shell, **env}
    if job.when == "@reboot":
        notes.note(job.line, job.when, job.command, KEYS["@reboot"].text)
        return Draft(name, {"args": args, "env": env, **config, "restart": "never"}, job.line)
    seconds = interval(job.when, job.line)
    if seconds is None:
        raise Refused(_LATER, job.line, job.when, job.command, NOT_MAPPED)
    options = [f"--arg={word}" for word in args]
    options += [f"--frequency={seconds}", f"--timeout={_TIMEOUT_S}", f"--grace={_GRACE_S}"]
    scheduler = [sys.executable, "-m", "twisted", "ncolony-scheduler", *options]
    why = f"every {seconds} s from the process's start on, not by the clock; runs never overlap, and take a day at most"
    notes.note(job.line, job.when, job.command, why)
    return Draft(name, {"args": scheduler, "env": env, **config, "kill_time": _GRACE_S + 5}, job.line)


def _name(command: str) -> str:
    """What a job is called: its program's name, seen past variables, cd and the like."""
    for word in re.split(r"[\s;&|()<>]+", re.sub(r"\bcd\s+[^\s;&]+", "", command)):
        bare = os.path.basename(word.strip("\"'"))
        if bare and "=" not in word and bare not in _NOT_A_NAME and not word.startswith(("-", "$", "/dev/")):
            return bare
    return "cron"
