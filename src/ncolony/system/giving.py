"""What an instance is given beside its output: a way to say how it is, and sockets. keeper/safe.py holds it."""

from __future__ import annotations

import socket
from typing import Any

from ..keeper.wire import notify_address
from ..model.conditions import Address, as_socket, parse_address
from ..model.config import ProcessConfig
from .launch import Impossible

_TYPES = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


def gifts(config: ProcessConfig, file: str, state: str, identity: str) -> tuple[dict[str, Any], dict[str, str]]:
    """What the order to start an instance says of them, and the variables that its environment has for them.

    `file` is the name of the config file, whose processes share their sockets.

    :raises Impossible: when a host has no address.
    """
    order: dict[str, Any] = {}
    variables: dict[str, str] = {}
    if (config.ready is not None and config.ready.notify) or config.watchdog is not None:
        order["notify"] = True
        variables["NOTIFY_SOCKET"] = notify_address(state, identity)
    if config.watchdog is not None:
        # Without WATCHDOG_PID, which only a forked child of the keeper could know: sd_watchdog_enabled(3) needs none.
        variables["WATCHDOG_USEC"] = str(int(config.watchdog * 1e6))
    if config.ready is not None and config.ready.fd is not None:
        order["ready"] = config.ready.fd
    if config.sockets:
        order["sockets"] = _sockets(config, file)
        # LISTEN_PID is added by the child itself.
        variables |= {"LISTEN_FDS": str(len(config.sockets)), "LISTEN_FDNAMES": ":".join(config.sockets)}
    return order, variables


def socket_keys(config: ProcessConfig, file: str) -> dict[str, str]:
    """{name: key} of the sockets: processes of one file share what has the same address.

    What can be changed while somebody listens, such as the backlog, is not in the key. Where the kernel chooses the
    port, two with the same address are not the same.
    """
    found = {}
    for name, value in config.sockets.items():
        address = as_socket(value).address
        parsed = parse_address(address)
        more = f"/{name}" if parsed is not None and parsed.kind != "unix" and not parsed.port else ""
        found[name] = f"listen/{file}/{address}{more}"
    return found


def _sockets(config: ProcessConfig, file: str) -> list[dict[str, Any]]:
    keys, found = socket_keys(config, file), []
    for name, value in config.sockets.items():
        one = as_socket(value)
        address = parse_address(one.address)
        if address is None:
            raise Impossible(f"cannot listen on {one.address}: it is no address")
        about = {"key": keys[name], "address": one.address, "backlog": one.backlog, "mode": int(one.mode, 8)}
        found.append({**about, "kind": address.kind, "path": address.path, **_place(one.address, address)})
    return found


def _place(text: str, address: Address) -> dict[str, Any]:
    """Family and address as bind(2) wants them."""
    if address.kind == "unix":
        return {"family": "unix"}
    host, port, more, only = address.host, address.port, (), 1
    family = socket.AF_INET6
    if not host:
        # Every address, of both families where there are both: one socket takes all.
        has_both = socket.has_dualstack_ipv6()
        family, host, only = (socket.AF_INET6, "::", 0) if has_both else (socket.AF_INET, "0.0.0.0", 1)
    else:
        try:
            resolved = socket.getaddrinfo(host, port, type=_TYPES[address.kind], flags=socket.AI_PASSIVE)
        except (OSError, UnicodeError) as error:
            raise Impossible(f"cannot listen on {text}: {getattr(error, 'strerror', None) or error}") from None
        family, _, _, _, (host, port, *more) = resolved[0]  # type: ignore[assignment]
    name = "inet6" if family == socket.AF_INET6 else "inet"
    return {"family": name, "host": host, "port": port, "more": list(more), "only": only}
