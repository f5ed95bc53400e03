"""The loop: the one place where decisions meet deeds. It reads, asks `decide` what follows, and has it done."""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import os
import random
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from . import __version__
from .decide import lifecycle
from .decide.answer import Goal
from .decide.lifecycle import Effect, Event, Forget, Process, Signal, Spawn, State, Wanted
from .decide.reconcile import Applied, Memory, adopted, change, in_order, remembered
from .decide.restart import Exit, Policy
from .keeper.kernel import become_subreaper, reach
from .model import message as messages
from .model.config import Definition, Problem, define, signal_name, signal_number
from .model.history import Record
from .model.message import Answer, Message
from .model.names import is_ignored, printable, problem_with_name
from .model.status import LastExit, Status
from .system import launch, upgrade
from .system.attic import Attic
from .system.files import Directory, Entry, sweep, write_whole
from .system.follow import Follower
from .system.hands import Hands, Identities
from .system.history import Chronicle
from .system.inbox import Inbox, Requests
from .system.limits import raise_descriptor_limit
from .system.orphans import Orphans, kill
from .system.own_log import OwnLog, cut_torn_record, say
from .system.places import UnsafeState, make_private
from .system.records import Records
from .system.sinks import Plan, plan
from .system.wake import Names, Watcher

_log = Logger(namespace="ncolony")
# A new supervisor waits this long for the lock: a forked child of the old one may hold it until its exec.
_LOCK_WAIT_S = 2.0
# From the last removal of a config file until it is applied.
_DEPARTURE_S = 0.03
# A stop that takes this long names what it waits for, and again after each such time.
_ASK_S = 1.0
# Before anything is known of what runs, a wish to end waits this long for a keeper.
_KEEPER_WAIT_S = 10.0
# The goal of a message that asks for our end.
_SHUTDOWN = "shutdown"
# What a process's output is in trouble with when some of it was dropped.
_DROPPED = "dropped"
_LIVE = (State.STARTING, State.RUNNING, State.STOPPING)


class Settings(msgspec.Struct, frozen=True):
    """The options, resolved. `policy` holds for processes that say nothing themselves."""

    config: str
    messages: str
    state: str
    logs: str | None
    log_budget: int
    pids: str | None
    frequency: float
    linger: float | None
    cgroup: str | None
    strict: bool
    policy: Policy


class Known:
    """What the supervisor knows of one name."""

    __slots__ = (
        "applied", "definition", "dropped", "holding", "identity", "last_exit", "pid", "problem", "process", "started",
        "timed", "troubles",
    )  # fmt: skip

    def __init__(self) -> None:
        self.definition: Definition | None = None
        self.applied: Applied | None = None
        self.problem: str | None = None
        self.process: Process | None = None
        self.identity: str | None = None  # of the newest instance
        self.pid: int | None = None
        self.started: float | None = None  # wall clock
        self.last_exit: LastExit | None = None
        self.timed: float | None = None  # the deadline that is in the heap
        self.troubles: dict[str, str] = {}  # with its output, by what is concerned
        self.dropped = 0  # bytes of its output, since it was started
        self.holding: tuple[str, ...] = ()  # what a stop waits for


class Supervisor(Service):
    """Runs what the config directory says until it is told to stop."""

    def __init__(self, reactor: Any, settings: Settings) -> None:
        self._reactor, self._settings = reactor, settings
        self._known: dict[str, Known] = {}
        self._instances: dict[str, tuple[str, int]] = {}  # identity -> name, number
        self._events: deque[tuple[str, Event]] = deque()
        self._deadlines: list[tuple[float, str]] = []
        self._wake_up: Any = None
        self._policies: dict[Policy, Policy] = {}
        self._identities = Identities()
        self._adopted = self._quitting = False
        self._stopped: list[Deferred[None]] = []
        self._problems: dict[str, str] = {}  # what is wrong with our surroundings, by what is concerned
        self._lock = self._shown = -1
        self._failed = False
        self._earlier: dict[str, Status] = {}
        self._live = 0  # how many processes have an instance, or are about to
        self._departing: set[str] = set()  # names whose file is gone, which is not applied yet
        self._departure: Any = None
        self._pending: set[str] = set()  # names whose file was read and not applied yet
        self._were_up: set[str] = set()  # names that run again when a supervisor starts after a clean end
        self._orphans = Orphans(self._note_orphan)
        self._by_pid: dict[int, str] = {}  # pid -> name, of instances that run
        self._dropped: list[str] = []  # names that the keeper may forget after that
        self._over: list[str] = []  # identities that the keeper may forget once their exits are recorded
        self._stopping: dict[str, None] = {}  # names that are being stopped
        self._asking: Any = None
        self._upgrading = self._undescribed = False
        self._began = time.time()
        self._handover = upgrade.received()
        self._trial: tuple[str | None, int] | None = None  # the message that asks for an upgrade, the pid that shows it
        self._signals: dict[str, tuple[str, int, messages.Signal]] = {}  # message -> instance, signal, not yet sent
        self._left = False  # the keeper has said that it leaves
        self._told: list[dict[str, Any]] = []  # output that a keeper told of before it said what it holds
        self._shutdowns: set[str] = set()  # the messages that asked for our end
        self._unfinished: list[tuple[str, Answer]] = []

    # starting

    def startService(self) -> None:
        """Take the lock on the state directory. Everything else waits for the reactor.

        :raises SystemExit: when another supervisor has it, or directories cannot be made.
        """
        super().startService()  # type: ignore[no-untyped-call]
        settings = self._settings
        try:
            for directory in filter(None, (settings.config, settings.messages, settings.pids)):
                os.makedirs(directory, exist_ok=True)
            self._check_places()
            make_private(settings.state)
            for name in ("status", "answers", "rejected", "history", "fifo", "forwarded", "config"):
                os.makedirs(f"{settings.state}/{name}", mode=0o711 if name == "config" else 0o755, exist_ok=True)
            self._logs = os.path.abspath(settings.logs or f"{settings.state}/logs")
            os.makedirs(self._logs, exist_ok=True)
            self._take_lock()
            cut_torn_record(f"{settings.state}/forwarding")
        except UnsafeState as unsafe:
            sys.exit(f"cannot start: {unsafe}")
        except OSError as error:
            sys.exit(f"cannot start: cannot use {error.filename}, state directory {settings.state}: {error.strerror}")
        self._reactor.callWhenRunning(self._begin_or_say_why)

    def _begin_or_say_why(self) -> None:
        """A supervisor that cannot begin says so and ends; what runs under a keeper is not touched."""
        try:
            self._begin()
        except Exception as error:  # noqa: BLE001
            _log.failure("cannot start")
            sys.stderr.write(f"cannot start: {error}\n")
            self._give_up()

    def _give_up(self) -> None:
        """End with status 1, leaving what runs to the next supervisor."""
        self._failed = True
        self._reactor.addSystemEventTrigger("after", "shutdown", os._exit, 1)
        self._reactor.stop()

    def _check_places(self) -> None:
        state = os.path.realpath(self._settings.state)
        for directory in (self._settings.config, self._settings.messages):
            if os.path.commonpath([state, os.path.realpath(directory)]) == os.path.realpath(directory):
                sys.exit(f"cannot start: the state directory {state} lies inside {directory}")
        if os.path.realpath(self._settings.config) == os.path.realpath(self._settings.messages):
            sys.exit(f"cannot start: {self._settings.config} cannot be for both configuration and messages")

    def _take_lock(self) -> None:
        """Be the only supervisor; and let anybody see that there is one."""
        if self._handover is not None:
            self._lock, self._shown = self._handover.lock, self._handover.shown
            return
        # For us alone to open: whoever could would have the power to keep us from starting.
        self._lock = os.open(f"{self._settings.state}/supervisor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        until = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    holder = os.pread(self._lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
                    sys.exit(f"cannot start: ncolony (pid {holder}) already supervises {self._settings.config}")
                time.sleep(0.01)
        with contextlib.suppress(OSError):  # on a full disk; only for people
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, b"%d\n" % os.getpid(), 0)
        self._shown = os.open(f"{self._settings.state}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(self._shown, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _begin(self) -> None:
        """The reactor runs: find out what there is, then what runs already, then make them agree."""
        reach("supervisor.locked")
        settings, reactor = self._settings, self._reactor
        limit = raise_descriptor_limit() if self._handover is None else self._handover.nofile
        self._surroundings = launch.Surroundings.present(limit)
        self._records = Records(reactor, settings.state, settings.pids, self._describe, self._problem)
        self._config = Directory(settings.config, is_ignored, settings.strict and os.geteuid() == 0)
        self._inbox = Inbox(reactor, settings.messages, settings.state, self._act, self._problem)
        self._requests = Requests(self._inbox.answer, self._records.write)
        own_log = OwnLog(f"{settings.state}/forwarding")
        self._attic = Attic(self._logs, settings.log_budget, self._is_log_wanted, self._log_removed)
        self._follower = Follower(
            reactor, self._logs, f"{settings.state}/forwarded", own_log, say, self._forwarded,
            self._file_trouble, self._lost_output, self._output_left,
        )  # fmt: skip
        self._follower.finish()
        self._chronicle = Chronicle(settings.state, self._logs, self._problem)
        fifos = self._handover.fifos if self._handover else {}
        self._hands = Hands(reactor, settings.state, self._logs, settings.log_budget, self._report, fifos)
        self._hands.welcome_sent = lambda: {"read": self._follower.offsets(), "linger": settings.linger}
        self._handle_signals()
        self._describe_ourselves()
        for directory in (f"{settings.state}/status", f"{settings.state}/answers", settings.pids):
            if directory is not None:
                sweep(directory)
        self._earlier = self._records.earlier()
        self._reported = set(self._earlier)
        self._unfinished = self._inbox.earlier()
        self._shutdowns = {name for name, answer in self._unfinished if answer.goal == _SHUTDOWN}
        self._hands.connect()
        self._guarded(self._scan_config)  # while the keeper starts
        self._watcher = Watcher(reactor, self._woken)
        if self._shutdowns:
            self.quit()  # an earlier supervisor was killed while it did
        _log.info("ncolony {version} supervises {config}", version=__version__, config=settings.config)
        reach("supervisor.begun")

    def _handle_signals(self) -> None:
        """Install our own, also for PID 1, whose default is to ignore; and become the reaper of what a keeper leaves.

        An instance whose keeper died becomes our child then: we reap it at once, and a new keeper learns its status.
        """
        become_subreaper()

        def on(number: int, call: Callable[[], None]) -> None:
            signal.signal(number, lambda *_: self._reactor.callFromThread(self._guarded, call))

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            on(number, self.quit)
        on(signal.SIGHUP, self._scan)
        on(signal.SIGUSR1, self._reopen_logs)
        on(signal.SIGCHLD, self._orphans.reap)
        on(signal.SIGUSR2, self.upgrade)
        upgrade.hear_signals()
        self._orphans.reap()

    def _describe_ourselves(self) -> None:
        settings = self._settings
        about = {
            "pid": os.getpid(), "version": __version__, "started": self._began,
            "problems": list(self._problems.values()),
            "config": os.path.abspath(settings.config), "messages": os.path.abspath(settings.messages),
            "state": settings.state, "logs": self._logs, "keeper": self._hands.pid,
        }  # fmt: skip
        try:
            write_whole(f"{settings.state}/supervisor.json", msgspec.json.encode(about))
            self._undescribed = False
        except OSError:
            self._undescribed = True

    # one turn: whatever comes in, the queue of events is worked off and orders go out

    def _guarded(self, call: Callable[..., None], *arguments: Any) -> None:
        """Call, then do what follows from it. Nothing that goes wrong with one process or file ends the loop."""
        try:
            call(*arguments)
        except Exception:  # noqa: BLE001
            _log.failure("cannot go on with one thing; the others are not concerned")
        self._drain_events()
        self._hands.flush()
        self._record_exits()
        self._set_wake_up()

    def _step(self, name: str, event: Event) -> None:
        known = self._known.get(name)
        if known is None or known.process is None:
            return
        before = known.process
        known.process, effects = lifecycle.step(before, event, self._reactor.seconds())
        self._live += (known.process.state in _LIVE) - (before.state in _LIVE)
        for effect in effects:
            self._perform(name, known, effect)
        if known.process is not None and known.process is not before:
            self._changed(name, known, before)

    def _perform(self, name: str, known: Known, effect: Effect) -> None:
        assert known.process is not None
        if isinstance(effect, Spawn):
            self._spawn(name, known, effect.number)
        elif isinstance(effect, Signal) and known.identity is not None:
            reach("signal.before")
            self._hands.signal(known.identity, effect.signal, effect.scope, wake=True)
        elif isinstance(effect, Forget):
            self._forget(name, known)

    def _spawn(self, name: str, known: Known, number: int) -> None:
        definition = known.definition
        identity = self._identities.new()
        known.identity, known.pid, known.started = identity, None, None
        if not self._hands.agreed:
            return  # first the keeper says what it holds: see _on_welcome
        try:
            if definition is None:
                raise launch.Impossible(known.problem or "there is no definition of it")
            order = launch.order(definition, self._surroundings, self._environment(name, identity, definition))
            policy = known.process.policy  # type: ignore[union-attr]
            memo = [definition.generation, definition.digest, msgspec.to_builtins(policy)]
            order |= {"name": name, "number": number, "memo": memo, "cgroup": self._settings.cgroup}
            log = plan(name, definition.config.log, order["cwd"], order["uid"], order["gid"])
            order |= _while_running(definition, policy) | {"follow": msgspec.to_builtins(log)}
            self._instances[identity] = (name, number)
            self._hands.start(identity, order)
        except launch.Impossible as impossible:
            self._refused(name, identity, number, str(impossible))
        except OSError as error:
            self._refused(name, identity, number, f"cannot prepare its output: {error.strerror}")

    def _environment(self, name: str, identity: str, definition: Definition) -> dict[str, str]:
        """What only we can tell an instance: who it is, and what its file says."""
        ours = {"NCOLONY_NAME": name, "NCOLONY_INSTANCE": identity}
        if len(definition.text) + len("NCOLONY_CONFIG=") < launch.LONGEST_STRING:
            return ours | {"NCOLONY_CONFIG": definition.text.decode()}
        path = f"{self._settings.state}/config/{identity}"
        owner = launch.find_owner(definition.config.uid, definition.config.gid)
        write_whole(path, definition.text, 0o600)
        if owner.uid is not None or owner.gid is not None:
            os.chown(path, -1 if owner.uid is None else owner.uid, -1 if owner.gid is None else owner.gid)
        return ours | {"NCOLONY_CONFIG_FILE": path}

    def _refused(self, name: str, identity: str, number: int, why: str) -> None:
        self._instances.pop(identity, None)
        self._remove_snapshot(identity)
        how = Exit(refused=why)
        self._events.append((name, lifecycle.Ended(number, how, empty=True, luck=random.random())))
        self._note_exit(name, self._known[name], identity, number, how, {"at": time.time()})

    def _changed(self, name: str, known: Known, before: Process) -> None:
        """Everything that others should see of a process that is not what it was."""
        process = known.process
        assert process is not None
        self._schedule(name, known)
        if process.state is not before.state:
            self._tell(name, known)
            self._watch_stop(name, known, process)
        self._records.changed(name, transient=process.state is State.STARTING)
        self._requests.judge(name, process)
        if self._quitting and process.state not in _LIVE:
            self._quit_if_done()

    def _schedule(self, name: str, known: Known) -> None:
        deadline = known.process.deadline if known.process is not None else None
        if deadline is not None and deadline != known.timed:
            known.timed = deadline
            heapq.heappush(self._deadlines, (deadline, name))

    def _tell(self, name: str, known: Known) -> None:
        process = known.process
        assert process is not None
        if self._quitting:
            return  # said once for all
        if process.state is State.RUNNING:
            _log.info("{name}: running, pid {pid}", name=name, pid=known.pid)
        elif process.state is State.BACKOFF and process.deadline is not None:
            wait = process.deadline - self._reactor.seconds()
            _log.warn("{name}: {reason}; next try in {wait:.3g} s", name=name, reason=process.reason, wait=wait)
        elif process.state in (State.STOPPED, State.EXITED):
            _log.info("{name}: {state}: {reason}", name=name, state=process.state.value, reason=process.reason)
        elif process.state is State.STOPPING or (process.state is State.STARTING and process.reason):
            _log.info("{name}: {state}: {reason}", name=name, state=process.state.value.lower(), reason=process.reason)

    def _watch_stop(self, name: str, known: Known, process: Process) -> None:
        """While a process is being stopped, find out now and then what that waits for."""
        known.holding = ()
        if process.state is not State.STOPPING:
            self._stopping.pop(name, None)
            return
        self._stopping[name] = None
        if self._asking is None:
            self._asking = self._reactor.callLater(_ASK_S, self._guarded, self._ask_what_holds)

    def _ask_what_holds(self) -> None:
        self._asking = None
        now = self._reactor.seconds()
        for name in self._stopping:
            known = self._known.get(name)
            if known is not None and known.process is not None and now - known.process.since >= _ASK_S / 2:
                self._hands.order({"do": "tree", "id": known.identity})
        if self._stopping:
            self._asking = self._reactor.callLater(_ASK_S, self._guarded, self._ask_what_holds)

    def _on_tree(self, message: dict[str, Any]) -> None:
        name, _ = self._instances.get(message["id"], ("", 0))
        known = self._known.get(name)
        if known is not None and known.identity == message["id"] and name in self._stopping:
            holding = tuple(message["members"])
            if holding != known.holding:
                known.holding = holding
                self._records.changed(name)

    def _set_wake_up(self) -> None:
        """One call is due at most: for the earliest deadline of all."""
        due = self._deadlines[0][0] if self._deadlines else None
        if self._wake_up is not None and self._wake_up.active():
            if due is not None and self._wake_up.getTime() <= due:
                return
            self._wake_up.cancel()
        if due is not None:
            self._wake_up = self._reactor.callLater(max(0.0, due - self._reactor.seconds()), self._guarded, self._tick)

    def _tick(self) -> None:
        now = self._reactor.seconds()
        while self._deadlines and self._deadlines[0][0] <= now:
            deadline, name = heapq.heappop(self._deadlines)
            known = self._known.get(name)
            if known is not None and known.timed == deadline:
                known.timed = None
                self._events.append((name, lifecycle.Tick()))

    # the config directory

    def _woken(self, directory: str, names: Names) -> None:
        if not self._quitting:
            look = self._look_config if directory == self._settings.config else self._look_messages
            self._guarded(look, names)

    def _scan(self) -> None:
        """The truth about both directories."""
        self._watcher.arm(self._settings.config)
        self._watcher.arm(self._settings.messages)
        if self._undescribed:
            self._describe_ourselves()
        self._records.retry()
        self._inbox.retry()
        self._look_config(None)
        self._look_messages(None)

    def _scan_periodically(self) -> None:
        if self._quitting:
            return
        self._guarded(self._scan)
        self._reactor.callLater(self._settings.frequency, self._scan_periodically)

    def _look_messages(self, names: Iterable[str] | None) -> None:
        if not self._adopted or self._quitting:
            return
        try:
            self._inbox.scan(names)
        except OSError as error:
            self._cannot_read(self._settings.messages, error)
        else:
            self._problem(self._settings.messages, "")

    def _look_config(self, names: Iterable[str] | None) -> None:
        if self._quitting:
            return
        self._scan_config(names)
        if self._adopted:
            self._apply_all()

    def _scan_config(self, names: Iterable[str] | None = None) -> None:
        """Read what changed. What it means for processes is applied later, once it is known what runs."""
        try:
            changed = self._config.scan() if names is None else self._config.look(names)
        except OSError as error:
            self._cannot_read(self._settings.config, error)
            return
        if self._problem(self._settings.config, ""):
            self._departing |= self._known.keys() - self._config.seen.keys()
        for name in in_order(changed):
            self._read(name, changed[name])
        if self._departing and (self._departure is None or not self._departure.active()):
            self._departure = self._reactor.callLater(
                _DEPARTURE_S, self._guarded, self._await_departure, len(self._departing)
            )

    def _await_departure(self, seen: int) -> None:
        """`rm -r` removes the files before the directory: while more of them go (there were `seen`), wait."""
        more = len(self._departing)
        if more > seen:
            self._departure = self._reactor.callLater(_DEPARTURE_S, self._guarded, self._await_departure, more)
            return
        self._depart()
        if self._adopted:
            self._apply_all()

    def _depart(self) -> None:
        """Take note of the removal of files, unless it was their directory that was removed."""
        departing, self._departing = self._departing, set()
        if not os.path.isdir(self._settings.config):
            return
        reach("removed.noticed")
        for name in departing:
            if (known := self._known.get(name)) is not None:
                known.definition = known.problem = None
                self._pending.add(name)

    def _cannot_read(self, directory: str, error: OSError) -> None:
        """A directory that vanished is not the removal of its processes: say so and wait for its return."""
        self._problem(directory, f"cannot read {directory}: {error.strerror}; what runs goes on")

    def _problem(self, what: str, problem: str) -> bool:
        """Say what is wrong with `what`, or "" that nothing is, where people look; True when that is new."""
        if self._problems.get(what, "") == problem:
            return False
        if problem:
            _log.error("{problem}", problem=problem)
            self._problems[what] = problem
        else:
            _log.info("no more: {problem}", problem=self._problems.pop(what))
        self._describe_ourselves()
        return True

    def _read(self, name: str, entry: Entry | None) -> None:
        """Take note of a file: a new definition, a problem beside the last good one, or its absence."""
        known = self._known.get(name)
        if entry is None:
            if known is not None:
                self._departing.add(name)
            return
        self._departing.discard(name)
        if known is None:
            known = self._known[name] = Known()
        shown = printable(name)
        if wrong := problem_with_name(name):
            found: Definition | Problem = Problem(shown, "", wrong)
        elif entry.data is None:
            found = Problem(shown, "", entry.why)
        else:
            found = define(shown, entry.data)
        if isinstance(found, Problem):
            if known.problem != str(found):
                known.problem = str(found)
                _log.error("{problem}", problem=known.problem)
        else:
            known.definition, known.problem = found, None
            for warning in found.warnings:
                _log.warn("{name}: {warning}", name=shown, warning=warning)
        self._pending.add(name)

    def _apply_all(self) -> list[str]:
        """Apply what was read; the names concerned."""
        names, self._pending = in_order(self._pending), set()
        for name in names:
            if (known := self._known.get(name)) is not None:
                self._apply(name, known)
        return names

    def _apply(self, name: str, known: Known) -> None:
        """Make the process agree with its definition."""
        self._records.changed(name)
        if known.definition is None and known.problem is not None:
            return  # not a process, or adopted, and then it goes on with what it was started from
        found = self._applied_from(known.definition)
        if known.process is None:
            if found is None:
                self._forget(name, known)
                return
            known.process = self._first(name, known, found)
            if known.applied is not None:
                self._schedule(name, known)
                return  # as an earlier supervisor left it
        event = change(known.applied, found)
        known.applied = found
        if event is not None:
            self._tell_settings(name, known, found.policy if found else known.process.policy)
            self._events.append((name, event))

    def _tell_settings(self, name: str, known: Known, policy: Policy) -> None:
        """Have what is live of the `log` and `stop` keys in force for the instance that runs."""
        if known.definition is not None and known.identity is not None:
            settings = _while_running(known.definition, policy)
            self._hands.order({"do": "log", "name": name, "id": known.identity, **settings})
            self._follower.resize(name, known.definition.config.log)

    def _first(self, name: str, known: Known, found: Applied) -> Process:
        """A process that this supervisor sees for the first time and that has no instance."""
        now = self._reactor.seconds()
        status = self._earlier.pop(name, None)
        if status is None:
            return Process(name=name, policy=found.policy, since=now)
        known.last_exit = status.last_exit
        if (process := remembered(name, found, _memory(status), now)) is not None:
            known.applied = found
            return process
        return Process(name=name, policy=found.policy, number=status.instance, since=now)

    def _applied_from(self, definition: Definition | None) -> Applied | None:
        if definition is None:
            return None
        policy = _policy(definition, self._settings.policy)
        return Applied(
            definition.generation,
            definition.digest,
            self._policies.setdefault(policy, policy),
            definition.config.enabled,
        )

    def _forget(self, name: str, known: Known) -> None:
        """Nothing is left of the process; a file with a problem keeps its status."""
        known.process = known.applied = known.identity = known.pid = None
        if known.definition is None and known.problem is None:
            del self._known[name]
            self._follower.forget(name)
            self._chronicle.history.forget(name)
            self._dropped.append(name)
        self._records.changed(name)
        self._requests.judge(name, None)
        if self._quitting:
            self._quit_if_done()

    # the keeper

    def _report(self, message: dict[str, Any]) -> None:
        self._guarded(getattr(self, "_on_" + message["is"], self._on_anything), message)

    def _on_anything(self, message: dict[str, Any]) -> None:
        """What a keeper of a later version says is not for us."""

    def _on_lost(self, message: dict[str, Any]) -> None:
        self._hands.rescue(self._instances.keys() - {known.identity for known in self._known.values() if known.pid})
        self._orphans.reap()
        if self._left:
            self._finish()
        else:
            self._hands.leaving = False  # it left something undone
            _log.error("the keeper is gone; starting another, which adopts what runs")
            if message.get("why"):
                self._problem("keeper", f"the keeper cannot start: {message['why']}")

    def _on_leaving(self, message: dict[str, Any]) -> None:
        """The keeper has nothing left to do; its end is announced by the connection's."""
        self._left = True

    def _on_welcome(self, message: dict[str, Any]) -> None:
        """Agree with the keeper about what runs."""
        told, self._told = self._told, []
        if self._hands.replace_keeper(message):
            return  # it comes again, in our version
        for one in message["held"]:
            self._follow(one["name"], one, is_new=False)
        for output in told:
            self._take_output(output)
        self._problem("keeper", self._hands.problem)
        self._orphans.reap()
        held = sorted(message["held"], key=lambda one: (one["name"], one["number"]))
        for one in held:
            self._hands.hold(one["id"])  # every pipe before the first pidfd
        for one in held:
            self._meet(one)
        present = {one["id"] for one in held}
        self._meet_unrecorded(message.get("vanished", ()), held)
        for name, known in list(self._known.items()):
            process = known.process
            if process is not None and process.state in _LIVE and known.identity not in present:
                self._events.append((name, lifecycle.Lost(process.number)))
        for identity in self._instances.keys() - present:
            del self._instances[identity]
        self._hands.sweep(present)
        self._hands.agreed = True
        self._signal_again()
        self._describe_ourselves()
        if not self._adopted:
            self._adopted = True
            self._begin_to_act(held)
        elif self._quitting:
            self._drain_events()
            self._quit_if_done()
        else:
            self._apply_all()

    def _begin_to_act(self, held: list[dict[str, Any]]) -> None:
        """It is known what runs: make it agree with what should, and carry on with what was asked for."""
        self._follower.catch_up({one["name"] for one in held if not one["empty"]})
        # The files first: what was removed meanwhile is not started again because its instance has ended.
        told, self._events = self._events, deque()
        if not self._quitting:
            self._apply_all()
        self._events += told
        for name in self._follower.names() - self._known.keys():
            self._follower.forget(name)
        with contextlib.suppress(OSError):
            self._chronicle.history.prune(self._known)
        if self._settings.config not in self._problems:
            self._attic.look()
        for name in [name for name in self._earlier if name not in self._known]:
            del self._earlier[name]
            self._records.changed(name)
        for name in self._reported:
            if name not in self._known or self._known[name].pid is None:
                self._records.pid(name, None)
        self._resume_requests()
        if self._quitting:
            self._drain_events()
            self._quitting = False
            self.quit()
        self._reactor.callLater(0, self._scan_periodically)

    def _resume_requests(self) -> None:
        """What an earlier supervisor accepted is carried on with, and answered."""
        self._drain_events()
        handed = self._handover.message if self._handover is not None else None
        if self._handover is not None:
            _log.info("upgraded from {before} to {now}", before=self._handover.version, now=__version__)
        for file_name, answer in self._unfinished:
            if file_name == handed:
                self._inbox.answer(file_name, msgspec.structs.replace(answer, state="done"))
            elif answer.goal in tuple(Goal):
                self._resume_request(file_name, answer)
            elif answer.goal == _SHUTDOWN or os.path.exists(f"{self._settings.messages}/{file_name}"):
                continue  # is being done, or will be done again
            else:
                why = "the supervisor was replaced before it was done; the status says what became of it"
                self._inbox.answer(file_name, msgspec.structs.replace(answer, state="failed", why=why))
        self._unfinished = []

    def _resume_request(self, file_name: str, answer: Answer) -> None:
        self._requests.resume(file_name, answer)
        for name, since in answer.since.items():
            known = self._known.get(name)
            process = known.process if known is not None else None
            if process is not None and process.number <= since and process.state not in (State.STOPPING, State.STOPPED):
                # The order did not survive its giver.
                self._events.append((name, lifecycle.Restart() if answer.goal == Goal.UP.value else lifecycle.Stop()))
        self._drain_events()
        for name in answer.since:
            known = self._known.get(name)
            self._requests.judge(name, known.process if known is not None else None)

    def _meet(self, one: dict[str, Any]) -> None:
        """An instance that the keeper holds: ours already, or to be adopted."""
        identity, name, number = one["id"], one["name"], one["number"]
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = Known()
        ended = one["end"] if not one["alive"] else None
        if identity not in self._instances:
            self._instances[identity] = (name, number)
            if ended is not None and ended.get("ordered") and one["empty"]:
                # The whole colony was ended, and begins anew with us.
                self._note_exit(name, known, identity, number, _exit_in(ended), {**one, **ended}, again=True)
                self._done_with(identity)
                self._pending.add(name)
                return
            gone = self._adopted and known.process is None and known.definition is None
            if ended is not None and one["empty"] and gone:
                # It was gone already; the keeper that should have forgotten it was killed.
                self._note_exit(name, known, identity, number, _exit_in(ended), {**one, **ended}, again=True)
                self._done_with(identity)
                if known.problem is None:
                    del self._known[name]
                return
            if known.process is None or known.process.number < number:
                self._adopt(name, known, one)
        if one["alive"]:
            self._hands.meet(identity, one["pid"], one.get("began"), old=True)
        if known.identity == identity and one["alive"]:
            self._on_started({"id": identity, "pid": one["pid"], "at": one["started"]})
            generation, digest, _ = one["memo"]
            applied = known.applied
            if applied is not None and applied.generation == generation and applied.digest != digest:
                # Live keys have changed since it was started, which a keeper that was started later does not know.
                self._tell_settings(name, known, applied.policy)
        if ended is not None:
            self._on_exited({**one, "again": True})
        if known.identity == identity and not self._was_handed(name, number):
            self._events.append((name, lifecycle.Resumed(number)))

    def _was_handed(self, name: str, number: int) -> bool:
        """Whether this instance was being stopped when we were executed in the place of an earlier version."""
        return self._handover is not None and self._handover.stopping.get(name, (0,))[0] == number

    def _meet_unrecorded(self, vanished: Iterable[list[Any]], held: list[dict[str, Any]]) -> None:
        """An instance that ran and ended without that its keeper, killed, could even write down its pid."""
        pids = {one["pid"] for one in held} | {known.pid for known in self._known.values() if known.pid is not None}
        for identity, intended in vanished:
            if identity in self._instances and (found := self._orphans.end_of_unrecorded(intended, pids)):
                pid, end = found
                name = self._instances[identity][0]
                self._known[name].pid = pid
                lived = max(0.0, time.monotonic() - intended)
                end |= {"lived": lived, "at": time.time()}
                self._on_exited({"id": identity, "end": end, "empty": True})

    def _adopt(self, name: str, known: Known, one: dict[str, Any]) -> None:
        former = known.process
        generation, digest, policy = one["memo"]
        policy = msgspec.convert(policy, Policy)
        memory = None
        if (status := self._earlier.pop(name, None)) is not None:
            known.last_exit, memory = status.last_exit, _memory(status)
            if status.instance == one["number"] and status.generation:
                # What was applied last: the instance may be on its way out because of it.
                generation, digest = status.generation, status.digest
        found = self._applied_from(known.definition)
        if found is None or found.digest != digest:
            found = Applied(generation, digest, policy, True)
        known.applied, known.identity = found, one["id"]
        now = self._reactor.seconds()
        known.process, again = adopted(name, one["number"], one["alive"], found, memory, now)
        if self._was_handed(name, one["number"]) and self._handover is not None:
            # The stop goes on where it was, since nothing that was sent was lost.
            _, rung, left = self._handover.stopping[name]
            reason = memory.reason if memory else ""
            known.process = msgspec.structs.replace(
                known.process, state=State.STOPPING, rung=rung, deadline=now + left, reason=reason
            )
            self._schedule(name, known)
            self._watch_stop(name, known, known.process)
        else:
            self._events += [(name, event) for event in again]
        self._live += former is None or former.state not in _LIVE
        self._pending.add(name)
        _log.info("{name}: adopted, pid {pid}", name=name, pid=one["pid"])

    def _note_orphan(self, pid: int, end: dict[str, Any]) -> None:
        """An instance ended while it had no keeper. On disk it is at once, where the next keeper looks for it."""
        known = self._known.get(self._by_pid.get(pid, ""))
        if known is None or known.pid != pid or known.started is None:
            return
        now = time.time()
        line = {"step": "exit", **end, "lived": max(0.0, now - known.started), "at": now}
        with contextlib.suppress(OSError):
            journal = os.open(f"{self._settings.state}/instances/{known.identity}", os.O_WRONLY | os.O_APPEND)
            try:
                os.write(journal, msgspec.json.encode(line) + b"\n")
            finally:
                os.close(journal)

    def _on_started(self, message: dict[str, Any]) -> None:
        name, number = self._instances.get(message["id"], ("", 0))
        known = self._known.get(name)
        if known is None or known.identity != message["id"]:
            return
        reach("started.told")
        if "follow" in message:
            known.dropped = 0
            known.troubles.pop(_DROPPED, None)
            self._follow(name, message)
        self._hands.meet(message["id"], message["pid"], message.get("began"), old=False)
        known.pid = message["pid"]
        self._by_pid[message["pid"]] = name
        known.started = time.time() - (time.monotonic() - message["at"])
        self._pid_file(name, known, known.pid)
        self._events.append((name, lifecycle.Started(number)))

    def _pid_file(self, name: str, known: Known, pid: int | None) -> None:
        before = self._records.trouble(name)
        if (trouble := self._records.pid(name, pid)) and not before:
            _log.error("{trouble}", trouble=trouble)

    def _on_refused(self, message: dict[str, Any]) -> None:
        identity = message["id"]
        name, number = self._instances.get(identity, ("", 0))
        self._hands.release(identity)
        if name in self._known:
            self._refused(name, identity, number, message["why"])

    def _on_exited(self, message: dict[str, Any]) -> None:
        identity, end = message["id"], message["end"]
        reach("exited.told")
        if end.get("was") and ("cpu" not in end or end.get("unknown")):
            # The keeper was not its parent; we were, for as long as there was no keeper.
            self._orphans.reap()
            if (seen := self._orphans.end_of(*end["was"])) is not None:
                end = {**end, **seen}
        name, number = self._instances.get(identity, ("", 0))
        known = self._known.get(name)
        if known is not None:
            how = _exit_in(end)
            self._note_exit(name, known, identity, number, how, {**message, **end}, message.get("again", False))
            if known.identity == identity:
                self._by_pid.pop(known.pid or 0, None)
                known.pid = None
                self._pid_file(name, known, None)
                self._events.append((name, lifecycle.Ended(number, how, message["empty"], random.random())))
        if message["empty"]:
            self._done_with(identity)

    def _on_emptied(self, message: dict[str, Any]) -> None:
        name, number = self._instances.get(message["id"], ("", 0))
        self._events.append((name, lifecycle.Emptied(number)))
        self._done_with(message["id"])

    def _done_with(self, identity: str) -> None:
        self._instances.pop(identity, None)
        self._hands.release(identity)
        self._remove_snapshot(identity)
        self._over.append(identity)

    def _remove_snapshot(self, identity: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(f"{self._settings.state}/config/{identity}")

    def _note_exit(
        self, name: str, known: Known, identity: str, number: int, how: Exit, about: dict[str, Any], again: bool = False
    ) -> None:
        """Note how an instance ended, in its status and, after the orders of this turn, in its history."""
        last = LastExit(
            code=how.code, signal=how.signal_name or None, at=about["at"], lived=round(how.lived, 3), text=str(how),
            core=how.core, oom=how.out_of_memory, cpu=about.get("cpu"), rss_kb=about.get("rss_kb"),
        )  # fmt: skip
        if known.identity == identity or known.process is None:
            known.last_exit = last
        stopped = known.process is not None and known.process.state is State.STOPPING and known.identity == identity
        ran = not how.refused
        pid = known.pid or about.get("pid") or about.get("was", [0])[0]
        record = Record(
            id=identity, instance=number, pid=pid if ran else None,
            started=about["at"] - how.lived if ran else None, at=last.at, lived=last.lived, code=last.code,
            signal=last.signal, core=last.core, oom=last.oom, cpu=last.cpu, rss_kb=last.rss_kb, text=last.text,
            reason=known.process.reason if stopped and known.process else "",
        )  # fmt: skip
        since = {"since": 0} | {key: about[key] for key in ("since", "since_stderr") if key in about}
        self._chronicle.note(name, record, since if ran else None, again)

    def _record_exits(self, last: bool = False) -> None:
        """Write down how instances ended; only then, or at our own end, may the keeper forget them."""
        self._chronicle.write()
        if not (self._over or self._dropped) or not self._hands.connected:
            return
        unwritten = set() if last else self._chronicle.unwritten()
        for identity in self._over:
            if identity not in unwritten:
                self._hands.forget(identity)
        for name in self._dropped:
            self._hands.order({"do": "drop", "name": name})
        self._over, self._dropped = [identity for identity in self._over if identity in unwritten], []
        self._hands.flush()

    def _on_trouble(self, message: dict[str, Any]) -> None:
        healed = f"its output is written again; {message['dropped']} bytes of it were dropped"
        self._trouble(message["name"], message["name"], message["why"], healed)

    def _trouble(self, key: str, what: str, why: str, healed: str) -> None:
        """Show what is wrong with a stream of output, or with what it goes to, as long as it is."""
        name = key.partition("/")[0]
        known = self._known.get(name)
        if known is not None and known.troubles.get(what, "") != why:
            known.troubles[what] = why
            if not why:
                del known.troubles[what]
            _log.error("{name}: {why}", name=name, why=why or healed)
            self._records.changed(name)

    # output

    def _follow(self, name: str, about: dict[str, Any], is_new: bool = True) -> None:
        """Treat the output of an instance as its definition asked for when it was started."""
        if about.get("follow"):  # a keeper of an earlier version does not know
            self._follower.follow(name, msgspec.convert(about["follow"], Plan), about, is_new)

    def _on_output(self, message: dict[str, Any]) -> None:
        if self._hands.agreed:
            self._take_output(message)
        else:
            self._told.append(message)

    def _take_output(self, message: dict[str, Any]) -> None:
        self._follower.output(message["name"], message["from"], message["to"], message["last"])
        name = message["name"].partition("/")[0]
        if name not in self._known:
            self._follower.forget(name)  # once that is forwarded

    def _forwarded(self, key: str, offset: int) -> None:
        self._hands.order({"do": "read", "name": key, "to": offset})
        self._hands.flush()

    def _file_trouble(self, key: str, why: str) -> None:
        self._trouble(key, f"{key} file", why, "its file is written again")

    def _lost_output(self, key: str, count: int) -> None:
        """Output was removed before it was forwarded."""
        name = key.partition("/")[0]
        _log.warn("{name}: {count} bytes of its output were dropped", name=name, count=count)
        if (known := self._known.get(name)) is not None:
            known.dropped += count
            known.troubles[_DROPPED] = f"{known.dropped} bytes of its output were dropped"
            self._records.changed(name)

    def _output_left(self, name: str) -> None:
        """All output of a process that was removed is where it was to go; its last lines are noted after this turn."""
        self._reactor.callLater(0, self._guarded, self._attic.add, name)

    def _is_log_wanted(self, name: str) -> bool:
        return name in self._known or self._follower.holds(name)

    def _log_removed(self, name: str) -> None:
        """The log of a process that was removed went for want of room."""
        _log.info("{name}: its log was removed", name=name)
        self._follower.forget_offsets(name)

    def _reopen_logs(self) -> None:
        self._hands.order({"do": "reopen"})
        self._follower.reopen()

    # requests

    def _act(self, file_name: str, message: Message) -> None:
        """Do what a message asks for, and answer it; whatever goes wrong, the next message has its turn."""
        try:
            self._act_on(file_name, message)
        except Exception as error:  # noqa: BLE001
            _log.failure("cannot do what message {file_name} asks", file_name=file_name)
            self._inbox.answer(file_name, Answer(accepted=True, state="failed", why=f"cannot do it: {error}"))

    def _act_on(self, file_name: str, message: Message) -> None:
        if isinstance(message, messages.Upgrade):
            self.upgrade(file_name)
            return
        if isinstance(message, messages.Shutdown):
            self._inbox.answer(file_name, Answer(accepted=True, state="accepted", goal=_SHUTDOWN))
            self._shutdowns.add(file_name)
            self._reactor.callLater(0, self._guarded, self.quit)
            return
        if isinstance(message, messages.Scan):
            names = [printable(name) for name in self._catch_up()]
            self._inbox.answer(file_name, Answer(accepted=True, state="done", names=tuple(names)))
            return
        self._catch_up()
        if isinstance(message, messages.RestartAll):
            names = [name for name, known in self._known.items() if _should_run(known)]
            self._ask(file_name, names, Goal.UP, lifecycle.Restart())
        elif isinstance(message, messages.RestartGroup):
            names = [name for name, known in self._known.items() if message.group in _groups(known)]
            if names:
                names = [name for name in names if _should_run(self._known[name])]
                self._ask(file_name, names, Goal.UP, lifecycle.Restart())
            else:
                self._fail(file_name, f"no process is in group {message.group!r}")
        else:
            self._act_on_one(file_name, message)

    def _catch_up(self) -> list[str]:
        """Apply what was written before a message before the message; the names concerned."""
        self._scan_config()
        self._depart()
        names = self._apply_all()
        self._drain_events()
        return names

    def _drain_events(self) -> None:
        while self._events:
            name, event = self._events.popleft()
            try:
                self._step(name, event)
            except Exception:  # noqa: BLE001
                _log.failure("cannot go on with {name}; the others are not concerned", name=name)

    def _act_on_one(
        self, file_name: str, message: messages.Restart | messages.Start | messages.Stop | messages.Signal
    ) -> None:
        name = message.name
        known = self._known.get(name)
        if known is None:
            self._fail(file_name, f"there is no process {name!r}")
        elif known.process is None:
            self._fail(file_name, known.problem or f"there is no process {name!r}")
        elif isinstance(message, messages.Signal):
            self._send_signal(file_name, known, message)
        elif isinstance(message, messages.Stop):
            self._ask(file_name, [name], Goal.DOWN, lifecycle.Stop())
        elif known.definition is not None and not known.definition.config.enabled:
            self._fail(file_name, f"{name} is disabled")
        else:
            event = lifecycle.Restart() if isinstance(message, messages.Restart) else lifecycle.Start()
            self._ask(file_name, [name], Goal.UP, event)

    def _send_signal(self, file_name: str, known: Known, message: messages.Signal) -> None:
        number = signal_number(message.signal)
        if known.identity is None or known.pid is None or number is None:
            self._fail(file_name, f"{message.name} does not run")
            return
        self._signals[file_name] = (known.identity, number, message)
        self._hands.signal(known.identity, number, message.scope, wake=False, ack=file_name)
        self._inbox.answer(file_name, Answer(accepted=True, state="accepted", names=(printable(message.name),)))

    def _on_signalled(self, message: dict[str, Any]) -> None:
        if (sent := self._signals.pop(message["ack"], None)) is None:
            return
        name = printable(sent[2].name)
        if message["done"]:
            self._inbox.answer(message["ack"], Answer(accepted=True, state="done", names=(name,)))
        else:
            self._fail(message["ack"], f"{name} does not run any more")

    def _signal_again(self) -> None:
        """What was to be sent by a keeper that died is sent by the next, if the instance is the same."""
        for file_name, (identity, number, message) in self._signals.items():
            self._hands.signal(identity, number, message.scope, wake=False, ack=file_name)

    def _fail(self, file_name: str, why: str) -> None:
        _log.error("message {file_name}: {why}", file_name=file_name, why=why)
        self._inbox.answer(file_name, Answer(accepted=False, state="failed", why=why))

    def _ask(self, file_name: str, names: list[str], goal: Goal, event: Event) -> None:
        """Send the event to each process, and answer when all have got there."""
        since = {}
        for name in names:
            process = self._known[name].process
            assert process is not None
            satisfied = isinstance(event, lifecycle.Start) and process.state in (State.STARTING, State.RUNNING)
            since[name] = process.number - 1 if satisfied else process.number
            self._events.append((name, event))
        only = self._known[names[0]].applied if len(names) == 1 else None
        self._drain_events()
        if only:
            self._records.write(names[0])  # what is wanted now survives us, before anybody is told so
        self._requests.accept(file_name, goal, since, only.generation if only else "")
        for name in names:
            known = self._known.get(name)
            self._requests.judge(name, known.process if known is not None else None)

    # what others see

    def _describe(self, name: str) -> Status | None:
        known = self._known.get(name)
        if known is None:
            return None
        process, applied, definition = known.process, known.applied, known.definition
        shown = name if problem_with_name(name) is None else printable(name)
        wall, now = time.time(), self._reactor.seconds()
        notes = (*known.troubles.values(), *self._records.trouble(name))
        if process is None:
            return Status(
                name=shown, state="FATAL", wanted="up", pid=None, instance=0, since=wall, started=None, restarts=0,
                next_try=None, reason=known.problem or "", problem=known.problem, warnings=notes, group=(),
                enabled=True, generation="", digest="", last_exit=None,
            )  # fmt: skip
        backoff = process.state is State.BACKOFF and process.deadline is not None
        wanted = Wanted.UP if self._quitting and name in self._were_up else process.wanted
        return Status(
            name=shown,
            state=process.state.value,
            wanted=wanted.value,
            pid=known.pid,
            instance=process.number,
            since=wall - (now - process.since),
            started=known.started if known.pid is not None else None,
            restarts=process.restarts,
            next_try=wall + (process.deadline or 0.0) - now if backoff else None,
            reason=process.reason,
            problem=known.problem,
            warnings=(definition.warnings if definition else ()) + notes,
            group=_groups(known),
            enabled=process.enabled,
            generation=applied.generation if applied else "",
            digest=applied.digest if applied else "",
            last_exit=known.last_exit,
            holding=known.holding,
            pending="" if process.pending is None else process.pending.action.value,
        )

    # another version of ourselves

    def upgrade(self, file_name: str | None = None) -> None:
        """Become the installed version, in place, if it can be started; `file_name` is the message that asks for it."""
        why = ""
        if self._upgrading:
            why = "an upgrade is under way"
        elif self._quitting or not self._adopted:
            why = "the supervisor is starting or stopping"
        else:
            try:
                pid = upgrade.try_out(
                    self._reactor, self._orphans, lambda why: self._guarded(self._tried_out, file_name, why)
                )
                self._trial = file_name, pid
            except OSError as error:
                why = f"cannot run {sys.executable}: {error.strerror}"
        if why:
            self._stay(file_name, why)
            return
        self._upgrading = True
        _log.info("upgrading: trying out the installed version")
        if file_name is not None:
            self._inbox.answer(file_name, Answer(accepted=True, state="accepted"))

    def _tried_out(self, file_name: str | None, why: str) -> None:
        self._upgrading, self._trial = False, None
        if why or self._quitting:
            self._stay(file_name, why or "the supervisor is stopping")
            return
        reach("upgrade.tried")
        upgrade.hold_off_signals()
        # What came before that stands in the same queue, and may be the wish to end.
        self._reactor.callFromThread(self._guarded, self._become, file_name)

    def _become(self, file_name: str | None) -> None:
        """Execute the installed version, if nobody has asked for the end meanwhile."""
        if self._quitting:
            self._stay(file_name, "the supervisor is stopping")
            return
        self._drain_events()
        self._hands.flush()
        self._record_exits()
        self._records.flush()
        _log.info("upgrading")
        now, stopping = self._reactor.seconds(), {}
        for name in self._stopping:
            process = self._known[name].process
            if process is not None and process.deadline is not None and process.pending is None:
                stopping[name] = (process.number, process.rung, max(0.0, process.deadline - now))
        nofile = self._surroundings.nofile
        self._have_patience(upgrade.PATIENCE_S)
        handover = upgrade.Handover(
            self._lock, self._shown, self._hands.fifos, __version__, nofile, file_name, stopping
        )  # fmt: skip
        try:
            upgrade.execute(handover)
        except OSError as error:
            self._stay(file_name, f"cannot execute {sys.executable}: {error.strerror}")

    def _have_patience(self, least: float = 0.0) -> None:
        """Tell the keeper how long to wait for a supervisor."""
        if (linger := self._settings.linger) is not None:
            self._hands.order({"do": "patience", "seconds": max(linger, least)})
            self._hands.flush()

    def _stay(self, file_name: str | None, why: str) -> None:
        upgrade.hear_signals()
        self._have_patience()
        _log.error("cannot upgrade: {why}; {version} goes on", why=why, version=__version__)
        if file_name is not None:
            self._inbox.answer(file_name, Answer(accepted=True, state="failed", why=f"cannot upgrade: {why}"))

    # the end

    def quit(self) -> None:
        """Stop every process and then ourselves; asked again, skip to KILL."""
        again = self._quitting
        if not again:
            _log.info("stopping every process: {live} run", live=self._live)
            self._records.slow_down()
            self._inbox.closed = True
            self._were_up = {
                name for name, known in self._known.items() if known.process and known.process.wanted is Wanted.UP
            }
        self._quitting = True
        if not self._adopted:
            if again:
                self._stop_without_keeper()
            else:
                self._reactor.callLater(_KEEPER_WAIT_S, self._stop_without_keeper)
            return  # first find out what runs: see _on_welcome
        if again and not self._hands.connected and not self._live:
            self._finish()  # no keeper can be had that would tell us more
            return
        for name, known in self._known.items():
            if known.process is not None:
                if again:
                    self._events.append((name, lifecycle.Kill()))
                elif known.process.wanted is not Wanted.GONE:
                    self._events.append((name, lifecycle.Stop("the colony was stopped")))
        self._drain_events()
        self._quit_if_done()

    def _stop_without_keeper(self) -> None:
        """There is no keeper that would tell what runs, and who asked for the end has waited long enough."""
        if not self._adopted:
            sys.stderr.write("cannot stop what runs: the keeper does not answer\n")
            self._give_up()

    def _quit_if_done(self) -> None:
        if self._live:
            return
        if self._hands.agreed and not self._hands.leaving:
            self._follower.when_idle(self._let_the_keeper_go)

    def _let_the_keeper_go(self) -> None:
        self._record_exits(last=True)
        self._hands.leave()

    def _finish(self) -> None:
        """Nothing runs and the keeper has gone: so do we, with a clean exit."""
        self._hands.leaving = True
        self._records.flush()
        if self._trial is not None:
            kill(self._trial[1])
            self._stay(self._trial[0], "the supervisor is stopping")
        for file_name in self._shutdowns:
            self._inbox.answer(file_name, Answer(accepted=True, state="done"))
            self._inbox.remove(file_name)
        self._inbox.obviate(messages.Shutdown)
        with contextlib.suppress(OSError):
            os.unlink(f"{self._settings.state}/supervisor.json")
        _log.info("stopped")
        for waiting in self._stopped:
            waiting.callback(None)
        self._stopped = []
        if self.running:
            with contextlib.suppress(Exception):
                self._reactor.stop()

    def stopService(self) -> Deferred[None] | None:
        """Part of the reactor's end: wait until everything has stopped."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._failed or self._hands.leaving:
            return None
        waiting: Deferred[None] = Deferred()
        self._stopped.append(waiting)
        self._guarded(self.quit)
        return waiting


def _exit_from(record: LastExit) -> Exit:
    number = None if record.signal is None else signal_number(record.signal)
    return Exit(code=record.code, signal=number, lived=record.lived, signal_name=record.signal or "")


def _exit_in(end: dict[str, Any]) -> Exit:
    """What the keeper says of an end."""
    number = end.get("signal")
    return Exit(
        code=end.get("code"), signal=number, lived=end["lived"], core=end.get("core", False),
        signal_name="" if number is None else signal_name(number), out_of_memory=end.get("oom", False),
    )  # fmt: skip


def _memory(status: Status) -> Memory:
    """What an earlier supervisor wrote about a process."""
    wait = (status.next_try or 0.0) - time.time()
    last = None if status.last_exit is None else _exit_from(status.last_exit)
    return Memory(
        status.state, status.generation, status.wanted, status.instance, status.reason, wait, last, status.restarts,
        status.pending,
    )  # fmt: skip


def _while_running(definition: Definition, policy: Policy) -> dict[str, Any]:
    """What the keeper must know of an instance while it runs: its log, and how to stop it without a supervisor."""
    log = definition.config.log
    has_file = log.stdout is not None or isinstance(log.stderr, str)
    return {
        "log": {
            # To be told of output, whatever for.
            "forward": log.forward or has_file or log.compress,
            "max_bytes": log.most_bytes,
            "keep": log.keep,
            "overflow": log.overflow,
            "split": log.is_split,
        },
        "stop": [[int(number), seconds] for number, seconds in policy.stop],
        "scope": policy.scope,
    }


def _should_run(known: Known) -> bool:
    return known.process is not None and known.process.wanted is Wanted.UP


def _groups(known: Known) -> tuple[str, ...]:
    return known.definition.config.groups if known.definition is not None else ()


def _policy(definition: Definition, defaults: Policy) -> Policy:
    """What governs the process: its own keys, else the supervisor's options."""
    config = definition.config
    kill_time = config.kill_time if config.kill_time is not None else defaults.stop[0][1]
    steps = config.stop if config.stop is not None else (("TERM", kill_time),)
    least = defaults.min_delay if config.min_restart_delay is None else config.min_restart_delay
    most = defaults.max_delay if config.max_restart_delay is None else config.max_restart_delay
    return Policy(
        threshold=defaults.threshold if config.threshold is None else config.threshold,
        min_delay=min(least, most) if config.min_restart_delay is None else least,
        max_delay=max(least, most) if config.max_restart_delay is None else most,
        jitter=config.jitter,
        restart=config.restart,
        success_codes=config.success_codes,
        stop=tuple((signal_number(name) or signal.SIGTERM, seconds) for name, seconds in steps),
        scope=config.stop_scope,
    )
