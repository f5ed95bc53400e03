"""A keeper that begins with garbage in its journal: it adopts what it can prove, and tells it to a supervisor."""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import select
import socket
import struct
import subprocess
import sys
from types import ModuleType
from typing import Any

from fuzzing import Descriptors, Scratch, files_in, lay_out

import ncolony

_KEEPER = os.path.join(os.path.dirname(ncolony.__file__), "keeper")
# Its modules are top-level names to each other.
sys.path.append(_KEEPER)

import adopt  # noqa: E402
import spawn  # noqa: E402
import tree  # noqa: E402

_IDENTITY = "00aa"


def _load_keeper() -> ModuleType:
    spec = importlib.util.spec_from_file_location("keeper_main", f"{_KEEPER}/__main__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_keeper_main = _load_keeper()
_child: subprocess.Popen[bytes] | None = None


def _living_child() -> int:
    """The pid of a process that stands for an instance of an earlier keeper, which was executed in our place."""
    global _child
    if _child is None or _child.poll() is not None:
        how: dict[str, Any] = {"env": {"NCOLONY_INSTANCE": _IDENTITY}, "stdout": subprocess.DEVNULL}
        _child = subprocess.Popen(["/bin/sleep", "1000"], start_new_session=True, **how)
    return _child.pid


@atexit.register
def end_child() -> None:
    """Leave nothing running."""
    global _child
    if _child is not None:
        _child.kill()
        _child.wait()
        _child = None


def one(data: bytes) -> None:
    """Whatever the journal, the logs and the handover hold, the keeper says hello and can end everything."""
    pid = _living_child()
    known = {b"@BOOT@": adopt.boot().encode(), b"@PID@": b"%d" % pid, b"@BEGAN@": b"%d" % (tree.start_time(pid) or 0)}
    for word, value in known.items():
        data = data.replace(word, value)
    files = files_in(data)
    tree.orphans()  # what the keeper opens once and for all is not to be taken for a leak
    with Scratch() as root, Descriptors():
        for name in ("state/fifo", "state/instances", "logs"):
            (root / name).mkdir(parents=True)
        lay_out(root, [(name, content) for name, content in files if name != "handover"])
        for name in os.listdir(root / "state" / "instances"):
            if not (root / "state" / "fifo" / name).exists():
                os.mkfifo(root / "state" / "fifo" / name)
        keeper: Any = _keeper_main.Keeper(f"{root}/state", f"{root}/logs", 1 << 20, "code")
        try:
            keeper.adopt_all(_handover(files))
            _check_welcome(keeper)
            _turn(keeper)
            keeper.ending.begin()
            _turn(keeper)
        finally:
            keeper.hang_up()
            keeper.outputs.close()
            keeper.epoll.close()


def _handover(files: list[tuple[str, bytes]]) -> dict[str, Any]:
    """What a keeper of another version says of ends; descriptors, which would be closed, are not for the test."""
    found = next((content for name, content in files if name == "handover"), b"{}")
    try:
        ends = json.loads(found)["ends"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    if not isinstance(ends, dict) or not all(isinstance(end, dict) for end in ends.values()):
        return {}
    return {"ends": {name: {**end, "lived": 1.0, "at": 1.0} for name, end in ends.items()}}


def _check_welcome(keeper: Any) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        keeper.serve(theirs)
        body = json.dumps({"do": "hello", "protocol": 2, "read": {}}).encode()
        ours.sendall(struct.pack("!I", len(body)) + body)
        keeper.receive()
        keeper.obey()
        keeper.flush()
        said = _heard(ours)
        welcome = next(one for one in said if one["is"] == "welcome")
        for held in welcome["held"]:
            assert isinstance(held["name"], str) and "/" not in held["name"], held
            assert all(isinstance(held[key], int) for key in ("number", "pid", "since")), held
            assert isinstance(held["started"], int | float), held
            assert all(isinstance(word, str) for pair in held["said"].items() for word in pair), held
            assert all(isinstance(key, str) and isinstance(number, int) for key, number, _ in held["given"]), held
            assert held["alive"] or isinstance(held["end"]["lived"], int | float), held
        keeper.hang_up()


def _heard(peer: socket.socket) -> list[dict[str, Any]]:
    data, found = b"", []
    while select.select([peer], [], [], 0)[0]:
        data += peer.recv(1 << 20)
    while data:
        (length,) = struct.unpack("!I", data[:4])
        found.append(json.loads(data[4 : 4 + length]))
        data = data[4 + length :]
    return found


def _turn(keeper: Any) -> None:
    for descriptor, _ in keeper.epoll.poll(0):
        keeper.handlers[descriptor]()
    keeper.reap()
    keeper.comfort()
    for _, _, call in sorted(keeper.later, key=lambda one: one[:2])[:5]:
        call()


# No input may have a control group touched that is not a test's.
spawn.make_cgroup = lambda directory: ""
spawn.kill_cgroup = spawn.remove_cgroup = lambda directory: None
