"""The keeper: parent of every instance. It spawns, reaps, signals and moves output; it decides nothing.

    python -I -S …/keeper/ STATE LOGS BUDGET [DESCRIPTOR]

STATE and LOGS are directories, BUDGET the bytes of all logs together, DESCRIPTOR a connected socket of the supervisor
that started us. A later supervisor connects to STATE/keeper.sock. Without one, everything goes on as it is.
"""

from __future__ import annotations

import _thread
import ctypes
import fcntl
import functools
import os
import select
import signal
import socket
import struct
import sys
import time
import traceback

import adopt
import spawn
import tree
from pump import Logs
from wire import PROTOCOL, Unpacker, pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pump import Log

_PR_SET_CHILD_SUBREAPER = 36
_READ, _WRITE = select.EPOLLIN, select.EPOLLOUT
# Splices per turn and log, orders per turn and exits per turn: a flood of one kind lets the others have theirs.
_SPLICES, _ORDERS, _EXITS = 4, 64, 256
# How long the exit status of an adopted instance is waited for after its death; whoever inherited it may never reap it.
_STATUS_WAIT_S = 2.0
# In the middle of an exec a process has no environment, and nobody can tell whose it is: look again.
_LOOK_AGAIN_S, _DOUBT_S = 0.005, 0.05


class Instance:
    """One process run for a name: alive, or ended and kept until the supervisor has taken note."""

    __slots__ = (
        "identity name number memo pid pidfd fifo log started end alive others empty killing reported adopted".split()
    )

    def __init__(self, identity: str, intent: dict[str, Any], log: Log) -> None:
        self.identity, self.log = identity, log
        self.name: str = intent["name"]
        self.number: int = intent["number"]
        self.started: float = intent["started"]
        self.memo: Any = intent.get("memo")
        self.pid, self.pidfd, self.fifo = 0, -1, -1
        self.end: dict[str, Any] | None = None
        self.alive, self.empty, self.reported, self.killing, self.adopted = True, False, False, False, False
        self.others: set[int] = set()  # processes of its tree that lost their parent, and so are not found below `pid`

    def described(self) -> dict[str, Any]:
        """What a supervisor must know to carry on with it."""
        keys = ("name", "number", "memo", "pid", "started", "alive", "empty", "end")
        return {"id": self.identity, **{key: getattr(self, key) for key in keys}}


class Keeper:
    """The loop and what it holds."""

    def __init__(self, state: str, logs: str, budget: int) -> None:
        self.state = state
        self.journal, self.logs = spawn.Journal(state), Logs(logs, budget)
        self.boot = adopt.boot()
        self.by_id: dict[str, Instance] = {}
        self.by_pid: dict[int, Instance] = {}
        self.by_session: dict[int, Instance] = {}
        self.doubts: dict[int, float] = {}  # pid of an orphan -> until when its empty environment is doubted
        self.strays: dict[int, Instance] = {}  # pid of an orphan that is our child now -> the instance it belongs to
        self.epoll = select.epoll()
        self.handlers: dict[int, Callable[[], None]] = {}
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.peer: socket.socket | None = None
        self.listener: socket.socket | None = None
        self.unpacker, self.outbox = Unpacker(), bytearray()
        self.inbox: list[dict[str, Any]] = []
        self.leaving, self.chores = False, False

    # what is watched

    def watch(self, descriptor: int, handler: Callable[[], None], events: int = _READ) -> None:
        self.epoll.register(descriptor, events)
        self.handlers[descriptor] = handler

    def unwatch(self, descriptor: int) -> None:
        if self.handlers.pop(descriptor, None):
            self.epoll.unregister(descriptor)

    def run(self) -> None:
        """Turn until told to leave. One failing event is said on stderr and harms no other."""
        while not self.leaving:
            busy = self.inbox or self.chores
            until = min((when for when, _ in self.later), default=None)
            wait = 0 if busy else -1 if until is None else max(0.0, until - time.monotonic())
            try:
                ready = self.epoll.poll(wait)
            except InterruptedError:
                continue
            for descriptor, _ in ready:
                # An earlier event of the batch may have closed this descriptor: look it up, do not assume.
                if handler := self.handlers.get(descriptor):
                    self.attempt(handler)
            if self.chores:
                self.attempt(self.reap)
            self.attempt(self.obey)
            now = time.monotonic()
            for entry in [entry for entry in self.later if entry[0] <= now]:
                self.later.remove(entry)
                self.attempt(entry[1])
            self.attempt(self.flush)

    def attempt(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:
            traceback.print_exc()

    # the supervisor

    def listen(self) -> None:
        # Through a descriptor: a socket's path may be 107 bytes at most, the state directory's is the user's affair.
        directory = os.open(self.state, os.O_RDONLY | os.O_DIRECTORY)
        path = f"/proc/self/fd/{directory}/keeper.sock"
        if not os.path.isdir("/proc/self/fd"):
            path = f"{self.state}/keeper.sock"
        try:
            os.unlink(f"{self.state}/keeper.sock")
        except FileNotFoundError:
            pass
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        umask = os.umask(0o177)
        listener.bind(path)
        os.umask(umask)
        os.close(directory)
        listener.listen(4)
        listener.setblocking(False)
        self.listener = listener
        self.watch(listener.fileno(), lambda: self.accept(listener))

    def accept(self, listener: socket.socket) -> None:
        try:
            peer, _ = listener.accept()
        except BlockingIOError:
            return
        if hasattr(socket, "SO_PEERCRED"):
            _pid, uid, _gid = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if uid not in (0, os.geteuid()):
                peer.close()
                return
        self.serve(peer)

    def serve(self, peer: socket.socket) -> None:
        """Obey this supervisor from now on: the lock on the state directory makes the newest the only one."""
        self.hang_up()
        peer.setblocking(False)
        self.peer, self.unpacker, self.outbox = peer, Unpacker(), bytearray()
        self.watch(peer.fileno(), self.receive)

    def hang_up(self) -> None:
        if self.peer is None:
            return
        self.unwatch(self.peer.fileno())
        self.peer.close()
        self.peer, self.inbox = None, []
        self.logs.attended = False
        for log in self.logs.by_name.values():
            self.resume(log)
        # The next supervisor finds us by this name, which somebody may have removed.
        if not self.leaving and self.listener is not None and not os.path.exists(f"{self.state}/keeper.sock"):
            self.unwatch(self.listener.fileno())
            self.listener.close()
            self.listen()

    def receive(self) -> None:
        if self.peer is None:
            return
        try:
            data = self.peer.recv(1 << 18)
            if not data:
                raise ConnectionResetError
            self.inbox += self.unpacker.feed(data)
        except BlockingIOError:
            return
        except (OSError, ValueError, RecursionError):
            self.hang_up()

    def tell(self, message: dict[str, Any]) -> None:
        if self.peer is not None:
            self.outbox += pack(message)

    def flush(self) -> None:
        if self.peer is None or not self.outbox:
            return
        try:
            while self.outbox:
                del self.outbox[: self.peer.send(self.outbox[: 1 << 18])]
        except BlockingIOError:
            self.epoll.modify(self.peer.fileno(), _READ | _WRITE)
            return
        except OSError:
            self.hang_up()
            return
        self.epoll.modify(self.peer.fileno(), _READ)

    def obey(self) -> None:
        orders, self.inbox = self.inbox[:_ORDERS], self.inbox[_ORDERS:]
        for order in orders:
            try:
                getattr(self, "do_" + order["do"])(order)
            except Exception:
                traceback.print_exc()

    # orders

    def do_hello(self, order: dict[str, Any]) -> None:
        """Resynchronise: everything we hold, ended instances included."""
        self.logs.attended = True
        for name, offset in order.get("read", {}).items():
            log = self.logs.get(name)
            log.was_read(offset)
            log.find()
        held = [instance.described() for instance in self.by_id.values()]
        self.tell({"is": "welcome", "protocol": PROTOCOL, "pid": os.getpid(), "held": held})
        for log in self.logs.by_name.values():
            log.told, log.announced = False, 0
            self.announce(log)
        for instance in self.by_id.values():
            instance.reported = not instance.alive
            if instance.empty:
                self.announce(instance.log, last=True)

    def do_start(self, order: dict[str, Any]) -> None:
        identity = order["id"]
        if identity in self.by_id:
            return
        began = time.monotonic()
        intent = {key: order.get(key) for key in ("name", "number", "memo", "log")}
        intent |= {"step": "intent", "boot": self.boot, "started": began}
        instance = Instance(identity, intent, self.logs.get(order["name"]))
        instance.log.configure(order.get("log") or {})
        try:
            self.journal.add(identity, intent, create=True)
            self.open_fifo(instance)
            instance.pid = spawn.spawn(order, self.fifo_path(identity))
        except spawn.Refused as refusal:
            self.refuse(instance, str(refusal))
            return
        except OSError as error:
            self.refuse(instance, f"cannot keep a record of it in {self.state}: {error.strerror}")
            return
        except (ValueError, TypeError, KeyError) as error:
            self.refuse(instance, f"cannot run it: {error}")
            return
        self.by_id[identity] = self.by_pid[instance.pid] = self.by_session[instance.pid] = instance
        try:
            self.journal.add(identity, adopt.record(instance.pid))
        except OSError:
            pass  # it runs; a later keeper finds it by the intent and its environment
        self.tell({"is": "started", "id": identity, "pid": instance.pid, "at": began})

    def refuse(self, instance: Instance, why: str) -> None:
        self.close_fifo(instance)
        self.journal.forget(instance.identity)
        self.tell({"is": "refused", "id": instance.identity, "why": why})

    def do_signal(self, order: dict[str, Any]) -> None:
        """Signal one snapshot of the tree (or the leader alone), once; KILL goes on until the tree is empty."""
        instance = self.by_id.get(order["id"])
        if instance is None:
            return
        whole = order["scope"] == "tree"
        if whole:
            if not self.look_for_strays():
                self.soon(functools.partial(self.do_signal, order))
                return
            self.find_strangers(instance)
            instance.killing |= order["signal"] == signal.SIGKILL
        self.signal(instance, order["signal"], whole, order.get("wake", False))

    def signal(self, instance: Instance, number: int, whole: bool, wake: bool) -> None:
        leader = [instance.pid] if instance.alive else []
        roots = leader + sorted(instance.others if whole else ())
        below = [pid for pid in tree.with_descendants(roots) if pid not in roots] if whole else []
        others = [(pid, tree.is_below({*roots, *below})) for pid in below]
        if not instance.adopted:
            tree.send(roots, (), others, number, wake)
        else:
            # Its processes are not our children. We hold the leader; the others must prove themselves.
            strangers = [(pid, tree.is_marked(instance.identity)) for pid in roots if pid not in leader]
            tree.send((), [instance.pidfd] if leader else [], strangers + others, number, wake)

    def do_forget(self, order: dict[str, Any]) -> None:
        """The supervisor has taken note of the exit; nothing about the instance is needed any more."""
        instance = self.by_id.get(order["id"])
        if instance is not None and instance.empty:
            del self.by_id[instance.identity]
            if self.by_session.get(instance.pid) is instance:
                del self.by_session[instance.pid]
            self.journal.forget(instance.identity)

    def do_read(self, order: dict[str, Any]) -> None:
        log = self.logs.by_name.get(order["name"])
        if log is None:
            return
        log.was_read(order["to"])
        if not log.held_back():
            self.resume(log)
        self.announce(log)

    def do_log(self, order: dict[str, Any]) -> None:
        """New sizes for the log of a running process."""
        self.logs.get(order["name"]).configure(order["log"])

    def do_drop(self, order: dict[str, Any]) -> None:
        """The process is gone: its log files stay, what we know of them goes."""
        if not any(instance.name == order["name"] for instance in self.by_id.values()):
            self.logs.drop(order["name"])

    def do_reopen(self, _order: dict[str, Any]) -> None:
        self.logs.reopen()

    def do_leave(self, _order: dict[str, Any]) -> None:
        """End ourselves, which only an empty keeper does."""
        if not self.by_id:
            self.tell({"is": "leaving"})
            self.flush()
            self.leaving = True

    # output

    def fifo_path(self, identity: str) -> str:
        return f"{self.state}/fifo/{identity}"

    def open_fifo(self, instance: Instance) -> None:
        """Read-write, so that we never see the hang-up that epoll repeats for ever while the last writer dies."""
        instance.fifo = os.open(self.fifo_path(instance.identity), os.O_RDWR | os.O_NONBLOCK)
        self.watch(instance.fifo, lambda: self.pump(instance))

    def close_fifo(self, instance: Instance) -> None:
        if instance.fifo >= 0:
            self.unwatch(instance.fifo)
            instance.log.paused.discard(instance.fifo)
            os.close(instance.fifo)
            instance.fifo = -1
        try:
            os.unlink(self.fifo_path(instance.identity))
        except OSError:
            pass

    def pump(self, instance: Instance) -> None:
        log, trouble = instance.log, instance.log.trouble
        log.take(instance.fifo, _SPLICES)
        if log.held_back() and instance.fifo not in log.paused:
            log.paused.add(instance.fifo)
            self.epoll.modify(instance.fifo, 0)
        self.announce(log)
        if log.trouble != trouble:
            self.tell({"is": "trouble", "name": instance.name, "why": log.trouble, "dropped": log.dropped})

    def resume(self, log: Log) -> None:
        """Read again from the FIFOs that were left alone while their log was held back."""
        while log.paused:
            self.epoll.modify(log.paused.pop(), _READ)

    def announce(self, log: Log, last: bool = False) -> None:
        """Say that there is output to forward; again after the supervisor's answer, or at an instance's end."""
        if self.peer is None or not log.forward or log.read_to is None:
            return
        if last or (not log.told and log.end > log.announced):
            log.told, log.announced = True, log.end
            self.tell({"is": "output", "name": log.name, "from": log.read_to, "to": log.end, "last": last})

    def drain(self, instance: Instance) -> None:
        """Take the last output of an instance whose tree is empty, and be done with its FIFO."""
        if instance.fifo >= 0:
            # A pipe holds 1 MiB at most: 64 turns empty it unless somebody outside the tree goes on writing.
            instance.log.take(instance.fifo, 64, patient=False)
            self.close_fifo(instance)

    # exits

    def reap(self) -> None:
        """Take every exit there is; then look once for what the dead left behind."""
        self.chores, looked = False, False
        ended: list[Instance] = []
        for turn in range(_EXITS + 1):
            try:
                peek = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                break
            if peek is None:
                break
            if turn == _EXITS:
                self.chores = True
                break
            looked = True
            instance = self.by_pid.pop(peek.si_pid, None)
            if instance is None:
                os.waitpid(peek.si_pid, 0)
                ended += self.stray_ended(peek.si_pid)
                continue
            end = _how(peek)
            try:
                # On disk before it is reaped: then a SIGKILL of ours cannot lose it.
                self.journal.add(instance.identity, {"step": "exit", **end})
            except OSError:
                pass
            _, _, usage = os.wait4(peek.si_pid, 0)
            end |= {"cpu": round(usage.ru_utime + usage.ru_stime, 3), "rss_kb": usage.ru_maxrss}
            self.ended(instance, end)
            ended.append(instance)
        if looked:
            self.settle_all(ended)

    def ended(self, instance: Instance, end: dict[str, Any]) -> None:
        lived = time.monotonic() - instance.started
        instance.alive, instance.end = False, {"lived": lived, "at": time.time(), **end}
        if instance.fifo >= 0:
            instance.log.take(instance.fifo, _SPLICES)
            self.announce(instance.log)

    def stray_ended(self, pid: int) -> list[Instance]:
        self.doubts.pop(pid, None)
        instance = self.strays.pop(pid, None)
        if instance is None:
            return []
        instance.others.discard(pid)
        return [instance]

    def settle_all(self, ended: list[Instance]) -> None:
        """Report the dead, once it is known to whom every orphan belongs."""
        if not self.look_for_strays():
            self.soon(functools.partial(self.settle_all, ended))
            return
        for instance in ended:
            self.settle(instance)

    def soon(self, call: Callable[[], None]) -> None:
        self.later.append((time.monotonic() + _LOOK_AGAIN_S, call))

    def look_for_strays(self) -> bool:
        """Find to whom our children belong that lost their parent elsewhere; False while one of them is in doubt."""
        sure = True
        for pid in tree.orphans():
            if pid in self.strays or pid in self.by_pid:
                continue
            owner = tree.owner(pid)
            instance = self.by_id.get(owner or "") or self.by_session.get(tree.session(pid))
            if instance is None and owner == "" and self.in_doubt(pid):
                sure = False
            if instance is None or instance.empty:
                continue
            self.strays[pid] = instance
            instance.others.add(pid)
            if instance.killing:
                self.signal(instance, signal.SIGKILL, True, False)
        return sure

    def in_doubt(self, pid: int) -> bool:
        """An empty environment is that of an exec under way, or, if it stays so, of a process that wants none."""
        until = self.doubts.setdefault(pid, time.monotonic() + _DOUBT_S)
        return time.monotonic() < until and not tree.is_zombie(pid)

    def settle(self, instance: Instance) -> None:
        """Report a dead leader, and an empty tree, each once."""
        if instance.alive or instance.empty:
            return
        if not instance.others:
            instance.empty = True
            self.drain(instance)
            self.announce(instance.log, last=True)
        if not instance.reported:
            instance.reported = True
            self.tell({"is": "exited", "id": instance.identity, "end": instance.end, "empty": instance.empty})
        elif instance.empty:
            self.tell({"is": "emptied", "id": instance.identity})

    # instances of a former keeper

    def adopt_all(self) -> None:
        """Resume holding every instance that a former keeper of this boot started and that can be proven ours."""
        for found in adopt.find(self.journal):
            instance = Instance(found.identity, found.intent, self.logs.get(found.intent["name"]))
            self.by_id[instance.identity] = instance
            instance.adopted = True
            instance.log.configure(found.intent.get("log") or {})
            try:
                self.open_fifo(instance)
            except FileNotFoundError:
                pass  # somebody removed it; the instance itself is unharmed
            if found.pidfd < 0:
                lived = time.monotonic() - instance.started  # at most: when it died, nobody saw
                instance.alive, instance.end = False, {"lived": lived, "at": time.time(), **found.end}
                self.watch_strangers(instance)
            else:
                instance.pid, instance.pidfd = found.pid, found.pidfd
                self.watch(found.pidfd, functools.partial(self.adopted_died, instance))

    def adopted_died(self, instance: Instance) -> None:
        """Dead; its exit status appears once whoever inherited it has reaped it (announced by EPOLLHUP)."""
        status = adopt.exit_status(instance.pidfd)
        if status is not None:
            self.adopted_ended(instance, _in_words(status))
        elif instance.end is None:
            instance.end = {"unknown": True}
            self.epoll.modify(instance.pidfd, 0)
            until = time.monotonic() + _STATUS_WAIT_S
            self.later.append((until, lambda: self.adopted_ended(instance, {"unknown": True})))
        else:
            # Reaped, and the kernel does not say how it ended (before Linux 6.15).
            self.adopted_ended(instance, {"unknown": True})

    def adopted_ended(self, instance: Instance, end: dict[str, Any]) -> None:
        if not instance.alive:
            return
        self.unwatch(instance.pidfd)
        os.close(instance.pidfd)
        try:
            self.journal.add(instance.identity, {"step": "exit", **end})
        except OSError:
            pass  # a full disk; we hold it in memory
        self.ended(instance, end)
        self.watch_strangers(instance)

    def watch_strangers(self, instance: Instance) -> None:
        """See what is left of an adopted instance's tree after a death in it."""
        self.find_strangers(instance)
        if instance.killing and instance.others:
            self.signal(instance, signal.SIGKILL, True, False)
        self.settle(instance)

    def find_strangers(self, instance: Instance) -> None:
        """What belongs to an adopted instance's tree is not our child: found by its mark, watched by pidfds."""
        if not instance.adopted:
            return
        for pid in tree.everybody().get(instance.identity, ()):
            if pid in instance.others or (instance.alive and pid == instance.pid):
                continue
            try:
                pidfd = os.pidfd_open(pid)
            except OSError:
                continue
            instance.others.add(pid)
            self.watch(pidfd, functools.partial(self.stranger_died, instance, pid, pidfd))

    def stranger_died(self, instance: Instance, pid: int, pidfd: int) -> None:
        self.unwatch(pidfd)
        os.close(pidfd)
        instance.others.discard(pid)
        self.watch_strangers(instance)


def _how(peek: os.waitid_result) -> dict[str, Any]:
    """An exit in words: {"code": n} or {"signal": n, "core": bool}."""
    if peek.si_code == os.CLD_EXITED:
        return {"code": peek.si_status}
    return {"signal": peek.si_status, "core": peek.si_code == os.CLD_DUMPED}


def _in_words(status: int) -> dict[str, Any]:
    """A wait status (waitpid(2)) in the same words."""
    if os.WIFEXITED(status):
        return {"code": os.WEXITSTATUS(status)}
    return {"signal": os.WTERMSIG(status), "core": os.WCOREDUMP(status)}


def _lock(state: str) -> int:
    """Be the only keeper of this state directory; the lock goes with our life, and never to an instance."""
    descriptor = os.open(f"{state}/keeper.lock", os.O_RDWR | os.O_CREAT, 0o600)
    until = time.monotonic() + 2.0
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() > until:
                sys.exit(f"cannot start: another keeper holds {state}")
            time.sleep(0.01)


def _heed_children(keeper: Keeper) -> None:
    """Let SIGCHLD wake the loop. The handler itself does nothing: the byte in the pipe is the message."""
    heard, hear = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(hear, warn_on_full_buffer=False)

    def woken() -> None:
        os.read(heard, 1 << 16)
        keeper.chores = True

    keeper.watch(heard, woken)


def main(state: str, logs: str, budget: str, descriptor: str | None = None) -> None:
    for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(ignored, signal.SIG_IGN)
    os.umask(0o022)
    os.chdir("/")
    # What the supervisor inherited without its knowledge is not for instances.
    kept = 2 if descriptor is None else int(descriptor)
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))
    lock = _lock(state)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    keeper = Keeper(state, logs, int(budget))
    _heed_children(keeper)
    keeper.chores = True
    keeper.listen()
    keeper.adopt_all()
    if descriptor is not None:
        os.set_inheritable(kept, False)
        keeper.serve(socket.socket(fileno=kept))
    done = _thread.allocate_lock()
    done.acquire()

    def work() -> None:
        try:
            keeper.run()
        finally:
            done.release()

    # Instances become children of this thread and orphans of the main one, which tells them apart: see tree.py.
    _thread.start_new_thread(work, ())
    # Signals then reach the worker, and the main thread sleeps for good.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    done.acquire()
    os.close(lock)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
