"""A systemd *.socket file: sockets of the service that is imported with it."""

from __future__ import annotations

import re
from typing import Any

from ncolony.model.conditions import LARGEST_PORT, parse_address

from . import units, words
from .report import MAPPED, NOT_MAPPED, NOTE, Key, Refused
from .unitfile import NO_HOOK, Book, Unit


def _each(rule: Key, names: str) -> dict[str, Key]:
    return dict.fromkeys(names.split(), rule)


_NO_SUCH = Key(NOT_MAPPED, "streams and datagrams of IP, and streams of unix sockets, are what can be passed")
_ON_DEMAND = Key(NOTE, "of starting a process by its first connection: here it is started at once")
_OPTION = Key(NOT_MAPPED, "no options of sockets: set them in the program, on the descriptor")
KEYS: dict[str, Key] = {
    "ListenStream": Key(MAPPED, "`sockets`, with `tcp:` or `unix:`; the names of several are numbered"),
    "ListenDatagram": Key(MAPPED, "`sockets`, with `udp:`; unix sockets of datagrams are not mapped"),
    **_each(
        _NO_SUCH, "ListenSequentialPacket ListenFIFO ListenSpecial ListenNetlink ListenMessageQueue ListenUSBFunction"
    ),
    "FileDescriptorName": Key(MAPPED, "the key in `sockets`, which is the name in LISTEN_FDNAMES"),
    "Backlog": Key(MAPPED, "`sockets`, its `backlog`; the default is written out as 4096, which is what Linux allows"),
    "SocketMode": Key(MAPPED, "`sockets`, its `mode`"),
    "Service": Key(MAPPED, "`sockets` of this one; it must be imported at the same time"),
    "Accept": Key(NOT_MAPPED, "false; with true, a process for each connection, it is refused"),
    "BindIPv6Only": Key(NOTE, "an address without a host is every address; with ipv6-only, it is `[::]`"),
    **_each(Key(NOT_MAPPED, "its file belongs to the user and group of the process"), "SocketUser SocketGroup"),
    **_each(
        Key(NOT_MAPPED, "no such thing is done with the path of a socket"),
        "DirectoryMode RemoveOnStop Symlinks SELinuxContextFromNet SmackLabel SmackLabelIPIn SmackLabelIPOut"
        " XAttrEntryPoint XAttrListen XAttrAccept",
    ),
    **_each(
        _ON_DEMAND,
        "MaxConnections MaxConnectionsPerSource TriggerLimitIntervalSec TriggerLimitBurst PollLimitIntervalSec"
        " PollLimitBurst FlushPending Writable DeferTrigger DeferTriggerMaxSec TimeoutSec PassFileDescriptorsToExec",
    ),
    **_each(
        _OPTION,
        "SocketProtocol BindToDevice KeepAlive KeepAliveTimeSec KeepAliveIntervalSec KeepAliveProbes NoDelay Priority"
        " DeferAcceptSec ReceiveBuffer SendBuffer IPTOS IPTTL Mark ReusePort PipeSize FreeBind Transparent Broadcast"
        " PassCredentials PassPIDFD PassSecurity PassPacketInfo PassRights AcceptFileDescriptors Timestamping"
        " TCPCongestion MessageQueueMaxMessages MessageQueueMessageSize",
    ),
    **_each(NO_HOOK, "ExecStartPre ExecStartPost ExecStopPre ExecStopPost"),
}
# SOMAXCONN of Linux, which cuts off the larger default of systemd.
_BACKLOG, _LARGEST_BACKLOG = 4096, 1 << 16


def pass_on(book: Book) -> None:
    """Give every service its sockets."""
    sockets_of: dict[str, list[Unit]] = {}
    for unit in book.units:
        if unit.kind == "Service" and unit.draft is not None:
            sockets_of[unit.name] = _named(unit, book)
    for unit in book.units:
        if unit.kind == "Socket":
            try:
                _check(unit)
                service = _service(unit, book)
            except Refused as refused:
                unit.refuse(refused)
                continue
            if unit not in sockets_of[service.name]:
                sockets_of[service.name].append(unit)
    for service in book.units:
        _give(service, [unit for unit in sockets_of.get(service.name, ()) if not unit.refused])


def _named(service: Unit, book: Book) -> list[Unit]:
    """The sockets that a service itself names."""
    found = []
    for line, word in service.names("Sockets"):
        unit = book.find(word)
        if unit is None or unit.kind != "Socket":
            service.tell(NOT_MAPPED, line, f"{word} is not among what is imported: import it at the same time")
        else:
            found.append(unit)
    return found


def _check(unit: Unit) -> None:
    accept = unit.get(words.truth, "Accept")
    if accept:
        line = unit.all("Accept")[-1]
        why = "a process for each connection: there is no such thing here; systemd or inetd can go on doing it"
        raise Refused(why, line.line, line.key, line.value, NOT_MAPPED)
    if accept is False:
        unit.tell(MAPPED, unit.all("Accept")[-1], "")


def _service(unit: Unit, book: Book) -> Unit:
    service = book.service_of(unit)
    if service is None or service.kind != "Service":
        raise Refused("its service is not among what is imported: import both at the same time", key=unit.name)
    if service.draft is None:
        raise Refused(f"{service.name} is not imported", key=unit.name, result=NOT_MAPPED)
    return service


def _give(service: Unit, found: list[Unit]) -> None:
    """The entries of all its socket units, in order."""
    entries: dict[str, Any] = {}
    for unit in found:
        before = len(entries)
        try:
            _add(unit, entries)
        except Refused as refused:
            unit.refuse(refused)
        if len(entries) == before:
            continue
        unit.notes.note(0, unit.name, "", "the process is started at once, not by its first connection")
    if len(found) > 1 and len(entries) > 1:
        why = "the descriptors come in this order; systemd promises none, so the program must go by their names"
        service.notes.note(0, "sockets", ", ".join(entries), why)
    if entries:
        service.config["sockets"] = entries


def _add(unit: Unit, entries: dict[str, Any]) -> None:
    name = unit.get(str, "FileDescriptorName") or unit.name
    mode = unit.get(_mode, "SocketMode")
    backlog = unit.get(lambda text: min(words.whole(text), _LARGEST_BACKLOG), "Backlog")
    only_v6 = unit.get(str, "BindIPv6Only") == "ipv6-only"
    lines: list[units.Line] = []
    for line in unit.lines:
        if line.section == "Socket" and line.key.startswith("Listen"):
            lines = [*lines, line] if line.value else []
    if not lines:
        raise Refused("it listens to nothing", key=unit.name)
    for line in lines:
        address = unit.use(line, lambda text, key=line.key: _address(key, text, only_v6))  # type: ignore[misc]
        if address is None:
            unit.tell(NOT_MAPPED, line, _why_not(line))
            continue
        entry: dict[str, Any] = {"address": address}
        if not address.startswith("udp:"):
            entry["backlog"] = backlog or _BACKLOG
        if address.startswith("unix:") and mode is not None and mode != "0666":
            entry["mode"] = mode
        entries[_free(unit, line, name, entries)] = entry


def _free(unit: Unit, line: units.Line, wanted: str, taken: dict[str, Any]) -> str:
    """A name that no other socket of the process has."""
    legal = re.sub(r"[^!-9;-~]", "-", wanted)[:200]
    name, number = legal, 2
    while name in taken:
        name, number = f"{legal}-{number}", number + 1
    if name != wanted:
        unit.tell(NOTE, line, f"called {name} in LISTEN_FDNAMES: a name is that of one socket here")
    return name


def _mode(text: str) -> str:
    if not re.fullmatch(r"0?[0-7]{3}", text):
        raise Refused("expected three octal digits such as 0660")
    return text


def _address(key: str, text: str, only_v6: bool) -> str | None:
    """The address as we write it, None if we have none for it."""
    if key == "ListenStream" and text.startswith("/"):
        found = f"unix:{text}"
    elif key in ("ListenStream", "ListenDatagram"):
        host, _, port = text.rpartition(":")
        if (host and not re.fullmatch(r"\[[0-9A-Fa-f:.]+\]|[0-9.]+", host)) or not 0 < _port(port) <= LARGEST_PORT:
            return None
        host = ("[::]" if only_v6 else "") if host in ("", "[::]") else host
        found = f"{'tcp' if key == 'ListenStream' else 'udp'}:{host}:{port}"
    else:
        return None
    return found if parse_address(found) is not None else None


def _port(text: str) -> int:
    return int(text) if re.fullmatch(r"[0-9]{1,5}", text, re.ASCII) else 0


def _why_not(line: units.Line) -> str:
    if line.key == "ListenDatagram" and line.value.startswith("/"):
        return "a unix socket of datagrams: the program can open it itself"
    if line.value.startswith("@"):
        return "a socket without a path: the program can open it itself"
    return _NO_SUCH.text
