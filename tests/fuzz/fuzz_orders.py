"""Garbage on the socket of a real keeper: it survives, and so does what it holds."""

from __future__ import annotations

import atexit
import json
import sys
from pathlib import Path
from typing import Any

from fuzzing import HERE, Scratch

sys.path.append(str(HERE.parent / "keeper"))

from bench import SLEEP, Bench, Line, is_alive

# Programs that an input may have started; any other path is changed.
_HARMLESS = ("/bin/sleep", "/bin/true", "/", "", "/nonexistent")
# So that what the keepers complain about does not pile up.
_INPUTS_PER_KEEPER = 200


class _Stand:
    """A keeper that holds one instance, and what is known of it."""

    def __init__(self) -> None:
        self.scratch = Scratch()
        self.bench = Bench(self.scratch.path)
        self.bench.complaints_expected = True
        line = self.bench.start_keeper()
        line.hello()
        self.identity, self.pid = self.bench.start(line, SLEEP)
        self.inputs = 0

    def close(self) -> None:
        self.bench.close()
        self.scratch.__exit__()


_stand: _Stand | None = None


@atexit.register
def end_keeper() -> None:
    """Leave nothing running."""
    global _stand
    if _stand is not None:
        _stand.close()
        _stand = None


def one(data: bytes) -> None:
    """After any orders, one JSON value a line, the keeper answers the next supervisor and holds what it held."""
    global _stand
    if _stand is not None and _stand.inputs >= _INPUTS_PER_KEEPER:
        end_keeper()
    if _stand is None:
        _stand = _Stand()
    stand = _stand
    stand.inputs += 1
    line = stand.bench.call()
    try:
        for body in data.split(b"\n"):
            if (order := _harmless(body.replace(b"@ID@", stand.bench.new_identity().encode()))) is not None:
                _make_fifo(stand.bench, order)
                line.peer.sendall(Line.frame(order) if isinstance(order, dict) else _framed(body))
    except OSError:
        pass  # it has hung up on us
    again = stand.bench.call()
    held = again.hello(read={}, linger=None)
    assert held[stand.identity]["alive"] and is_alive(stand.pid), stand.bench.complaints()[-3000:]
    for identity, instance in held.items():
        if identity != stand.identity:
            again.say("signal", id=identity, signal=9, scope="tree")
            if instance["empty"]:
                again.say("forget", id=identity)
    for each in (line, again):
        each.close()
        stand.bench.lines.remove(each)


def _framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def _make_fifo(bench: Bench, order: Any) -> None:
    identity = order.get("id") if isinstance(order, dict) and order.get("do") == "start" else None
    if isinstance(identity, str) and identity.isalnum() and identity.isascii() and len(identity) < 100:
        path: Path = bench.fifo(identity)
        if not path.exists():
            import os

            os.mkfifo(path)


def _harmless(body: bytes) -> Any:
    """The order in `body`, changed so that it ends neither the keeper nor what is not its own; None to skip it."""
    try:
        order = json.loads(body)
    except (ValueError, RecursionError):
        return body or None
    if not isinstance(order, dict):
        return order
    kind = order.get("do")
    if kind in ("leave", "shutdown") or (kind == "upgrade" and isinstance(order.get("command"), list)):
        return None
    for patience in ("linger", "seconds"):
        if isinstance(order.get(patience), int | float):
            order[patience] = "soon"
    if kind == "start":
        if isinstance(order.get("cgroup"), str):
            del order["cgroup"]
        if order.get("path") not in _HARMLESS:
            order["path"] = "/nonexistent"
        for about in order["sockets"] if isinstance(order.get("sockets"), list) else ():
            if isinstance(about, dict) and isinstance(about.get("path"), str) and about["path"]:
                about["path"] = "/nonexistent/socket"
        if isinstance(order.get("uid"), int) and not isinstance(order.get("uid"), bool):
            order["uid"] = 0
    return order
