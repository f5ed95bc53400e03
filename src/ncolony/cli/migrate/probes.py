"""`ready`, `check` and times of a job, in the words of those who look after containers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ncolony.model.conditions import Check, Ready, parse_host_port

from . import crons
from .report import Refused

if TYPE_CHECKING:
    from .hcl import Block
    from .leaving import Process

_HERE = frozenset({"", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::"})
_NOT_ASKED = {
    "notify": "the kubelet is told nothing, it asks",
    "fd": "the kubelet is told nothing, it asks",
    "log": "the kubelet reads no output",
}


def of_kubelet(process: Process) -> dict[str, Any]:
    """The probes of a container: startupProbe from `ready`, livenessProbe and readinessProbe from `check`."""
    found: dict[str, Any] = {}
    ready = process.config.ready
    if ready is not None:
        if ready.ways[0] in _NOT_ASKED:
            process.leave("ready", _NOT_ASKED[ready.ways[0]])
        elif (asked := _asked(process, "ready", ready, process.content["ready"])) is not None:
            period = max(1, math.ceil(ready.period))
            found["startupProbe"] = {
                **asked, "periodSeconds": period, "failureThreshold": max(1, math.ceil(ready.timeout / period)),
            }  # fmt: skip
    for check, said in zip(process.config.check, process.content.get("check", ()), strict=True):
        probe = "livenessProbe" if check.action == "restart" else "readinessProbe"
        if check.heartbeat is not None:
            process.leave("check", "the kubelet looks at no files; an exec of a program that does", said)
        elif probe in found:
            process.leave("check", f"a container has one {probe}", said)
        elif (asked := _asked(process, "check", check, said)) is not None:
            found[probe] = {**asked, **_rhythm(process, check, probe, said)}
            if probe == "readinessProbe":
                process.leave("check", "as long as it fails, no requests are passed on either", said)
    return found


def _rhythm(process: Process, check: Check, probe: str, said: Any) -> dict[str, int]:
    found = {
        "initialDelaySeconds": math.ceil(check.grace),
        "periodSeconds": max(1, math.ceil(check.period)),
        "timeoutSeconds": max(1, math.ceil(check.timeout)),
        "failureThreshold": check.most_failures,
    }
    if any(seconds != math.ceil(seconds) for seconds in (check.grace, check.period, check.timeout)):
        process.leave("check", "the kubelet counts whole seconds", said)
    if check.success_threshold != 1 and probe == "livenessProbe":
        process.leave("check", "of a livenessProbe one success is always enough", said)
    elif check.success_threshold != 1:
        found["successThreshold"] = check.success_threshold
    return found


def _asked(process: Process, key: str, look: Ready | Check, said: Any) -> dict[str, Any] | None:
    """Who asks, and what."""
    if look.exec is not None:
        return {"exec": {"command": list(look.exec)}}
    if look.tcp is not None:
        found = parse_host_port(look.tcp)
        assert found is not None  # checked when the config was read
        host, port = found
        return {"tcpSocket": {**_host(process, key, host, said), "port": port}}
    assert look.http is not None
    parts = urlsplit(look.http)
    if parts.username is not None or parts.password is not None:
        process.leave(key, "a URL with a name and a password: the kubelet has httpHeaders for that", said)
        return None
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    get = {
        "path": path,
        **_host(process, key, parts.hostname or "", said),
        "port": port,
        "scheme": parts.scheme.upper(),
    }
    if parts.scheme == "https":
        process.leave(key, "the kubelet trusts any certificate", said)
    return {"httpGet": get}


def _host(process: Process, key: str, host: str, said: Any) -> dict[str, str]:
    """Where the kubelet asks. It runs on the node, so that its own localhost is another one."""
    if host in _HERE:
        process.leave(key, "the kubelet asks at the address of the pod, so the program must listen there", said)
        return {}
    return {"host": host}


def of_nomad(process: Process, group: Block, name: str) -> None:
    """A service with checks in a group, and the ports that they ask."""
    if process.config.ready is not None:
        process.leave("ready", "checks, and healthy_deadline in an update block, tell Nomad that")
    ports: dict[int, list[tuple[Check, Any]]] = {}
    for check, said in zip(process.config.check, process.content.get("check", ()), strict=True):
        port = _port_of(process, check, said)
        if port is not None:
            ports.setdefault(port, []).append((check, said))
    if not ports:
        return
    network = group.block("network")
    for port in ports:
        network.block("port", f"port-{port}").set("static", port)
    for port, checks in ports.items():
        service = group.block("service")
        service.set("name", name if len(ports) == 1 else f"{name}-{port}")
        service.set("provider", "nomad")
        service.set("port", f"port-{port}")
        for check, said in checks:
            _check(process, check, service, said)
    process.leave("check", "Nomad asks at the address of the client, so the program must listen there")
    if (process.config.instances or 1) > 1:
        process.leave("instances", "with a port of its own, each copy needs another client")


def _port_of(process: Process, check: Check, said: Any) -> int | None:
    """The port that Nomad can ask, None if it is no such check."""
    host, port = "", None
    if check.tcp is not None:
        host, port = parse_host_port(check.tcp) or ("", None)
    elif check.http is not None:
        parts = urlsplit(check.http)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if port is None:
        process.leave("check", "Nomad's own checks are of http and tcp", said)
    elif host not in _HERE:
        process.leave("check", "Nomad asks its own client only", said)
        return None
    return port


def _check(process: Process, check: Check, service: Block, said: Any) -> None:
    block = service.block("check")
    block.set("type", check.ways[0])
    if check.http is not None:
        parts = urlsplit(check.http)
        block.set("path", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
        if parts.scheme == "https":
            block.set("protocol", "https")
    # It takes nothing below a second.
    block.set("interval", f"{max(1000, math.ceil(check.period * 1000))}ms")
    block.set("timeout", f"{max(1000, math.ceil(check.timeout * 1000))}ms")
    if min(check.period, check.timeout) < 1:
        process.leave("check", "Nomad takes a second at least", said)
    if check.success_threshold != 1:
        process.leave("check", "one success is enough for Nomad", said)
    if check.action == "restart":
        restart = block.block("check_restart")
        restart.set("limit", check.most_failures)
        restart.set("grace", f"{math.ceil(check.grace * 1000)}ms")
    elif check.most_failures != 1:
        process.leave("check", "to Nomad it is unhealthy with the first failure", said)


def cron_of(process: Process) -> str:
    """The cron expression of a job, in the fewest words.

    :raises Refused: when others have none for its times.
    """
    schedule = process.config.schedule
    assert schedule is not None
    if schedule.cron is None:
        assert schedule.every is not None
        cron = crons.every(schedule.every)
        if cron is None:
            raise Refused("no cron expression has runs that are all so far apart", key="schedule.every")
        process.leave("schedule.every", f"by the clock, {cron}, and not at once")
        return cron
    try:
        times = crons.parse(schedule.cron)
    except Refused:
        raise Refused("no other cron has a word for this expression", key="schedule.cron") from None
    if crons.needs_both(times):
        raise Refused("other crons take any of such days, instead of those that are both", key="schedule.cron")
    return crons.render(times)


def five_fields(process: Process) -> str:
    """The same without seconds.

    :raises Refused: when the seconds matter.
    """
    cron = cron_of(process)
    if len(cron.split()) != 5:
        raise Refused("a CronJob knows no seconds", key="schedule.cron")
    return cron
