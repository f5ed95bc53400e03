"""A systemd *.service file: its one process. Drop-ins beside it are not read, which is said when there are any.

Sockets and timers, and the order of services, are the matter of the other modules whose names begin like this one's.
"""

from __future__ import annotations

import glob
import math
import os
import re
from typing import Any

from ncolony.model.conditions import LONGEST_S, READY_TIMEOUT_S, SHORTEST_S

from . import systemd_order, systemd_socket, systemd_timer, unitfile, units, words
from .report import MAPPED, NOT_MAPPED, NOTE, Draft, Key, Refused, Source
from .unitfile import Book, Unit

# The section in which `ncolony export systemd` keeps what systemd has no word for; systemd ignores X- sections.
OWN_SECTION = "X-NColony"
_TRIGGER = Key(NOT_MAPPED, "nothing is started because of another process's end")
_SANDBOX = Key(NOT_MAPPED, "no sandbox: use the program's own, or bwrap, in `args`")
_CGROUP = Key(NOT_MAPPED, "no resource control by control groups; set it on the supervisor's unit or container")
_SCHEDULER = Key(NOT_MAPPED, "no scheduling class: use chrt, ionice, taskset or numactl in `args`")
_JOURNAL = Key(NOTE, "of the journal: the supervisor's own log is what reaches it")
_DIRECTORIES = Key(NOT_MAPPED, "no directories are made: make it before, or in a shell before the program")
_CREDENTIALS = Key(NOT_MAPPED, "no credentials directory: `env_secret` puts the content of a file into a variable")
_TTY = Key(NOT_MAPPED, "no terminal: standard input is /dev/null")
_CONDITION, _MANAGER, _HOOK = unitfile.NO_CONDITION, unitfile.OF_SYSTEMD, unitfile.NO_HOOK
_BOOT = Key(NOTE, "every enabled process is started with the supervisor")
_STORE = Key(NOT_MAPPED, "no descriptors are kept or opened for it, but those in `sockets`")


def _each(rule: Key, names: str) -> dict[str, Key]:
    return dict.fromkeys(names.split(), rule)


UNIT_KEYS: dict[str, Key] = {
    **_each(Key(NOTE, "a text for people"), "Description Documentation SourcePath"),
    **systemd_order.KEYS,
    "StartLimitIntervalSec": Key(MAPPED, "`give_up.within`; 0 means never. The default of 10 s is written out"),
    "StartLimitInterval": Key(MAPPED, "the same, in its older spelling"),
    "StartLimitBurst": Key(MAPPED, "`give_up.failures`. The default of 5 is written out"),
    "StartLimitAction": Key(NOT_MAPPED, "`on_give_up` can end the colony, not the machine"),
    **_each(
        _TRIGGER,
        "OnSuccess OnFailure OnSuccessJobMode OnFailureJobMode OnFailureIsolate PropagatesReloadTo PropagateReloadTo"
        " ReloadPropagatedFrom PropagateReloadFrom PropagatesStopTo StopPropagatedFrom FailureAction SuccessAction"
        " FailureActionExitStatus SuccessActionExitStatus RebootArgument",
    ),
    **_each(
        _MANAGER,
        "StopWhenUnneeded RefuseManualStart RefuseManualStop AllowIsolate DefaultDependencies IgnoreOnIsolate"
        " SurviveFinalKillSignal JobTimeoutSec JobRunningTimeoutSec JobTimeoutAction JobTimeoutRebootArgument"
        " CollectMode DebugInvocation",
    ),
    "Condition…": _CONDITION,
    "Assert…": _CONDITION,
}
_LIMITS = "CPU FSIZE DATA STACK CORE RSS NOFILE AS NPROC MEMLOCK LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME".split()
SERVICE_KEYS: dict[str, Key] = {
    "ExecStart": Key(MAPPED, "`args`; several of a oneshot, and variables that are not known, go through `/bin/sh -c`"),
    "ExecStartPre": Key(NOTE, "run before the program by the same `/bin/sh -c`, at each start"),
    "ExecStop": Key(NOTE, "`stop`, where it is a kill of $MAINPID; other commands are not mapped"),
    "ExecReload": Key(
        NOTE, "`ncolony ctl signal NAME HUP`, where it is a kill of $MAINPID; other commands are not mapped"
    ),
    "ExecStartPost": Key(
        NOT_MAPPED, "no command is run beside the process: make it one of its own, `after` this one, with `bind`"
    ),
    **_each(_HOOK, "ExecStopPost ExecCondition ExecReloadPost"),
    "Type": Key(
        MAPPED,
        'simple and exec; notify and notify-reload are `ready.notify`; oneshot is `restart` `"never"`; of dbus the '
        "readiness is missing; forking is refused",
    ),
    "Restart": Key(
        MAPPED, '`restart`: `"always"`, `"on-failure"` (also for on-abnormal, on-abort, on-watchdog), `"never"` for no'
    ),
    "RestartSec": Key(MAPPED, "`min_restart_delay` and `max_restart_delay`; after a long life there is no wait"),
    "RestartMaxDelaySec": Key(MAPPED, "`max_restart_delay`"),
    "RestartSteps": Key(NOTE, "the delay doubles"),
    "RestartPreventExitStatus": Key(MAPPED, "`success_codes`; signals are not mapped"),
    "SuccessExitStatus": Key(MAPPED, "`success_codes`; signals are not mapped"),
    "RestartForceExitStatus": Key(
        NOT_MAPPED, "leave the code out of `success_codes`; death by a signal is a failure here"
    ),
    "TimeoutStopSec": Key(MAPPED, "`kill_time`, or the seconds in `stop`; the default of 90 is written out"),
    "TimeoutSec": Key(MAPPED, "TimeoutStartSec and TimeoutStopSec in one"),
    "TimeoutStartSec": Key(
        MAPPED, "`ready.timeout` with Type=notify, `schedule.timeout` of a oneshot with a timer; else nothing waits"
    ),
    "KillMode": Key(
        MAPPED, '`stop_scope`: `"tree"` for control-group, `"process"` for mixed and process; SIGKILL goes to all'
    ),
    "KillSignal": Key(MAPPED, "`stop`"),
    "FinalKillSignal": Key(NOTE, "one more step in `stop`; SIGKILL follows"),
    "SendSIGHUP": Key(MAPPED, "one more step in `stop`, at once"),
    "SendSIGKILL": Key(NOT_MAPPED, "SIGKILL always ends a stop"),
    "RestartKillSignal": Key(NOT_MAPPED, "a restart stops as a stop does"),
    "User": Key(MAPPED, "`uid`, with HOME, USER, LOGNAME and SHELL in `env` where the user is known here"),
    "Group": Key(MAPPED, "`gid`"),
    "SupplementaryGroups": Key(
        NOT_MAPPED, "with `uid` alone, the groups are the user's own: add the user to the group"
    ),
    "WorkingDirectory": Key(MAPPED, '`cwd`; `"/"` without one, as there'),
    "UMask": Key(MAPPED, "`umask`"),
    "Environment": Key(MAPPED, "`env`; PATH is systemd's own where none is set"),
    "EnvironmentFile": Key(MAPPED, "`env_file`; one with `-` only if it is there now"),
    "PassEnvironment": Key(MAPPED, "`env_inherit`"),
    "UnsetEnvironment": Key(MAPPED, "left out of `env` and `env_inherit`"),
    "Nice": Key(MAPPED, "`nice`"),
    "OOMScoreAdjust": Key(MAPPED, "`oom_score_adj`"),
    **{f"Limit{name}": Key(MAPPED, "`limits`, by the name in small letters") for name in _LIMITS},
    "StandardOutput": Key(
        MAPPED, "`log.stdout` for file: and append:; journal is the rule here; null is `log.forward` false"
    ),
    "StandardError": Key(MAPPED, "`log.stderr` likewise"),
    "StandardInput": Key(MAPPED, "null; anything else is not mapped"),
    "IgnoreSIGPIPE": Key(NOTE, "signals have their default effect, so `no` is the rule here"),
    "MemoryMax": Key(NOTE, "`memory_max`: restarted in order, where there the kernel kills"),
    "MemoryLimit": Key(NOTE, "`memory_max`, as MemoryMax"),
    "WatchdogSec": Key(NOTE, "`watchdog`: it is restarted in order, where there SIGABRT ends it"),
    "WatchdogSignal": Key(NOT_MAPPED, "such a restart begins with the first signal of `stop`, as any other"),
    "NotifyAccess": Key(NOTE, "whoever was started with the process may tell of it"),
    "RemainAfterExit": Key(NOTE, 'an ended process is EXITED, and stays so with `restart` `"never"`'),
    **_each(Key(NOT_MAPPED, "of programs that go into the background, which must not"), "PIDFile GuessMainPID"),
    "ExitType": Key(NOT_MAPPED, "the process that was started is the one that counts"),
    "RuntimeMaxSec": Key(NOT_MAPPED, "nothing is restarted because of its age; with a timer it is `schedule.timeout`"),
    "RuntimeRandomizedExtraSec": Key(NOT_MAPPED, "nothing is restarted because of its age"),
    "Sockets": Key(MAPPED, "`sockets`, where the socket units are imported at the same time"),
    "NonBlocking": Key(NOT_MAPPED, "set it in the program, on each descriptor"),
    **_each(
        _STORE,
        "FileDescriptorStoreMax FileDescriptorStorePreserve OpenFile USBFunctionDescriptors USBFunctionStrings",
    ),
    **_each(
        _MANAGER,
        "BusName StartLimitAction FailureAction RebootArgument ReloadSignal RefreshOnReload"
        " TimeoutAbortSec TimeoutStartFailureMode TimeoutStopFailureMode TimeoutCleanSec RestartMode OOMPolicy"
        " PermissionsStartOnly RootDirectoryStartOnly UtmpIdentifier UtmpMode SetLoginEnvironment",
    ),
    "StartLimitInterval": Key(MAPPED, "`give_up.within`, in its older place"),
    "StartLimitBurst": Key(MAPPED, "`give_up.failures`, in its older place"),
    **_each(
        _SANDBOX,
        "RootDirectory RootImage RootImageOptions RootImagePolicy RootHash RootHashSignature RootVerity RootEphemeral"
        " ExtensionDirectories ExtensionImages ExtensionImagePolicy MountImages MountImagePolicy DynamicUser RemoveIPC"
        " SecureBits CapabilityBoundingSet AmbientCapabilities NoNewPrivileges KeyringMode ProtectProc ProcSubset"
        " PrivateBPF BPFDelegateCommands BPFDelegateMaps BPFDelegatePrograms BPFDelegateAttachments SystemCallFilter"
        " SystemCallArchitectures SystemCallErrorNumber SystemCallLog MemoryDenyWriteExecute RestrictNamespaces"
        " DelegateNamespaces RestrictRealtime RestrictSUIDSGID RestrictAddressFamilies LockPersonality"
        " RestrictFileSystems ReadWriteDirectories ReadOnlyDirectories InaccessibleDirectories ReadWritePaths"
        " ReadOnlyPaths InaccessiblePaths ExecPaths NoExecPaths ExecSearchPath BindPaths BindReadOnlyPaths"
        " TemporaryFileSystem PrivateTmp PrivateDevices ProtectKernelTunables ProtectKernelModules ProtectKernelLogs"
        " ProtectClock ProtectControlGroups NetworkNamespacePath IPCNamespacePath UserNamespacePath PrivateNetwork"
        " PrivateUsers PrivateMounts PrivateIPC PrivatePIDs ProtectSystem ProtectHome MountFlags MountAPIVFS"
        " BindLogSockets Personality PAMName SELinuxContext AppArmorProfile SmackProcessLabel"
        " ProtectHostname MemoryKSM LandlockConfig",
    ),
    **_each(
        _CGROUP,
        "Slice AllowedCPUs StartupAllowedCPUs AllowedMemoryNodes StartupAllowedMemoryNodes CPUAccounting CPUWeight"
        " StartupCPUWeight CPUShares StartupCPUShares CPUQuota CPUQuotaPeriodSec MemoryAccounting MemoryMin"
        " DefaultMemoryMin DefaultMemoryLow DefaultStartupMemoryLow MemoryLow StartupMemoryLow MemoryHigh"
        " StartupMemoryHigh StartupMemoryMax MemorySwapMax StartupMemorySwapMax MemoryZSwapMax StartupMemoryZSwapMax"
        " MemoryZSwapWriteback DeviceAllow DevicePolicy IOAccounting IOWeight StartupIOWeight IODeviceWeight"
        " IOReadBandwidthMax IOWriteBandwidthMax IOReadIOPSMax IOWriteIOPSMax IODeviceLatencyTargetSec"
        " BlockIOAccounting BlockIOWeight StartupBlockIOWeight BlockIODeviceWeight BlockIOReadBandwidth"
        " BlockIOWriteBandwidth TasksAccounting TasksMax Delegate DelegateSubgroup DisableControllers IPAccounting"
        " IPAddressAllow IPAddressDeny IPIngressFilterPath IPEgressFilterPath ManagedOOMSwap ManagedOOMMemoryPressure"
        " ManagedOOMMemoryPressureLimit ManagedOOMMemoryPressureDurationSec ManagedOOMPreference BPFProgram"
        " SocketBindAllow SocketBindDeny RestrictNetworkInterfaces MemoryPressureThresholdSec MemoryPressureWatch"
        " NFTSet CoredumpReceive NetClass",
    ),
    **_each(
        _SCHEDULER,
        "CPUSchedulingPolicy CPUSchedulingPriority CPUSchedulingResetOnFork CPUAffinity NUMAPolicy NUMAMask"
        " IOSchedulingClass IOSchedulingPriority TimerSlackNSec CoredumpFilter",
    ),
    **_each(
        _JOURNAL,
        "SyslogIdentifier SyslogFacility SyslogLevel SyslogLevelPrefix LogLevelMax LogRateLimitIntervalSec"
        " LogRateLimitBurst LogExtraFields LogFilterPatterns LogNamespace",
    ),
    **_each(
        _DIRECTORIES,
        "RuntimeDirectory RuntimeDirectoryMode RuntimeDirectoryPreserve StateDirectory StateDirectoryMode"
        " StateDirectoryAccounting StateDirectoryQuota CacheDirectory CacheDirectoryMode CacheDirectoryAccounting"
        " CacheDirectoryQuota LogsDirectory LogsDirectoryMode LogsDirectoryAccounting LogsDirectoryQuota"
        " ConfigurationDirectory ConfigurationDirectoryMode",
    ),
    **_each(
        _CREDENTIALS, "LoadCredential LoadCredentialEncrypted SetCredential SetCredentialEncrypted ImportCredential"
    ),
    **_each(
        _TTY,
        "TTYPath TTYReset TTYVHangup TTYVTDisallocate TTYRows TTYColumns StandardInputText StandardInputData",
    ),
}
INSTALL_KEYS: dict[str, Key] = _each(_BOOT, "WantedBy RequiredBy UpheldBy Alias Also DefaultInstance")
_SECTIONS = {
    "Unit": UNIT_KEYS,
    "Service": SERVICE_KEYS,
    "Socket": systemd_socket.KEYS,
    "Timer": systemd_timer.KEYS,
    "Install": INSTALL_KEYS,
}

_NOTIFY = ("notify", "notify-reload")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
_STOP_S, _RESTART_S, _BURST, _INTERVAL_S = 90, 0.1, 5, 10
# Death by one of these is a success to systemd, and a failure here as long as nothing else is said.
_CLEAN_SIGNALS = {"SIGHUP", "SIGINT", "SIGTERM", "SIGPIPE"}
_OF_RESTARTS = frozenset(
    "RestartSec RestartSteps RestartMaxDelaySec RestartPreventExitStatus StartLimitIntervalSec"
    " StartLimitInterval StartLimitBurst".split()
)
# "infinity" for a time that ours must know: a year.
_LONGEST_S = 31_536_000
_KILL = re.compile(r"(?:/usr)?(?:/bin/)?kill\s+(?:(?:-s\s*|-)([A-Za-z0-9]+)\s+)?\$\{?MAINPID\}?")
# Exit statuses by name (systemd.exec(5)), as far as a program of one's own may use them.
_STATUSES = {
    "SUCCESS": 0, "FAILURE": 1, "INVALIDARGUMENT": 2, "NOTIMPLEMENTED": 3, "NOPERMISSION": 4, "NOTINSTALLED": 5,
    "NOTCONFIGURED": 6, "NOTRUNNING": 7, "USAGE": 64, "DATAERR": 65, "NOINPUT": 66, "NOUSER": 67, "NOHOST": 68,
    "UNAVAILABLE": 69, "SOFTWARE": 70, "OSERR": 71, "OSFILE": 72, "CANTCREAT": 73, "IOERR": 74, "TEMPFAIL": 75,
    "PROTOCOL": 76, "NOPERM": 77, "CONFIG": 78,
}  # fmt: skip


def read(path: str, text: str, source: Source) -> None:
    """Fill `source` with the process of a service, or with a socket or timer for one. The rest is done by `finish`.

    :raises Refused: when the file as a whole makes no sense.
    """
    unit = unitfile.make(path, units.parse(text), source)
    source.units.append(unit)
    drop_ins = glob.glob(f"{glob.escape(path)}.d/*.conf")
    if drop_ins:
        why = f"drop-ins are not read: {', '.join(sorted(drop_ins))}"
        source.add(NOT_MAPPED, why, process=unit.notes.process)
    if unit.kind != "Service":
        return
    _, at, instance = os.path.splitext(unit.name)[0].partition("@")
    try:
        _fill(unit, is_template=bool(at and not instance))
    except Refused as refused:
        unit.refuse(refused)
        return
    unit.draft = Draft(unit.notes.process, unit.config)
    source.drafts.append(unit.draft)


def finish(found: list[Unit]) -> None:
    """Bring the units together that were imported together, and say what became of every line."""
    book = Book(found)
    systemd_socket.pass_on(book)
    systemd_timer.pass_on(book)
    systemd_order.pass_on(book)
    for unit in found:
        if unit.refused:
            continue
        if unit.kind == "Service":
            _rest(unit)
        _tell(unit)


def _fill(unit: Unit, is_template: bool) -> None:
    own = {line.key: line for line in unit.lines if line.section == OWN_SECTION}
    copies = unit.use(own["Instances"], lambda text: words.whole(text, 0, 10_000)) if "Instances" in own else None
    if copies is not None:
        unit.config["instances"] = copies
        unit.known.update(i="%i")
    elif is_template and not any("%i" in line.value or "%I" in line.value for line in unit.lines):
        unit.notes.note(0, "template", "", "imported as one process; `instances` makes copies")
    _environment(unit)
    _command(unit)
    for key, name, convert in (
        ("User", "uid", words.owner),
        ("Group", "gid", words.owner),
        ("UMask", "umask", _umask),
        ("Nice", "nice", lambda text: words.whole(text, -20, 19)),
        ("OOMScoreAdjust", "oom_score_adj", lambda text: words.whole(text, -1000, 1000)),
    ):
        value = unit.get(convert, key)
        if value is not None:
            unit.config.setdefault(name, value)
    if unit.config.get("uid") == "":
        del unit.config["uid"]
    _directory(unit)
    _restarting(unit)
    _stopping(unit)
    _readiness(unit)
    _limits(unit)
    _output(unit)


def _readiness(unit: Unit) -> None:
    """`ready` and `watchdog`."""
    for key in ("TimeoutStartSec", "RuntimeMaxSec"):  # of which more is said when timers are known
        unit.get(words.span, key)
    if unit.service_type in _NOTIFY:
        unit.config["ready"] = {"notify": True}
        wait = unit.get(words.span, "TimeoutStartSec", "TimeoutSec")
        if wait is not None and wait != READY_TIMEOUT_S:
            unit.config["ready"]["timeout"] = words.tidy(min(wait, LONGEST_S) or LONGEST_S)  # 0 is no limit there
        if unit.service_type == "notify-reload":
            unit.tell(NOTE, unit.all("Type")[-1], "as notify; a reload is `ncolony ctl signal NAME HUP`")
    silence = unit.get(words.span, "WatchdogSec")
    if silence is None:
        return
    line = unit.all("WatchdogSec")[-1]
    if not silence or silence == math.inf:
        unit.tell(MAPPED, line, "")
        return
    if not SHORTEST_S <= silence <= LONGEST_S:
        raise Refused(f"expected seconds, from {SHORTEST_S:g} to a year", line.line, line.key, line.value)
    unit.config["watchdog"] = silence
    if unit.config["restart"] == "never":
        unit.tell(NOTE, line, "`watchdog`: it is restarted, Restart= or not; there SIGABRT would end it for good")
    for signal in unit.all("WatchdogSignal")[-1:]:
        first = unit.config.get("stop", [["TERM"]])[0][0]
        if unit.use(signal, words.stop_signal) == str(first):
            unit.tell(MAPPED, signal, "")
            unit.tell(MAPPED, line, "")


def _rest(unit: Unit) -> None:
    """What can be said of a service only when it is known whether a timer starts it."""
    times = unit.all("TimeoutStartSec")
    if "schedule" in unit.config or not times or "ready" in unit.config:
        return
    if unit.service_type == "oneshot" and unit.use(times[-1], words.span) not in (0, math.inf):
        unit.tell(NOT_MAPPED, times[-1], "a process may run as long as it likes; a job has `schedule.timeout`")
    elif unit.service_type != "oneshot":
        unit.tell(NOTE, times[-1], "there is no start to wait for: it counts as running when it was executed")


def _tell(unit: Unit) -> None:
    """Say of every line what the tables say, where nothing else was said."""
    for line in unit.lines:
        if line.line in unit.told or line.section == OWN_SECTION:
            continue
        if line.section not in ("Unit", unit.kind, "Install"):
            if not line.section.startswith("X-"):
                why = f"not a section of a {unit.kind.lower()}"
                unit.notes.lost(line.line, f"{line.section}.{line.key}", line.value, why)
            continue
        rule = _SECTIONS[line.section].get(line.key)
        if rule is None and line.section == "Unit" and line.key.startswith(("Condition", "Assert")):
            rule = _CONDITION
        if line.section == "Install" and unit.kind != "Service":
            rule = _MANAGER
        if rule is None and line.key.startswith("X-"):
            rule = _MANAGER
        rule = rule or Key(NOT_MAPPED, "systemd 257 and this importer know no such key")
        unit.notes.by_rule(rule, line.line, line.key, line.value)


# --- environment and command ---


def _environment(unit: Unit) -> None:
    env: dict[str, str] = {}
    for line, word in unit.each("Environment"):
        name, equals, value = word.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII):
            raise Refused("expected NAME=VALUE", line.line, line.key, line.value)
        env[name] = value
    if "instances" in unit.config and env.get("NCOLONY_INDEX") == "%i":
        del env["NCOLONY_INDEX"]
    inherited = [word for _, word in unit.each("PassEnvironment")]
    for _, word in unit.each("UnsetEnvironment"):
        name, equals, value = word.partition("=")
        if not equals or env.get(name) == value:
            env.pop(name, None)
            inherited = [one for one in inherited if one != name]
    unset = {word for _, word in unit.each("UnsetEnvironment")}
    if "PATH" not in unset and "PATH" not in inherited:
        env.setdefault("PATH", PATH)
    if inherited:
        unit.config["env_inherit"] = inherited
    read_ = []
    for line in unit.all("EnvironmentFile"):
        path = unit.use(line, str)
        if path.startswith("-") and not os.path.exists(path[1:]):
            unit.tell(NOT_MAPPED, line, "the file is not there now, and env_file wants it to be")
        elif not path.removeprefix("-").startswith("/"):
            raise Refused("expected an absolute path", line.line, line.key, line.value)
        elif glob.has_magic(path):
            unit.tell(NOT_MAPPED, line, "env_file knows no wildcards: name each file")
        else:
            read_.append(path.removeprefix("-"))
            if path.startswith("-"):
                unit.tell(NOTE, line, "the file must be there at each start")
    if read_:
        unit.config["env_file"] = read_
    unit.config["env"] = env


def _user_variables(unit: Unit) -> None:
    """What systemd puts into the environment with User=."""
    import pwd

    user = unit.get(words.owner, "User")
    if user is None:
        return
    try:
        entry = pwd.getpwuid(user) if isinstance(user, int) else pwd.getpwnam(user)
    except (KeyError, ValueError, OverflowError):
        unit.tell(NOTE, unit.all("User")[-1], "there is no such user here: HOME, USER, LOGNAME and SHELL are not set")
        return
    for name, value in (
        ("HOME", entry.pw_dir),
        ("USER", entry.pw_name),
        ("LOGNAME", entry.pw_name),
        ("SHELL", entry.pw_shell or "/bin/sh"),
    ):
        if name not in unit.config.get("env_inherit", ()):
            unit.config["env"].setdefault(name, value)


def _command(unit: Unit) -> None:
    kind = unit.service_type
    if kind == "forking":
        line = unit.all("Type")[-1]
        why = "a program must stay in the foreground: import it with the option that keeps it there and Type=simple"
        raise Refused(why, line.line, line.key, line.value, NOT_MAPPED)
    main = _commands(unit, "ExecStart")
    if not main:
        raise Refused("there is no ExecStart", key="ExecStart")
    if len(main) > 1 and kind != "oneshot":
        raise Refused("more than one command, which only Type=oneshot may have", main[1][0].line, "ExecStart")
    if kind == "dbus":
        why = "counts as running at once: nobody looks for its name on the bus"
        unit.tell(NOTE, (unit.all("Type") or unit.all("BusName"))[-1], why)
    elif kind not in ("simple", "exec", "idle", "oneshot", *_NOTIFY):
        line = unit.all("Type")[-1]
        raise Refused("there is no such type", line.line, line.key, line.value)
    before = _commands(unit, "ExecStartPre")
    for line, command in [*main, *before]:
        _prefixes(unit, line, command)
    _user_variables(unit)
    variables = {} if unit.all("EnvironmentFile", "PassEnvironment") else unit.config["env"]
    line, command = main[-1]
    args = units.expand(command, variables)
    if not before and len(main) == 1 and args is not None:
        if command.has_variables:
            unit.tell(NOTE, line, "variables are replaced by what they are now")
        unit.config["args"] = args
        return
    parts = [_unless(one) for _, one in [*before, *main[:-1]]]
    final = f"exec {units.for_shell(command)}"
    unit.config["args"] = ["/bin/sh", "-c", " && ".join([*parts, final])]
    unit.tell(NOTE, line, "run by /bin/sh" + ("" if args is not None else ", for variables that are not known now"))


def _unless(command: units.Command) -> str:
    text = units.for_shell(command)
    return f"{{ {text} || :; }}" if "-" in command.prefixes else text


def _commands(unit: Unit, key: str) -> list[tuple[units.Line, units.Command]]:
    found: list[tuple[units.Line, units.Command]] = []
    for line in unit.all(key):
        try:
            found.extend((line, one) for one in units.commands(line.value, unit.known))
        except Refused as refused:
            raise Refused(refused.why, line.line, key, line.value) from None
    return found


def _prefixes(unit: Unit, line: units.Line, command: units.Command) -> None:
    if "@" in command.prefixes:
        if len(command.words) < 2:
            raise Refused("with @, argv[0] must follow", line.line, line.key, line.value)
        del command.words[1]
        unit.tell(NOT_MAPPED, line, "@: argv[0] is always the program's path")
    if "-" in command.prefixes and line.key == "ExecStart":
        unit.tell(NOT_MAPPED, line, "-: a failure stays a failure; success_codes can say which is none")
    if ("+" in command.prefixes or "!" in command.prefixes) and unit.all("User", "Group"):
        if line.key == "ExecStart" and "!!" not in command.prefixes:
            unit.config["uid"] = ""
            unit.tell(NOTE, line, "with + or !, User= does not hold, so there is no uid")
        elif "!!" not in command.prefixes:
            unit.tell(NOT_MAPPED, line, "with + or !, run as the user of the process nevertheless")


def _directory(unit: Unit) -> None:
    def place(text: str) -> str:
        path = text.removeprefix("-")
        if path == "~":
            home = words.home_of(unit.config.get("uid", 0))
            if home is None:
                raise Refused("there is no such user here: write out the home directory")
            return home
        if not path.startswith("/"):
            raise Refused("expected an absolute path or ~")
        return path

    found = unit.get(place, "WorkingDirectory")
    unit.config["cwd"] = found or "/"
    if found and unit.all("WorkingDirectory")[-1].value.startswith("-"):
        unit.tell(NOTE, unit.all("WorkingDirectory")[-1], "the directory must be there")


# --- restarting and stopping ---


def _restarting(unit: Unit) -> None:
    policy = unit.get(str, "Restart") or "no"
    line = (unit.all("Restart") or [units.Line("Service", "Restart", "", 0)])[-1]
    if policy == "on-success":
        unit.tell(NOT_MAPPED, line, 'no restart after success alone: restart is "always"')
    elif policy in ("on-abnormal", "on-abort", "on-watchdog"):
        unit.tell(NOTE, line, 'restart is "on-failure", so exit codes that are not success count too')
    elif policy not in ("no", "always", "on-failure"):
        raise Refused("there is no such policy", line.line, line.key, line.value)
    restart = {"no": "never", "always": "always", "on-success": "always"}.get(policy, "on-failure")
    success, prevent = _statuses(unit, "SuccessExitStatus"), _statuses(unit, "RestartPreventExitStatus")
    if restart == "always" and prevent:
        unit.config.update(restart="on-failure", success_codes=sorted(set(prevent)))
    else:
        unit.config["restart"] = restart
        codes = sorted({0, *success, *(prevent if restart == "on-failure" else ())})
        if restart != "always" and codes != [0]:
            unit.config["success_codes"] = codes
    forced = [word for _, word in unit.each("RestartForceExitStatus")]
    if restart == "on-failure" and forced and set(forced) <= _CLEAN_SIGNALS:
        for line in unit.all("RestartForceExitStatus"):
            unit.tell(MAPPED, line, "")
    delay = unit.get(words.span, "RestartSec")
    if delay == math.inf:
        raise Refused("expected a time", unit.all("RestartSec")[-1].line, "RestartSec", "infinity")
    delay = _RESTART_S if delay is None else delay
    longest = unit.get(words.span, "RestartMaxDelaySec")
    unit.config["min_restart_delay"] = delay
    unit.config["max_restart_delay"] = delay if longest in (None, math.inf) else max(delay, longest)
    if restart == "never":
        del unit.config["min_restart_delay"], unit.config["max_restart_delay"]
        for line in unit.lines:
            if line.key in _OF_RESTARTS:
                unit.tell(NOTE, line, "it is never restarted, so this has no effect")
        return
    names = ("StartLimitIntervalSec", "StartLimitInterval")
    interval = unit.get(words.span, *names, section="Unit")
    if interval is None:
        interval = unit.get(words.span, *names)
    count = unit.get(words.whole, "StartLimitBurst", section="Unit")
    if count is None:
        count = unit.get(words.whole, "StartLimitBurst")
    interval = _INTERVAL_S if interval is None else interval
    count = _BURST if count is None else count
    if interval and count:
        unit.config["give_up"] = {"failures": min(count, 1000), "within": min(interval, _LONGEST_S)}


def _statuses(unit: Unit, key: str) -> list[int]:
    found = []
    for line, word in unit.each(key):
        if word.isascii() and word.isdigit() and int(word) <= 255:
            found.append(int(word))
        elif word in _STATUSES:
            found.append(_STATUSES[word])
        else:
            unit.tell(NOT_MAPPED, line, f"{word}: only exit codes from 0 to 255 can be a success, no signals")
    return found


def _stopping(unit: Unit) -> None:
    wait = unit.get(words.span, "TimeoutStopSec", "TimeoutSec")
    wait = _STOP_S if wait is None else min(wait, _LONGEST_S)
    first = unit.get(words.stop_signal, "KillSignal") or "TERM"
    for line, _ in _commands(unit, "ExecStop"):
        found = _KILL.fullmatch(line.value.lstrip("-"))
        if found:
            first = unit.use(line, lambda _, name=found[1] or "TERM": words.stop_signal(name))  # type: ignore[misc]
        else:
            unit.tell(NOT_MAPPED, line, "no command is run for a stop: the signals of stop are what there is")
    for line, _ in _commands(unit, "ExecReload"):
        if found := _KILL.fullmatch(line.value.lstrip("-")):
            unit.tell(NOTE, line, f"ncolony ctl signal NAME {(found[1] or 'TERM').upper().removeprefix('SIG')}")
        else:
            unit.tell(NOT_MAPPED, line, "no command is run for a reload: ncolony ctl signal sends signals")
    steps = [words.as_step(first, wait)]
    if unit.get(words.truth, "SendSIGHUP"):
        steps = [words.as_step(first, 0), words.as_step("HUP", wait)]
    final = unit.get(words.stop_signal, "FinalKillSignal")
    if final and final != "KILL":
        steps.append(words.as_step(final, wait))
    if steps == [["TERM", wait]]:
        unit.config["kill_time"] = wait
    else:
        unit.config["stop"] = steps
    mode = unit.get(str, "KillMode") or "control-group"
    if mode not in ("control-group", "mixed", "process", "none"):
        line = unit.all("KillMode")[-1]
        raise Refused("there is no such mode", line.line, line.key, line.value)
    if mode != "control-group":
        unit.config["stop_scope"] = "process"
    if mode in ("process", "none"):
        unit.tell(NOTE, unit.all("KillMode")[-1], "nothing of a process outlives its stop: SIGKILL goes to all of it")
    if unit.get(words.truth, "SendSIGKILL") is True:
        unit.tell(MAPPED, unit.all("SendSIGKILL")[-1], "")


# --- limits and output ---


def _limits(unit: Unit) -> None:
    limits: dict[str, Any] = {}
    for name in _LIMITS:
        small = name.lower()

        def both(text: str, small: str = small) -> Any:
            soft, colon, hard = text.partition(":")
            first = units.limit(soft, small)
            return [first, units.limit(hard, small)] if colon else first

        value = unit.get(both, f"Limit{name}")
        if value is not None:
            limits[small] = value
    if limits:
        unit.config["limits"] = limits
    for line in unit.all("MemoryMax", "MemoryLimit")[-1:]:
        if line.value == "infinity":
            unit.tell(MAPPED, line, "")
        elif line.value.endswith("%"):
            unit.tell(NOT_MAPPED, line, "a share of the machine's memory: write out how much that is")
        else:
            unit.config["memory_max"] = unit.use(line, words.size)


def _output(unit: Unit) -> None:
    out, err = _stream(unit, "StandardOutput"), _stream(unit, "StandardError")
    log: dict[str, Any] = {}
    if out.startswith("/"):
        log["stdout"] = out
    if err.startswith("/") and err != out:
        log["stderr"] = err
    elif out.startswith("/") and err == "log":
        log["stderr"] = True
    if out == "null" and err in ("null", "inherit"):
        log["forward"] = False
    if log:
        unit.config["log"] = log
    for line in unit.all("StandardInput")[-1:]:
        if line.value != "null":
            unit.tell(NOT_MAPPED, line, _TTY.text)


def _stream(unit: Unit, key: str) -> str:
    """Where a stream goes: a path, "log", "null" or "inherit"."""
    lines = unit.all(key)
    if not lines:
        return "inherit" if key == "StandardError" else "log"
    line = lines[-1]
    value = unit.use(line, str)
    kind, _, path = value.partition(":")
    if kind in ("file", "append", "truncate") and path.startswith("/") and not path.endswith("/"):
        if kind != "append":
            unit.tell(NOTE, line, "output is appended")
        return str(path)
    if value in ("inherit", "journal"):
        return "inherit" if value == "inherit" and key == "StandardError" else "log"
    if value == "null":
        unit.tell(NOTE, line, "output is kept nevertheless, within --log-budget, and left out of the supervisor's log")
        return "null"
    if value in ("journal+console", "syslog", "syslog+console", "kmsg", "kmsg+console"):
        unit.tell(NOTE, line, "output is in the supervisor's own log")
        return "log"
    unit.tell(NOT_MAPPED, line, "output goes to the log, and to a file with file: or append:")
    return "log"


def _umask(text: str) -> str:
    if not re.fullmatch(r"[0-7]{1,4}", text) or int(text, 8) > 0o777:
        raise Refused("expected octal digits such as 0022")
    return text
