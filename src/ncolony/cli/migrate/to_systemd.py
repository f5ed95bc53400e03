"""Config files as systemd units: one .service each, its sockets and timer, and colony.target, which wants them all."""

from __future__ import annotations

import os
import re
import signal

from ncolony.model import config as config_model
from ncolony.model.conditions import as_after
from ncolony.model.names import printable

from . import to_systemd_triggers, units
from .leaving import Output, Process, each
from .report import Refused
from .systemd import OWN_SECTION
from .unitfile import TARGET

_HANDLED = frozenset(
    "args env env_inherit uid gid cwd umask enabled restart success_codes kill_time min_restart_delay"
    " max_restart_delay stop stop_scope nice oom_score_adj limits give_up instances memory_max env_file env_secret"
    " log on_exit on_give_up jitter ready after watchdog sockets schedule".split()
)
_WHY = {
    "group": "no groups: systemctl takes patterns such as 'web*'",
    "threshold": "systemd knows no instant death: RestartSec is waited after every end",
    "rollback_if_not_ready": "no rollback",
    "check": "systemd asks nobody: a program can watch itself, with WATCHDOG=1",
}
_OWNER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,30}|[0-9]{1,10}", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
# unit_name_is_valid() of systemd.
_LONGEST_NAME = 255


def export(processes: list[Process], problems: list[str]) -> list[Output]:
    """The units of these processes and their target; what cannot be said is left over in each process."""
    known = {process.name: process for process in processes}
    made = each(processes, lambda process: _unit(process, known), problems)
    taken: dict[str, str] = {}
    for process, outputs in list(made):
        if clash := [one.name for one in outputs if taken.setdefault(one.name, process.name) != process.name]:
            problems.append(printable(f"cannot export {process.name}: {taken[clash[0]]} has a unit {clash[0]} already"))
            made.remove((process, outputs))
    wanted = [unit for process, outputs in made for unit in _wanted(process, outputs)]
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


def _wanted(process: Process, outputs: list[Output]) -> list[str]:
    """The units that start a process, if it is enabled: its timer, or its service."""
    if not process.config.enabled:
        return []
    ending = ".timer" if process.config.schedule is not None else ".service"
    return [
        unit
        for output in outputs
        if output.name.endswith(ending)
        for unit in _instances(output.name, process.config.instances)
    ]


def _instances(unit: str, count: int | None) -> list[str]:
    if count is None:
        return [unit]
    return [unit.replace("@.", f"@{number}.") for number in range(count)]


def _name(process: Process) -> str:
    return units.unit_name(process.name) + ("@" if process.config.instances is not None else "") + ".service"


def _unit(process: Process, known: dict[str, Process]) -> list[Output]:
    config = process.config
    name = _name(process)
    if len(name) > _LONGEST_NAME - 6:  # room for an instance's number
        raise Refused("too long for the name of a unit", key="name")
    further = to_systemd_triggers.sockets(process, name)
    service = [
        "[Service]",
        *_readiness(process, known),
        "IgnoreSIGPIPE=no",
        *([f"Sockets={' '.join(one.name for one in further)}"] if further else []),
        *_program(process),
        *_environment(process),
        *_restart(process, known),
        *_stop(process),
    ]
    service += [*_identity(process), *_limits(process), *_output(process)]
    if config.schedule is not None:
        further.append(to_systemd_triggers.timer(process, name))
    order = _order(process, known)
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
    unit = ["[Unit]", f"Description={shown}, as ncolony ran it", f"PartOf={TARGET}", *order, *_give_up(process), ""]
    own = [f"[{OWN_SECTION}]", f"Instances={config.instances}", ""] if config.instances is not None else []
    install = ["", "[Install]", f"WantedBy={TARGET}"] if config.enabled and config.schedule is None else []
    lines = [*process.comments(), *own, *unit, *service, *install]
    return [Output(name, "\n".join(lines) + "\n"), *further]


def _is_oneshot(process: Process, known: dict[str, Process]) -> bool:
    """Whether systemd has to wait for its end: it is a job, or another process waits for that."""
    config = process.config
    if config.schedule is not None:
        return True
    awaited = any(
        as_after(other.config.after[process.name]).when == "completed"
        for other in known.values()
        if process.name in other.config.after
    )
    # To systemd 0 is always a success, and a oneshot that succeeds is not restarted.
    return awaited and config.restart != "always" and (config.restart == "never" or 0 in config.success_codes)


def _readiness(process: Process, known: dict[str, Process]) -> list[str]:
    config = process.config
    ready = config.ready
    lines = ["Type=exec"]
    if _is_oneshot(process, known):
        lines = ["Type=oneshot"] if config.schedule is not None else ["Type=oneshot", "RemainAfterExit=yes"]
        if config.schedule is not None and config.schedule.timeout is not None:
            lines.append(f"TimeoutStartSec={units.seconds(config.schedule.timeout)}")
        if ready is not None:
            process.leave("ready", "to systemd a oneshot is ready when it has ended")
    elif ready is not None and ready.notify:
        lines = ["Type=notify", "NotifyAccess=all", f"TimeoutStartSec={units.seconds(ready.timeout)}"]
    elif ready is not None:
        process.leave("ready", "systemd is told (sd_notify), it does not ask: it counts as ready once it was executed")
    if config.watchdog is not None:
        lines.append(f"WatchdogSec={units.seconds(config.watchdog)}")
        lines.append(f"WatchdogSignal={_signal(process.stop_signal)}")
        if ready is None or not ready.notify:
            lines.append("NotifyAccess=all")
        if config.restart == "never" or config.schedule is not None:
            process.leave("watchdog", "systemd ends it, and does not start it again with Restart=no")
    return lines


def _order(process: Process, known: dict[str, Process]) -> list[str]:
    """After= and, of the same units, Requires= or BindsTo=."""
    lines = []
    for name, value in process.config.after.items():
        after = as_after(value)
        this = {name: process.content["after"][name]}
        if (why := _unknown(name, after.when, known)) is not None:
            process.leave("after", why, this)
            continue
        other = known[name]
        names = " ".join(units.escaped(one) for one in _instances(_name(other), other.config.instances))
        lines += [f"After={names}", f"{'BindsTo' if after.bind else 'Requires'}={names}"]
        process.leave("after", _how_far(other, after.when, known), this)
        if after.bind:
            process.leave("after", "systemd stops it with the other, and does not start it again with it", this)
    return lines


def _unknown(name: str, when: str, known: dict[str, Process]) -> str | None:
    """Why nothing can be said of the other process."""
    if name not in known:
        return "not among what is exported"
    other = known[name].config
    if other.schedule is not None:
        return "a job, which systemd would run at once to have an order"
    if not other.enabled:
        return "not enabled, and systemd would start it"
    if other.instances == 0:
        return "there are no copies of it"
    if when == "completed" and not _is_oneshot(known[name], known):
        return "restarted even after exit code 0, so to systemd it is never completed"
    return None


def _how_far(other: Process, when: str, known: dict[str, Process]) -> str:
    """What is not quite so where systemd waits for another unit."""
    ready = other.config.ready
    fails = "systemd gives up where the other fails to start, and stops this with it"
    if when == "healthy":
        return f"systemd asks nobody, so it waits for a start alone; {fails}"
    if when == "ready" and (ready is None or not ready.notify):
        return f"systemd waits until it was executed, not until it is ready; {fails}"
    if when != "completed" and _is_oneshot(other, known):
        return f"systemd waits for its end; {fails}"
    return fails


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
    words = [units.quote(units.escaped(word)) for word in (program, *rest)]
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
            lines.append(f"Environment={units.quote(units.escaped(f'{name}={value}'))}")
    inherited = [name for name in config.env_inherit if _VARIABLE.fullmatch(name)]
    if inherited:
        lines.append(f"PassEnvironment={' '.join(inherited)}")
    if len(inherited) < len(config.env_inherit):
        process.leave("env_inherit", "systemd passes variables on by name only: write out those that are needed")
    for path in config.env_files:
        if (place := units.path(path, process.config.cwd)) and not re.search(r"[*?\[]", place):
            lines.append(f"EnvironmentFile={units.escaped(place)}")
        else:
            process.leave("env_file", f"{path}: systemd wants an absolute path without wildcards or line breaks")
    for name, path in config.env_secret.items():
        if (
            re.fullmatch(r"[A-Za-z0-9_.-]+", name, re.ASCII)
            and (place := units.path(path, process.config.cwd))
            and ":" not in place
        ):
            lines.append(f"LoadCredential={name}:{units.escaped(place)}")
            process.leave(
                f"env_secret.{name}", f"no variable: the program must read the file $CREDENTIALS_DIRECTORY/{name}"
            )
        else:
            process.leave(f"env_secret.{name}", "systemd has no credential of such a name or path")
    return lines


def _restart(process: Process, known: dict[str, Process]) -> list[str]:
    config = process.config
    codes = " ".join(map(str, config.success_codes))
    if config.restart == "never" or config.schedule is not None:
        if 0 not in config.success_codes:
            process.leave("success_codes", "0 is always a success")
        return ["Restart=no", *([f"SuccessExitStatus={codes}"] if set(config.success_codes) - {0} else [])]
    lines = [f"RestartSec={units.seconds(process.min_delay)}"]
    if config.max_restart_delay is not None and config.max_restart_delay != process.min_delay:
        process.leave("max_restart_delay", "systemd 254 and newer: add RestartSteps= and RestartMaxDelaySec=")
    if config.restart == "always":
        return ["Restart=always", *lines]
    if 0 not in config.success_codes:
        return ["Restart=always", *([f"RestartPreventExitStatus={codes}"] if codes else []), *lines]
    if _is_oneshot(process, known):
        process.leave(
            "restart", "systemd takes an end by SIGHUP, SIGINT, SIGTERM or SIGPIPE for a success of a oneshot"
        )
        return ["Restart=on-failure", f"SuccessExitStatus={codes}", *lines]
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
    return [f"StartLimitIntervalSec={units.seconds(give_up.within)}", f"StartLimitBurst={give_up.failures}"]


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
    return [*lines, f"TimeoutStopSec={units.seconds(process.stop_time)}", f"KillMode={mode}"]


def _signal(number: int) -> str:
    """systemd's name of a signal; it takes no numbers for real-time ones."""
    if number >= signal.SIGRTMIN:
        return f"RTMIN+{number - signal.SIGRTMIN}"
    return signal.Signals(number).name


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
        place = units.path(config.cwd, config.cwd) if config.cwd.startswith("/") else None
        if place is None:
            process.leave("cwd", "systemd wants an absolute path without line breaks")
        else:
            lines.append(f"WorkingDirectory={units.escaped(place)}")
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
        if (place := units.path(path, process.config.cwd)) and place != "/":
            lines.append(f"{word}=append:{units.escaped(place)}")
        else:
            process.leave(key, "systemd wants the absolute path of a file, without line breaks")
    if log.stderr is True and log.stdout is not None:
        lines.append("StandardError=journal")
    content = process.content.get("log", {})
    for key in ("forward", "max_bytes", "keep", "format", "timestamps", "overflow", "compress"):
        if key in content:
            process.leave(f"log.{key}", "the journal has settings of its own, a file of its own has none")
    return lines
