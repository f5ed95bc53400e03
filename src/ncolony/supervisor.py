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
from .decide.reconcile import Applied, Memory, change, in_order, remembered
from .decide.restart import Exit, Policy
from .model import message as messages
from .model.config import Definition, Problem, define, signal_name, signal_number
from .model.message import Answer, Message
from .model.names import is_ignored, printable, problem_with_name
from .model.status import LastExit, Status
from .system import launch
from .system.files import Directory, Entry, write_whole
from .system.follow import Follower, escaped
from .system.hands import Hands, Identities
from .system.inbox import Inbox, Requests
from .system.limits import become_subreaper, raise_descriptor_limit
from .system.places import UnsafeState, make_private
from .system.records import Records
from .system.wake import Names, Watcher

_log = Logger(namespace="ncolony")
_output = Logger(namespace="ncolony.output")
# A new supervisor waits this long for the lock: a forked child of the old one may hold it until its exec.
_LOCK_WAIT_S = 2.0
# From the last removal of a config file until it is applied.
_DEPARTURE_S = 0.03
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
    strict: bool
    policy: Policy


class Known:
    """What the supervisor knows of one name."""

    __slots__ = (
        "applied", "definition", "identity", "last_exit", "pid", "problem", "process", "started", "timed", "trouble",
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
        self.trouble = ""  # with its log or PID file


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
        self._problems: list[str] = []
        self._lock = -1
        self._failed = False
        self._earlier: dict[str, Status] = {}
        self._live = 0  # how many processes have an instance, or are about to
        self._departing: set[str] = set()  # names whose file is gone, which is not applied yet
        self._departure: Any = None
        self._pending: set[str] = set()  # names whose file was read and not applied yet
        self._were_up: set[str] = set()  # names that run again when a supervisor starts after a clean end

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
            for name in ("status", "answers", "rejected", "fifo", "forwarded", "config"):
                os.makedirs(f"{settings.state}/{name}", mode=0o711 if name == "config" else 0o755, exist_ok=True)
            self._logs = os.path.abspath(settings.logs or f"{settings.state}/logs")
            os.makedirs(self._logs, exist_ok=True)
            self._take_lock()
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
        path = f"{self._settings.state}/lock"
        self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
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
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, b"%d\n" % os.getpid(), 0)

    def _begin(self) -> None:
        """The reactor runs: find out what there is, then what runs already, then make them agree."""
        settings, reactor = self._settings, self._reactor
        self._surroundings = launch.Surroundings.present(raise_descriptor_limit())
        self._records = Records(reactor, settings.state, settings.pids, self._describe)
        self._config = Directory(settings.config, is_ignored, settings.strict and os.geteuid() == 0)
        self._inbox = Inbox(reactor, settings.messages, settings.state, self._act)
        self._requests = Requests(self._inbox.answer, self._records.write)
        self._follower = Follower(reactor, self._logs, f"{settings.state}/forwarded", self._say, self._forwarded)
        self._hands = Hands(reactor, settings.state, self._logs, settings.log_budget, self._report)
        self._hands.welcome_sent = lambda: {"read": self._follower.offsets()}
        self._handle_signals()
        self._describe_ourselves()
        self._earlier = self._records.earlier()
        self._inbox.expire_earlier()
        self._hands.connect()
        self._guarded(self._scan_config)  # while the keeper starts
        self._watcher = Watcher(reactor, self._woken)
        _log.info("ncolony {version} supervises {config}", version=__version__, config=settings.config)

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
        on(signal.SIGUSR1, lambda: self._hands.order({"do": "reopen"}))
        on(signal.SIGCHLD, self._reap)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        self._reap()

    def _reap(self) -> None:
        """Reap the keeper, and whatever the kernel gave us: as PID 1, every orphan."""
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    def _describe_ourselves(self) -> None:
        settings = self._settings
        about = {
            "pid": os.getpid(), "version": __version__, "started": time.time(), "problems": self._problems,
            "config": os.path.abspath(settings.config), "messages": os.path.abspath(settings.messages),
            "state": settings.state, "logs": self._logs,
        }  # fmt: skip
        with contextlib.suppress(OSError):
            write_whole(f"{settings.state}/supervisor.json", msgspec.json.encode(about))

    # one turn: whatever comes in, the queue of events is worked off and orders go out

    def _guarded(self, call: Callable[..., None], *arguments: Any) -> None:
        """Call, then do what follows from it. Nothing that goes wrong with one process or file ends the loop."""
        try:
            call(*arguments)
        except Exception:  # noqa: BLE001
            _log.failure("cannot go on with one thing; the others are not concerned")
        self._drain_events()
        self._hands.flush()
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
            self._hands.signal(known.identity, effect.signal, effect.scope, wake=True)
        elif isinstance(effect, Forget):
            self._forget(name, known)

    def _spawn(self, name: str, known: Known, number: int) -> None:
        definition = known.definition
        identity = self._identities.new()
        known.identity, known.pid = identity, None
        if not self._hands.agreed:
            return  # first the keeper says what it holds: see _on_welcome
        try:
            if definition is None:
                raise launch.Impossible(known.problem or "there is no definition of it")
            order = launch.order(definition, self._surroundings, self._environment(name, identity, definition))
            log = msgspec.structs.asdict(definition.config.log)
            memo = [definition.generation, definition.digest, msgspec.to_builtins(known.process.policy)]  # type: ignore[union-attr]
            order |= {"name": name, "number": number, "log": log, "memo": memo}
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
        self._note_exit(self._known[name], how, time.time())

    def _changed(self, name: str, known: Known, before: Process) -> None:
        """Everything that others should see of a process that is not what it was."""
        process = known.process
        assert process is not None
        self._schedule(name, known)
        if process.state is not before.state:
            self._tell(name, known)
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
            self._missing(self._settings.messages, error)
        else:
            self._found(self._settings.messages)

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
            self._missing(self._settings.config, error)
            return
        self._found(self._settings.config)
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
        for name in departing:
            if (known := self._known.get(name)) is not None:
                known.definition = known.problem = None
                self._pending.add(name)

    def _missing(self, directory: str, error: OSError) -> None:
        """A directory that vanished is not the removal of its processes: say so and wait for its return."""
        problem = f"cannot read {directory}: {error.strerror}"
        if problem not in self._problems:
            _log.error("{problem}; what runs goes on", problem=problem)
            self._problems.append(problem)
            self._describe_ourselves()

    def _found(self, directory: str) -> None:
        healed = [problem for problem in self._problems if not problem.startswith(f"cannot read {directory}: ")]
        if healed != self._problems:
            _log.info("{directory} is back", directory=directory)
            self._problems = healed
            self._describe_ourselves()
            if directory == self._settings.config:
                self._departing |= self._known.keys() - self._config.seen.keys()

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
            if known.definition is not None and known.identity is not None:
                sizes = msgspec.structs.asdict(known.definition.config.log)
                self._hands.order({"do": "log", "name": name, "log": sizes})
            self._events.append((name, event))

    def _first(self, name: str, known: Known, found: Applied) -> Process:
        """A process that this supervisor sees for the first time and that has no instance."""
        now = self._reactor.seconds()
        status = self._earlier.pop(name, None)
        if status is None:
            return Process(name=name, policy=found.policy, since=now)
        known.last_exit = status.last_exit
        wait = (status.next_try or 0.0) - time.time()
        last = None if status.last_exit is None else _exit_from(status.last_exit)
        memory = Memory(status.state, status.generation, status.wanted, status.instance, status.reason, wait, last)
        if (process := remembered(name, found, memory, now)) is not None:
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
            self._hands.order({"do": "drop", "name": name})
        self._records.changed(name)
        self._requests.judge(name, None)
        if self._quitting:
            self._quit_if_done()

    # the keeper

    def _report(self, message: dict[str, Any]) -> None:
        self._guarded(getattr(self, "_on_" + message["is"]), message)

    def _on_lost(self, message: dict[str, Any]) -> None:
        self._reap()
        if self._hands.leaving or (self._quitting and self._adopted and not self._live):
            self._finish()
        else:
            _log.error("the keeper is gone; starting another, which adopts what runs")

    def _on_leaving(self, message: dict[str, Any]) -> None:
        """The keeper has nothing left to do; its end is announced by the connection's."""

    def _on_welcome(self, message: dict[str, Any]) -> None:
        """Agree with the keeper about what runs."""
        held = sorted(message["held"], key=lambda one: (one["name"], one["number"]))
        for one in held:
            self._meet(one)
        present = {one["id"] for one in held}
        for name, known in list(self._known.items()):
            process = known.process
            if process is not None and process.state in _LIVE and known.identity not in present:
                self._events.append((name, lifecycle.Lost(process.number)))
        for identity in self._instances.keys() - present:
            del self._instances[identity]
        self._hands.sweep(present)
        self._hands.agreed = True
        if not self._adopted:
            self._adopted = True
            self._follower.catch_up({one["name"] for one in held if not one["empty"]})
            self._apply_all()
            for name in [name for name in self._earlier if name not in self._known]:
                del self._earlier[name]
                self._records.changed(name)
                self._records.pid(name, None)
            if self._quitting:
                self._drain_events()
                self._quitting = False
                self.quit()
            self._reactor.callLater(0, self._scan_periodically)

    def _meet(self, one: dict[str, Any]) -> None:
        """An instance that the keeper holds: ours already, or to be adopted."""
        identity, name, number = one["id"], one["name"], one["number"]
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = Known()
        if identity not in self._instances:
            self._instances[identity] = (name, number)
            self._hands.hold(identity)
            if known.process is None or known.process.number < number:
                self._adopt(name, known, one)
        if known.identity == identity and one["alive"]:
            self._on_started({"id": identity, "pid": one["pid"], "at": one["started"]})
        if one["end"] is not None and not one["alive"]:
            self._on_exited({"id": identity, "end": one["end"], "empty": one["empty"]})
        if known.identity == identity:
            self._events.append((name, lifecycle.Resumed(number)))

    def _adopt(self, name: str, known: Known, one: dict[str, Any]) -> None:
        generation, digest, policy = one["memo"]
        policy = msgspec.convert(policy, Policy)
        found = self._applied_from(known.definition)
        known.applied = Applied(generation, digest, found.policy if found and found.digest == digest else policy, True)
        known.identity = one["id"]
        restarts = 0
        wanted, stopping = Wanted.UP, False
        if (status := self._earlier.pop(name, None)) is not None:
            known.last_exit, restarts = status.last_exit, status.restarts
            wanted = Wanted.DOWN if status.wanted == Wanted.DOWN else Wanted.UP
            stopping = status.state == State.STOPPING and status.instance == one["number"]
        if not one["alive"] and (stopping or wanted is Wanted.DOWN):
            state = State.STOPPING  # what it was stopped for still holds
        else:
            state = State.STARTING
            if wanted is Wanted.DOWN:
                self._events.append((name, lifecycle.Stop()))
            elif stopping:
                self._events.append((name, lifecycle.Restart()))
        known.process = Process(
            name=name, policy=known.applied.policy, wanted=wanted, state=state, number=one["number"],
            since=self._reactor.seconds(), alive=True, restarts=restarts,
        )  # fmt: skip
        self._live += 1
        self._pending.add(name)
        _log.info("{name}: adopted, pid {pid}", name=name, pid=one["pid"])

    def _on_started(self, message: dict[str, Any]) -> None:
        name, number = self._instances.get(message["id"], ("", 0))
        known = self._known.get(name)
        if known is None or known.identity != message["id"]:
            return
        known.pid = message["pid"]
        known.started = time.time() - (time.monotonic() - message["at"])
        self._pid_file(name, known, known.pid)
        self._events.append((name, lifecycle.Started(number)))

    def _pid_file(self, name: str, known: Known, pid: int | None) -> None:
        if (trouble := self._records.pid(name, pid)) and trouble != known.trouble:
            known.trouble = trouble
            _log.error("{trouble}", trouble=trouble)

    def _on_refused(self, message: dict[str, Any]) -> None:
        identity = message["id"]
        name, number = self._instances.get(identity, ("", 0))
        self._hands.release(identity)
        if name in self._known:
            self._refused(name, identity, number, message["why"])

    def _on_exited(self, message: dict[str, Any]) -> None:
        identity, end = message["id"], message["end"]
        name, number = self._instances.get(identity, ("", 0))
        known = self._known.get(name)
        if known is not None and known.identity == identity:
            how = Exit(
                code=end.get("code"), signal=end.get("signal"), lived=end["lived"], core=end.get("core", False),
                signal_name="" if end.get("signal") is None else signal_name(end["signal"]),
            )  # fmt: skip
            self._note_exit(known, how, end["at"])
            known.pid = None
            self._pid_file(name, known, None)
            self._events.append((name, lifecycle.Ended(number, how, message["empty"], random.random())))
        if message["empty"]:
            self._over(identity)

    def _on_emptied(self, message: dict[str, Any]) -> None:
        name, number = self._instances.get(message["id"], ("", 0))
        self._events.append((name, lifecycle.Emptied(number)))
        self._over(message["id"])

    def _over(self, identity: str) -> None:
        self._instances.pop(identity, None)
        self._hands.forget(identity)
        self._remove_snapshot(identity)

    def _remove_snapshot(self, identity: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(f"{self._settings.state}/config/{identity}")

    @staticmethod
    def _note_exit(known: Known, how: Exit, at: float) -> None:
        name = how.signal_name or None
        known.last_exit = LastExit(code=how.code, signal=name, at=at, lived=round(how.lived, 3), text=str(how))

    def _on_trouble(self, message: dict[str, Any]) -> None:
        known = self._known.get(message["name"])
        if known is not None and known.trouble != message["why"]:
            known.trouble = message["why"]
            _log.error("{name}: {why}", name=message["name"], why=message["why"] or "its output is written again")
            self._records.changed(message["name"])

    # output

    def _on_output(self, message: dict[str, Any]) -> None:
        self._follower.output(message["name"], message["from"], message["to"], message["last"])

    @staticmethod
    def _say(name: str, line: bytes, whole: bool) -> None:
        text = line.decode("utf-8", "backslashreplace")
        shown = escaped(text)
        more = {} if whole else {"partial": True}
        if shown == text:
            _output.info("[{tag}] {line}" if whole else "[{tag}] {line} …", tag=name, line=text, **more)
        else:
            template = "[{tag}] {shown}" if whole else "[{tag}] {shown} …"
            _output.info(template, tag=name, line=text, shown=shown, **more)

    def _forwarded(self, name: str, offset: int) -> None:
        self._hands.order({"do": "read", "name": name, "to": offset})
        self._hands.flush()

    # requests

    def _act(self, file_name: str, message: Message) -> None:
        """Do what a message asks for, and answer it; whatever goes wrong, the next message has its turn."""
        try:
            self._act_on(file_name, message)
        except Exception as error:  # noqa: BLE001
            _log.failure("cannot do what message {file_name} asks", file_name=file_name)
            self._inbox.answer(file_name, Answer(accepted=True, state="failed", why=f"cannot do it: {error}"))

    def _act_on(self, file_name: str, message: Message) -> None:
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

    def _act_on_one(self, file_name: str, message: messages.Restart | messages.Start | messages.Stop) -> None:
        name = message.name
        known = self._known.get(name)
        if known is None:
            self._fail(file_name, f"there is no process {name!r}")
        elif known.process is None:
            self._fail(file_name, known.problem or f"there is no process {name!r}")
        elif isinstance(message, messages.Stop):
            self._ask(file_name, [name], Goal.DOWN, lifecycle.Stop())
        elif known.definition is not None and not known.definition.config.enabled:
            self._fail(file_name, f"{name} is disabled")
        else:
            event = lifecycle.Restart() if isinstance(message, messages.Restart) else lifecycle.Start()
            self._ask(file_name, [name], Goal.UP, event)

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
        notes = (known.trouble,) if known.trouble else ()
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
        )

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
                sys.stderr.write("cannot stop what runs: the keeper does not answer\n")
                self._give_up()
            return  # first find out what runs: see _on_welcome
        for name, known in self._known.items():
            if known.process is not None:
                if again:
                    self._events.append((name, lifecycle.Kill()))
                elif known.process.wanted is not Wanted.GONE:
                    self._events.append((name, lifecycle.Stop("the colony was stopped")))
        self._drain_events()
        self._quit_if_done()

    def _quit_if_done(self) -> None:
        if self._live:
            return
        if self._hands.connected and not self._hands.leaving:
            self._follower.when_idle(self._hands.leave)
        elif not self._hands.connected:
            self._finish()

    def _finish(self) -> None:
        """Nothing runs and the keeper has gone: so do we, with a clean exit."""
        self._hands.leaving = True
        self._records.flush()
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
