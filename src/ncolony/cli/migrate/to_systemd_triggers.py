"""The units beside a service: a .socket for each of its sockets, and the .timer of a job."""

from __future__ import annotations

import ipaddress
import os

from ncolony.model.conditions import Address, Socket, as_socket, parse_address

from . import calendars, crons, units
from .leaving import Output, Process
from .report import Refused
from .unitfile import TARGET


def sockets(process: Process, service: str) -> list[Output]:
    """The .socket units of a process, in the order of its descriptors. Copies share them, as the service names them."""
    found = []
    entries = {name: as_socket(value) for name, value in process.config.sockets.items()}
    first = service.replace("@.", "@0.")
    for name, socket in entries.items():
        lines = _listen(process, name, socket)
        if lines is None:
            continue
        own = units.unit_name(process.name) + ("" if len(entries) == 1 else f"-{units.unit_name(name)}")
        head = [f"# A socket of {units.unit_name(process.name)}, which ncolony opened.", "[Unit]"]
        head += [f"Description={units.escaped(process.name)}, its socket {units.escaped(name)}", f"PartOf={TARGET}", ""]
        body = ["[Socket]", *lines, f"Service={units.escaped(first)}", f"FileDescriptorName={units.escaped(name)}"]
        found.append(Output(f"{own}.socket", "\n".join([*head, *body]) + "\n"))
    if len(found) > 1:
        process.leave("sockets", "systemd promises no order of descriptors: the program must go by their names")
    return found


def _listen(process: Process, name: str, socket: Socket) -> list[str] | None:
    this = {name: process.content["sockets"][name]}
    address = parse_address(socket.address)
    assert address is not None  # checked when the config was read
    if address.kind == "unix":
        place = units.path(address.path, None)
        if place is None or place != address.path:
            process.leave("sockets", "systemd wants a plain path", this)
            return None
        mode = f"SocketMode={int(socket.mode, 8):04o}"
        return [f"ListenStream={units.escaped(place)}", f"Backlog={socket.backlog}", mode]
    where = _numeric(address)
    if where is None:
        process.leave("sockets", "systemd wants a numeric address and a port of its own", this)
        return None
    if address.kind == "udp":
        return [f"ListenDatagram={where}"]
    return [f"ListenStream={where}", f"Backlog={socket.backlog}"]


def _numeric(address: Address) -> str | None:
    if address.port == 0:
        return None
    if not address.host:
        return str(address.port)
    try:
        host = ipaddress.ip_address(address.host)
    except ValueError:
        return None
    if host.version == 6 and getattr(host, "scope_id", None):
        return None
    return f"[{host}]:{address.port}" if host.version == 6 else f"{host}:{address.port}"


def timer(process: Process, service: str) -> Output:
    """The .timer of a job.

    :raises Refused: when systemd has no word for its times.
    """
    schedule = process.config.schedule
    assert schedule is not None
    lines = ["# The times of a job of ncolony.", "[Unit]"]
    lines += [f"Description={units.escaped(process.name)}, its times", f"PartOf={TARGET}", "", "[Timer]"]
    if schedule.cron is not None:
        try:
            times = crons.parse(schedule.cron)
        except Refused:
            raise Refused("a cron expression that systemd has no word for", key="schedule.cron") from None
        lines += [f"OnCalendar={event}" for event in calendars.render(times, schedule.timezone or "")]
        if schedule.catch_up:
            lines.append("Persistent=true")
    else:
        assert schedule.every is not None
        lines += ["OnActiveSec=0", f"OnUnitActiveSec={units.seconds(schedule.every)}"]
        if schedule.catch_up:
            process.leave("schedule.catch_up", "the first run is at once in any case")
    # systemd puts a run off by up to a minute to save power, unless it is told not to.
    lines.append("AccuracySec=1us")
    if schedule.jitter:
        lines.append(f"RandomizedDelaySec={units.seconds(schedule.jitter)}")
    if schedule.overlap != "skip":
        process.leave("schedule.overlap", "systemd leaves out a run that is due while the last one goes on")
    if schedule.retries:
        process.leave("schedule.retries", "systemd does not try a run again")
    for key in ("retry_delay", "late_after"):
        if key in process.content.get("schedule", {}):
            process.leave(f"schedule.{key}", "no counterpart")
    if process.config.enabled:
        lines += ["", "[Install]", f"WantedBy={TARGET}"]
    return Output(os.path.splitext(service)[0] + ".timer", "\n".join(lines) + "\n")
