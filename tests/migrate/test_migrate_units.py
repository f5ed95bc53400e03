"""Units of systemd that are imported together: order, sockets, timers, readiness."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import migrate_golden
import pytest

from ncolony.cli.migrate import sources
from ncolony.cli.migrate.report import ERROR, NOT_MAPPED, NOTE, Source
from ncolony.model import config

SYSTEM = Path("/usr/lib/systemd/system")


def load(directory: Path, **texts: str) -> tuple[dict[str, Any], list[Source]]:
    """The config files made of some units, and what was found. A keyword db_socket is the file db.socket."""
    found = []
    for name, text in texts.items():
        path = directory / name.replace("_", ".")
        path.write_text(text, encoding="utf-8")
        found.append(sources.load(str(path)))
    sources.settle(found)
    return {draft.name: json.loads(sources.encode(draft)) for source in found for draft in source.drafts}, found


def findings(found: list[Source], *results: str) -> list[tuple[str, str]]:
    """Key and value of the findings with these results."""
    return [(one.key, one.value) for source in found for one in source.findings if one.result in results]


def service(*lines: str, unit: tuple[str, ...] = ()) -> str:
    """The text of a unit."""
    return "\n".join(["[Unit]", *unit, "[Service]", "ExecStart=/bin/p", *lines])


def test_no_line_is_dropped() -> None:
    """Every assignment of units that are imported together has a finding of its own, unless the unit is refused."""
    loaded = [sources.load(str(path)) for path in migrate_golden.files_of("systemd/together")]
    sources.settle(loaded)
    for source in loaded:
        lines = {finding.line for finding in source.findings}
        if any(unit.refused for unit in source.units):
            assert source.findings
            continue
        for number, line in enumerate(Path(source.path).read_text(encoding="utf-8").splitlines(), 1):
            if "=" in line and not line.startswith("#"):
                assert number in lines, (source.path, line)


@pytest.mark.skipif(not SYSTEM.is_dir(), reason="no units of systemd are installed")
def test_the_units_of_this_machine() -> None:
    """All units that are installed here, imported at once, are answered: legal files, and a finding for each line."""
    paths = sorted(path for ending in ("service", "socket", "timer") for path in SYSTEM.glob(f"*.{ending}"))
    loaded = [sources.load(str(path)) for path in paths if path.is_file()]
    sources.settle(loaded)
    for source in loaded:
        assert source.findings, source.path
        for draft in source.drafts:
            assert isinstance(config.define(draft.name, sources.encode(draft)), config.Definition)
    assert sum(len(source.drafts) for source in loaded) > 0


# --- order ---


@pytest.mark.parametrize(
    ("kind", "when"),
    [("", "started"), ("Type=exec", "started"), ("Type=notify", "ready"), ("Type=oneshot", "completed")],
)
def test_after_waits_as_systemd_does(tmp_path: Path, kind: str, when: str) -> None:
    """After= and Requires= wait until the other has started, is ready or has done its work, by its type."""
    web = service(unit=("After=db.service", "Requires=db.service"))
    found, _ = load(tmp_path, web_service=web, db_service=service(kind))
    assert found["web"]["after"] == {"db": when}
    assert "after" not in found["db"]


def test_before_is_after(tmp_path: Path) -> None:
    """Before= in the one is After= in the other, and an alias is as good as a name."""
    db = service(unit=("Before=web.service",)) + "\n[Install]\nAlias=sql.service"
    found, _ = load(tmp_path, db_service=db, web_service=service(), app_service=service(unit=("After=sql.service",)))
    assert found["web"]["after"] == {"db": "started"}
    assert found["app"]["after"] == {"db": "started"}


@pytest.mark.parametrize(
    ("unit", "after"),
    [
        (("After=db.service",), {"db": "ready"}),
        (("After=db.service", "Wants=db.service"), {"db": "ready"}),
        (("After=db.service", "BindsTo=db.service"), {"db": {"when": "ready", "bind": True}}),
        (("After=db.service", "PartOf=db.service"), {"db": {"when": "ready", "bind": True}}),
        (("Requires=db.service",), None),
        (("BindsTo=db.service",), None),
        (("After=db.socket",), {"db": "ready"}),
        (("After=nosuch.service",), None),
        (("After=network-online.target",), None),
    ],
)
def test_dependence(tmp_path: Path, unit: tuple[str, ...], after: Any) -> None:
    """After= makes the order, BindsTo= and PartOf= bind; without After= there is no order; each line is told of."""
    db_socket = "[Socket]\nListenStream=80"
    found, told = load(tmp_path, web_service=service(unit=unit), db_service=service("Type=notify"), db_socket=db_socket)
    assert found["web"].get("after") == after
    for line in unit:
        key, _, value = line.partition("=")
        assert (key, value) in findings(told[:1], "mapped", NOTE, NOT_MAPPED)
    if after is None:
        assert findings(told[:1], NOTE, NOT_MAPPED)


def test_a_oneshot_binds_nobody(tmp_path: Path) -> None:
    """What is bound to a oneshot that is gone afterwards would never run, so it is not bound, and that is said."""
    unit = ("After=once.service", "BindsTo=once.service")
    found, told = load(tmp_path, web_service=service(unit=unit), once_service=service("Type=oneshot"))
    assert found["web"]["after"] == {"once": "completed"}
    assert ("BindsTo", "once.service") in findings(told, NOT_MAPPED)
    remains = service("Type=oneshot", "RemainAfterExit=yes")
    found, _ = load(tmp_path, web_service=service(unit=unit), once_service=remains)
    assert found["web"]["after"] == {"once": {"when": "completed", "bind": True}}


def test_circles_are_not_written(tmp_path: Path) -> None:
    """An order that would go in a circle is left out where it closes, and that is said."""
    found, told = load(
        tmp_path,
        a_service=service(unit=("After=b.service",)),
        b_service=service(unit=("After=c.service",)),
        c_service=service(unit=("After=a.service",)),
    )
    assert [found[name].get("after") for name in "abc"] == [{"b": "started"}, {"c": "started"}, None]
    assert findings(told, NOT_MAPPED) == [("After", "a.service")]


def test_nobody_waits_for_a_job(tmp_path: Path) -> None:
    """A service with a timer is no condition; a job itself may wait for others."""
    found, told = load(
        tmp_path,
        web_service=service(unit=("After=job.service",)),
        job_service=service("Type=oneshot", unit=("After=db.service",)),
        job_timer="[Timer]\nOnCalendar=daily",
        db_service=service(),
    )
    assert "after" not in found["web"]
    assert ("After", "job.service") in findings(told, NOT_MAPPED)
    assert found["job"]["after"] == {"db": "started"}


# --- readiness ---


@pytest.mark.parametrize(
    ("lines", "ready", "watchdog"),
    [
        (["Type=notify"], {"notify": True}, None),
        (["Type=notify", "TimeoutStartSec=2min"], {"notify": True, "timeout": 120}, None),
        (["Type=notify", "TimeoutSec=20"], {"notify": True, "timeout": 20}, None),
        (["Type=notify", "TimeoutStartSec=infinity"], {"notify": True, "timeout": 366 * 86400}, None),
        (["Type=notify-reload", "WatchdogSec=500ms"], {"notify": True}, 0.5),
        (["WatchdogSec=30"], None, 30),
        (["WatchdogSec=0"], None, None),
        (["Type=exec", "TimeoutStartSec=30"], None, None),
    ],
)
def test_ready_and_watchdog(tmp_path: Path, lines: list[str], ready: Any, watchdog: Any) -> None:
    """Type=notify is `ready`, with the time that the start has, and WatchdogSec= is `watchdog`."""
    found, _ = load(tmp_path, web_service=service(*lines))
    assert (found["web"].get("ready"), found["web"].get("watchdog")) == (ready, watchdog)


@pytest.mark.parametrize("line", ["TimeoutStartSec=soon", "RuntimeMaxSec=x", "WatchdogSec=-1", "Type=nosuch"])
def test_values_that_make_no_sense(tmp_path: Path, line: str) -> None:
    """A value that makes no sense is an error of its line, and keeps the process from being written."""
    found, told = load(tmp_path, job_service=service(line), job_timer="[Timer]\nOnCalendar=daily")
    assert not found
    assert findings(told, ERROR) == [tuple(line.split("="))]


# --- sockets ---


@pytest.mark.parametrize(
    ("lines", "sockets"),
    [
        (["ListenStream=80"], {"web.socket": {"address": "tcp::80", "backlog": 4096}}),
        (["ListenStream=[::]:80"], {"web.socket": {"address": "tcp::80", "backlog": 4096}}),
        (
            ["ListenStream=[::]:80", "BindIPv6Only=ipv6-only"],
            {"web.socket": {"address": "tcp:[::]:80", "backlog": 4096}},
        ),
        (["ListenStream=127.0.0.1:80", "Backlog=7"], {"web.socket": {"address": "tcp:127.0.0.1:80", "backlog": 7}}),
        (["ListenDatagram=[::1]:53", "FileDescriptorName=dns"], {"dns": {"address": "udp:[::1]:53"}}),
        (
            ["ListenStream=/run/w", "SocketMode=0600"],
            {"web.socket": {"address": "unix:/run/w", "backlog": 4096, "mode": "0600"}},
        ),
        (
            ["ListenStream=1", "ListenStream=", "FileDescriptorName=a", "ListenStream=2", "ListenStream=3"],
            {"a": {"address": "tcp::2", "backlog": 4096}, "a-2": {"address": "tcp::3", "backlog": 4096}},
        ),
    ],
)
def test_sockets(tmp_path: Path, lines: list[str], sockets: Any) -> None:
    """The sockets of a unit are `sockets` of its service, by name and in order."""
    text = "\n".join(["[Socket]", *lines])
    found, _ = load(tmp_path, web_socket=text, web_service=service())
    assert found["web"]["sockets"] == sockets
    assert list(found["web"]["sockets"]) == list(sockets)


@pytest.mark.parametrize(
    "line", ["ListenStream=@x", "ListenDatagram=/run/x", "ListenFIFO=/run/x", "ListenStream=vsock::1", "ListenStream=0"]
)
def test_sockets_that_cannot_be_passed(tmp_path: Path, line: str) -> None:
    """A socket that we cannot open is said to be missing."""
    found, told = load(tmp_path, web_socket=f"[Socket]\n{line}", web_service=service())
    assert "sockets" not in found["web"]
    assert tuple(line.split("=")) in findings(told, NOT_MAPPED)


def test_sockets_without_their_service(tmp_path: Path) -> None:
    """A socket or timer whose service is not imported is an error; of a service that is refused it is not mapped."""
    _, told = load(tmp_path, web_socket="[Socket]\nListenStream=80", job_timer="[Timer]\nOnCalendar=daily")
    assert findings(told, ERROR) == [("web.socket", ""), ("job.timer", "")]
    _, told = load(tmp_path, web_socket="[Socket]\nListenStream=80", web_service=service("Type=forking"))
    assert findings(told, ERROR) == []
    assert ("web.socket", "") in findings(told, NOT_MAPPED)


def test_a_process_for_each_connection_is_refused(tmp_path: Path) -> None:
    """Accept=yes has no counterpart, which is said once."""
    found, told = load(tmp_path, web_socket="[Socket]\nListenStream=80\nAccept=yes", web_service=service())
    assert "sockets" not in found["web"]
    assert findings(told[:1], NOT_MAPPED) == [("Accept", "yes")]


# --- timers ---


@pytest.mark.parametrize(
    ("timer", "lines", "schedule"),
    [
        (["OnCalendar=*-*-* 00,12:00:00", "RandomizedDelaySec=12h", "Persistent=true"], [],
         {"cron": "0 0,12 * * *", "jitter": 43200, "catch_up": True}),
        (["OnCalendar=Mon 3:00 Europe/Berlin"], ["TimeoutStartSec=1h"],
         {"cron": "0 3 * * 1", "timezone": "Europe/Berlin", "timeout": 3600}),
        (["OnCalendar=daily", "OnCalendar=", "OnCalendar=hourly"], ["TimeoutStartSec=infinity"], {"cron": "0 * * * *"}),
        (["OnCalendar=04:00", "OnCalendar=16:00"], [], {"cron": "0 4,16 * * *"}),
        (["OnUnitActiveSec=90s", "OnBootSec=5min"], [], {"every": 90}),
    ],
)  # fmt: skip
def test_timers(tmp_path: Path, timer: list[str], lines: list[str], schedule: Any) -> None:
    """A timer makes its service a job, that nobody restarts, at the same times."""
    found, _ = load(
        tmp_path,
        job_service=service("Type=oneshot", "Restart=on-failure", *lines),
        job_timer="\n".join(["[Timer]", *timer]),
    )
    assert found["job"]["schedule"] == schedule
    assert not {"restart", "give_up", "min_restart_delay", "max_restart_delay"} & set(found["job"])


@pytest.mark.parametrize(
    "timer",
    [
        ["OnCalendar=2030-01-01"],
        ["OnCalendar=04:00", "OnCalendar=16:30"],
        ["OnBootSec=5min"],
        ["OnUnitInactiveSec=5min"],
        ["OnCalendar=some day"],
        [],
    ],
)
def test_times_that_cannot_be_said(tmp_path: Path, timer: list[str]) -> None:
    """Without its times a job is written, and not enabled: it runs at no time that nobody asked for."""
    text = "\n".join(["[Timer]", *timer, "AccuracySec=1s"])
    found, told = load(tmp_path, job_service=service("Type=oneshot"), job_timer=text)
    assert found["job"]["enabled"] is False
    assert "schedule" not in found["job"]
    assert any("not enabled" in one.why for one in told[1].findings)


def test_a_timer_for_another_unit(tmp_path: Path) -> None:
    """Unit= says whose times they are, and a second timer of a service is told of."""
    found, told = load(
        tmp_path,
        job_service=service(),
        nightly_timer="[Timer]\nUnit=job.service\nOnCalendar=daily",
        job_timer="[Timer]\nOnCalendar=hourly",
    )
    assert found["job"]["schedule"] == {"cron": "0 0 * * *"}
    assert ("job.timer", "") in findings(told, NOT_MAPPED)
