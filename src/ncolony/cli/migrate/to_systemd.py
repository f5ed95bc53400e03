"""Config files as systemd units: one .service each, and colony.target, which wants them all."""

from __future__ import annotations

import math
import os
import re
import signal

from ncolony.model import config as config_model

from . import units
from .leaving import Output, Process, each
from .report import Refused
from .systemd import OWN_SECTION

TARGET = "colony.target"
_HANDLED = frozenset(
    "args env env_inherit uid gid cwd umask enabled restart success_codes kill_time min_restart_delay"
    " max_restart_delay stop stop_scope nice oom_score_adj limits give_up instances memory_max env_file env_secret"
    " log on_exit on_give_up jitter".split()
)
_WHY = {
    "group": "no groups: systemctl takes patterns such as 'web*'",
    "threshold": "systemd knows no instant death: RestartSec is waited after every end",
    "rollback_if_not_ready": "no rollback",
    "ready": "set aside in ncolony",
    "after": "set aside in ncolony",
    "check": "set aside in ncolony",
    "watchdog": "set aside in ncolony",
}
_OWNER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,30}|[0-9]{1,10}", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
# unit_name_is_valid() of systemd.
_LONGEST_NAME = 255


def export(processes: list[Process], problems: list[str]) -> list[Output]:
    """The units of these processes and their target; what cannot be said is left over in each process."""
    made = each(processes, _unit, problems)
    wanted = [
        unit
        for process, outputs in made
        if process.config.enabled
        for unit in _instances(outputs[0].name, process.config.instances)
    ]
    target = [
        "# The processes of a colony. Start them with: systemctl enable --now colony.target",
        "[Unit]",
        "Description=The processes of an ncolony colony",
        *(f"Wants={unit}" for unit in wanted),
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return [*(output for _, outputs in made for output in outputs), Output(TARGET, "\n".join(target) + "\n")]


def _instances(unit: str, count: int | None) -> list[str]:
    if count is None:
        return [unit]
    return [unit.replace("@.", f"@{number}.") for number in range(count)]


def _unit(process: Process) -> list[Output]:
    config = process.config
    name = units.unit_name(process.name) + ("@" if config.instances is not None else "") + ".service"
    if len(name) > _LONGEST_NAME - 6:  # room for an instance's number
        raise Refused("too long for the name of a unit", key="name")
    service = [
        "[Service]",
        "Type=exec",
        "IgnoreSIGPIPE=no",
        *_program(process),
        *_environment(process),
        *_restart(process),
        *_stop(process),
    ]
    service += [*_identity(process), *_limits(process), *_output(process)]
    process.leave_others(_HANDLED, _WHY)
    if config.on_exit != "restart":
        process.leave(
            "on_exit", "add SuccessAction=exit and FailureAction=exit, which end the whole machine or container"
        )
    if config.on_give_up != "restart":
        process.leave("on_give_up", "add FailureAction=exit, which ends the whole machine or container")
    if "jitter" in process.content:
        process.leave("jitter", "systemd adds nothing by chance")
    shown = process.name.replace("%", "%%")
    unit = ["[Unit]", f"Description={shown}, as ncolony ran it", f"PartOf={TARGET}", *_give_up(process), ""]
    own = [f"[{OWN_SECTION}]", f"Instances={config.instances}", ""] if config.instances is not None else []
    install = ["", "[Install]", f"WantedBy={TARGET}"] if config.enabled else []
    lines = [*process.comments(), *own, *unit, *service, *install]
    return [Output(name, "\n".join(lines) + "\n")]


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def _program(process: Process) -> list[str]:
    program, *rest = process.config.args
    if "/" in program and not program.startswith("/"):
        if not (process.config.cwd or "").startswith("/"):
            raise Refused("a program with a relative path needs an absolute cwd", key="args")
        program = os.path.normpath(f"{process.config.cwd}/{program}")
    elif "/" not in program:
        process.leave("args", "systemd looks for the program in its own fixed directories, not in PATH")
    if not program.isprintable() or program.endswith("/") or program[0] in "-@:+!|" or program.strip() != program:
        raise Refused(f"systemd cannot run a program called {program!r}", key="args")
    words = [units.quote(_escaped(word)) for word in (program, *rest)]
    # With ":" a "$" is a dollar sign; without it, it would begin a variable.
    prefix = ":" if any("$" in word for word in words) else ""
    return [f"ExecStart={prefix}{' '.join(words)}"]


def _environment(process: Process) -> list[str]:
    config = process.config
    lines = []
    if config.instances is not None:
        lines.append("Environment=NCOLONY_INDEX=%i")
    for name, value in config.env.items():
        if not _VARIABLE.fullmatch(name):
            process.leave(f"env.{name}", "systemd wants names of letters, digits and _")
        elif not value.replace("\n", "").replace("\t", "").isprintable():
            process.leave(f"env.{name}", "systemd takes no such characters in a value")
        else:
            lines.append(f"Environment={units.quote(_escaped(f'{name}={value}'))}")
    inherited = [name for name in config.env_inherit if _VARIABLE.fullmatch(name)]
    if inherited:
        lines.append(f"PassEnvironment={' '.join(inherited)}")
    if len(inherited) < len(config.env_inherit):
        process.leave("env_inherit", "systemd passes variables on by name only: write out those that are needed")
    for path in config.env_files:
        if (place := _path(path, process)) and not re.search(r"[*?\[]", place):
            lines.append(f"EnvironmentFile={_escaped(place)}")
        else:
            process.leave("env_file", f"{path}: systemd wants an absolute path without wildcards or line breaks")
    for name, path in config.env_secret.items():
        if re.fullmatch(r"[A-Za-z0-9_.-]+", name, re.ASCII) and (place := _path(path, process)) and ":" not in place:
            lines.append(f"LoadCredential={name}:{_escaped(place)}")
            process.leave(
                f"env_secret.{name}", f"no variable: the program must read the file $CREDENTIALS_DIRECTORY/{name}"
            )
        else:
            process.leave(f"env_secret.{name}", "systemd has no credential of such a name or path")
    return lines


def _path(path: str, process: Process) -> str | None:
    """An absolute path that a unit can hold without quotes, or None."""
    whole = path if path.startswith("/") else f"{process.config.cwd or ''}/{path}"
    if not whole.startswith("/") or (not path.startswith("/") and not process.config.cwd):
        return None
    whole = os.path.normpath(whole).replace("//", "/")
    fine = whole.isprintable() and whole.strip() == whole and not whole.endswith("\\")
    return whole if fine else None


def _restart(process: Process) -> list[str]:
    config = process.config
    codes = " ".join(map(str, config.success_codes))
    if config.restart == "never":
        return ["Restart=no"]
    lines = [f"RestartSec={_seconds(process.min_delay)}"]
    if config.max_restart_delay is not None and config.max_restart_delay != process.min_delay:
        process.leave("max_restart_delay", "systemd 254 and newer: add RestartSteps= and RestartMaxDelaySec=")
    if config.restart == "always":
        return ["Restart=always", *lines]
    if 0 not in config.success_codes:
        return ["Restart=always", *([f"RestartPreventExitStatus={codes}"] if codes else []), *lines]
    return [
        "Restart=on-failure",
        f"SuccessExitStatus={codes}",
        "# To systemd these are successes.",
        "RestartForceExitStatus=SIGHUP SIGINT SIGTERM SIGPIPE",
        *lines,
    ]


def _give_up(process: Process) -> list[str]:
    give_up = process.config.give_up
    if give_up is None:
        return ["StartLimitIntervalSec=0"]
    if give_up.retry_after is not None:
        process.leave("give_up.retry_after", "systemd does not try again by itself")
    return [f"StartLimitIntervalSec={_seconds(give_up.within)}", f"StartLimitBurst={give_up.failures}"]


def _stop(process: Process) -> list[str]:
    config = process.config
    lines = []
    steps = list(config.stop or ())
    if len(steps) == 2 and steps[0][1] == 0 and config_model.signal_number(steps[1][0]) == signal.SIGHUP:
        lines.append("SendSIGHUP=yes")
    elif len(steps) > 1:
        process.leave("stop", "systemd sends the first signal, waits for all the time there is, and kills")
    if process.stop_signal != signal.SIGTERM:
        lines.append(f"KillSignal={_signal(process.stop_signal)}")
    mode = "control-group" if config.stop_scope == "tree" else "mixed"
    return [*lines, f"TimeoutStopSec={_seconds(process.kill_time)}", f"KillMode={mode}"]


def _signal(number: int) -> str:
    """systemd's name of a signal; it takes no numbers for real-time ones."""
    if number >= signal.SIGRTMIN:
        return f"RTMIN+{number - signal.SIGRTMIN}"
    return signal.Signals(number).name


def _seconds(value: float) -> str:
    """A time span to the microsecond, which is what systemd counts in."""
    if value == 0:
        return "0"
    return f"{math.ceil(value * 1e6)}us" if value != int(value) else str(int(value))


def _identity(process: Process) -> list[str]:
    config = process.config
    lines = []
    for key, word, value in (("uid", "User", config.uid), ("gid", "Group", config.gid)):
        if value is None:
            continue
        if _OWNER.fullmatch(str(value)):
            lines.append(f"{word}={value}")
        else:
            process.leave(key, "systemd takes no such name")
    if config.cwd is not None:
        place = _path(config.cwd, process) if config.cwd.startswith("/") else None
        if place is None:
            process.leave("cwd", "systemd wants an absolute path without line breaks")
        else:
            lines.append(f"WorkingDirectory={_escaped(place)}")
    if config.umask_bits is not None:
        lines.append(f"UMask={config.umask_bits:04o}")
    return lines


def _limits(process: Process) -> list[str]:
    config = process.config
    lines = []
    if config.nice is not None:
        lines.append(f"Nice={config.nice}")
    if config.oom_score_adj is not None:
        lines.append(f"OOMScoreAdjust={config.oom_score_adj}")
    for name, (soft, hard) in config.rlimits.items():
        sides = ["infinity" if one == -1 else str(one) for one in (soft, hard)]
        lines.append(f"Limit{name.upper()}={sides[0] if soft == hard else ':'.join(sides)}")
    if config.most_memory is not None:
        lines.append(f"MemoryMax={config.most_memory}")
    return lines


def _output(process: Process) -> list[str]:
    log = process.config.log
    lines = []
    for key, word, path in (
        ("log.stdout", "StandardOutput", log.stdout),
        ("log.stderr", "StandardError", log.stderr if log.stderr != log.stdout else None),
    ):
        if not isinstance(path, str):
            continue
        if (place := _path(path, process)) and place != "/":
            lines.append(f"{word}=append:{_escaped(place)}")
        else:
            process.leave(key, "systemd wants the absolute path of a file, without line breaks")
    if log.stderr is True and log.stdout is not None:
        lines.append("StandardError=journal")
    content = process.content.get("log", {})
    for key in ("forward", "max_bytes", "keep", "format", "timestamps", "overflow", "compress"):
        if key in content:
            process.leave(f"log.{key}", "the journal has settings of its own, a file of its own has none")
    return lines
