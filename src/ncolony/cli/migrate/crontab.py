"""crontab: each of its lines becomes a process with a `schedule`."""

from __future__ import annotations

import os
import re
from typing import Any, NamedTuple

from . import crons, words
from .report import MAPPED, NOT_MAPPED, NOTE, Draft, Key, Notes, Refused, Source

_TIMES = Key(MAPPED, "`schedule.cron`, names of months and days as numbers")
KEYS: dict[str, Key] = {
    "minute": _TIMES,
    "hour": _TIMES,
    "day of month": _TIMES,
    "month": _TIMES,
    "day of week": _TIMES,
    "user": Key(MAPPED, "`uid`, in the format of /etc/crontab"),
    "command": Key(MAPPED, "`args`, run by SHELL; what follows an unescaped `%` is its standard input"),
    "@reboot": Key(NOTE, '`restart` is `"never"`: it runs when the supervisor first starts it, not only after a boot'),
    **dict.fromkeys(crons.NICKNAMES, Key(MAPPED, "`schedule.cron`")),
    "SHELL": Key(MAPPED, "the shell that runs the commands below it"),
    "PATH": Key(MAPPED, "`env.PATH`; cron's own is `/usr/bin:/bin`, written out"),
    "HOME": Key(MAPPED, "`env.HOME` and `cwd`"),
    "MAILTO": Key(NOT_MAPPED, "no mail: what a job prints is in the log, `ncolony ctl history` keeps its last lines"),
    "MAILFROM": Key(NOT_MAPPED, "no mail"),
    "CRON_TZ": Key(MAPPED, "`schedule.timezone` of the jobs below it"),
    "TZ": Key(NOTE, "`env` of the jobs below it; as in cron, their times are those of the machine, or of CRON_TZ"),
    "RANDOM_DELAY": Key(NOTE, "`schedule.jitter`, which is another delay for each run"),
    "any other NAME = VALUE": Key(MAPPED, "`env` of the jobs below it"),
}
_OVERLAP = "a run that is due while the last one goes on is left out, where cron runs both; see `schedule.overlap`"
_CRON_PATH = "/usr/bin:/bin"
# Words that begin a command line without being what it is about.
_NOT_A_NAME = frozenset("cd test [ ] [[ ]] ! if then nice ionice flock exec sudo env command time true sh bash".split())
_ASSIGNMENT = re.compile(r"""\s*("[^"]*"|'[^']*'|[A-Za-z_][A-Za-z0-9_]*)\s*=(.*)""")


# Variables that are about the table, and that no job gets.
_OF_THE_TABLE = ("CRON_TZ", "RANDOM_DELAY")


class _Job(NamedTuple):
    line: int
    when: str
    user: str
    command: str
    stdin: str | None


def read(path: str, text: str, source: Source, with_user: bool = False) -> None:
    """Fill `source` with a process for each job. `with_user`: the format of /etc/crontab."""
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
    if any("schedule" in draft.config for draft in source.drafts):
        source.add(NOTE, _OVERLAP, key="runs that overlap")


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
    if rule.fate == MAPPED or name in ("TZ", "RANDOM_DELAY"):
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
    if fields == 1 and when != "@reboot" and when not in crons.NICKNAMES:
        raise Refused("there is no such time", line, when)
    command, stdin = _percent(parts[-1])
    return _Job(line, when, parts[fields] if with_user else "", command, stdin)


def _percent(text: str) -> tuple[str, str | None]:
    r"""The command, and its standard input if there is a % in it; \% is a percent sign."""
    parts = [part.replace("\\%", "%") for part in re.split(r"(?<!\\)%", text)]
    return parts[0].strip(), "\n".join(parts[1:]) + "\n" if len(parts) > 1 else None


def _schedule(job: _Job, table: dict[str, str]) -> dict[str, Any]:
    """When a job runs. `table`: the variables that are about the table.

    :raises Refused: when that cannot be said, or is no time.
    """
    if "~" in job.when:
        raise Refused("a time by chance: write one out, perhaps with `jitter`", job.line, job.when, "", NOT_MAPPED)
    times = crons.parse(job.when, job.line)
    try:
        found: dict[str, Any] = {"cron": crons.render(times)}
    except Refused as refused:
        raise Refused(refused.why, job.line, job.when, job.command, NOT_MAPPED) from None
    zone = table.get("CRON_TZ", "")
    if zone and not words.is_timezone(zone):
        raise Refused(f"there is no time zone {zone} here", job.line, "CRON_TZ", zone, NOT_MAPPED)
    if zone:
        found["timezone"] = zone
    if delay := table.get("RANDOM_DELAY", ""):
        try:
            minutes = words.whole(delay, 0, 60 * 24)
        except Refused as refused:
            raise Refused(refused.why, job.line, "RANDOM_DELAY", delay) from None
        if minutes:
            found["jitter"] = 60 * minutes
    return found


def _draft(job: _Job, env: dict[str, str], source: Source) -> Draft:
    shell = env.pop("SHELL", "/bin/sh")
    table = {key: env.pop(key) for key in _OF_THE_TABLE if key in env}
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
    schedule = _schedule(job, table)
    notes.mapped(job.line, job.when, job.command)
    return Draft(name, {"args": args, "env": env, **config, "schedule": schedule}, job.line)


def _name(command: str) -> str:
    """What a job is called: its program's name, seen past variables, cd and the like."""
    for word in re.split(r"[\s;&|()<>]+", re.sub(r"\bcd\s+[^\s;&]+", "", command)):
        bare = os.path.basename(word.strip("\"'"))
        if bare and "=" not in word and bare not in _NOT_A_NAME and not word.startswith(("-", "$", "/dev/")):
            return bare
    return "cron"
