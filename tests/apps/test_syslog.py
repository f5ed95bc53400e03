"""Forwarding to syslog: the real program, real sockets, real collectors that are killed and come back."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from twisted.python.usage import UsageError

from colony import Colony
from ncolony.apps import syslog
from ncolony.apps.collector import Bell, Gone, Stopped, Tcp, Unix
from scribe import T0, S, Scribe

KINDS = ["tcp", "udp", "unix-datagram", "unix-stream"]
RFC_5424 = re.compile(
    r"<(?P<pri>\d{1,3})>1 (?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (?P<host>[!-~]{1,255}) (?P<app>[!-~]{1,48})"
    r" - - - (?P<text>.*)",
    re.DOTALL,
)
COLLECTOR = Path(__file__).parent.parent / "collector.py"
PAGE = (Path(__file__).parent.parent.parent / "docs" / "logs.md").read_text(encoding="utf-8")
NEVER = "3600"


def wait_for(condition: Callable[[], Any], what: str, patience_s: float = 60) -> Any:
    """What the condition returns once it is true."""
    deadline = time.monotonic() + patience_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"it never came true: {what}"
        time.sleep(0.01)
    return found


class Collector:
    """A collector that can be killed and comes back at the same place."""

    def __init__(self, root: Path, kind: str, *how: str) -> None:
        self.kind, self.file, self._how = kind, root / f"received-{kind}", how
        self.address = "0" if kind in ("tcp", "udp") else str(root / kind)
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def place(self) -> str:
        """What --to takes."""
        return f"{self.kind}:127.0.0.1:{self.address}" if self.kind in ("tcp", "udp") else f"unix:{self.address}"

    def start(self) -> None:
        """Listen; at the same place as before."""
        command = [sys.executable, "-S", str(COLLECTOR), self.kind, self.address, str(self.file), *self._how]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        assert self.process.stdout
        self.address = self.process.stdout.readline().decode().strip()
        assert self.address

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout
            self.process.stdout.close()
            self.process = None

    def messages(self) -> list[re.Match[str]]:
        """What was received so far, each as RFC 5424 has it; bytes are letters."""
        data = self.file.read_bytes() if self.file.exists() else b""
        found = [RFC_5424.fullmatch(json.loads(line)) for line in data.split(b"\n")[:-1]]
        assert all(found), data
        return [one for one in found if one]

    def texts(self) -> list[str]:
        return [one["text"].encode("latin-1").decode("utf-8", "replace") for one in self.messages()]

    def wait_for_texts(self, *texts: str) -> None:
        """Wait until exactly these were received."""
        try:
            wait_for(lambda: self.texts() == list(texts), "all is received", 30)
        except AssertionError:
            assert self.texts() == list(texts)


class Yard:
    """A colony's directories without a supervisor, what is written there, and the forwarders that read it."""

    def __init__(self, root: Path) -> None:
        self.root, self.logs = root, root / "state" / "logs"
        for name in ("conf", "messages", "state/logs"):
            (root / name).mkdir(parents=True)
        self.forwarders: list[subprocess.Popen[bytes]] = []
        self.collectors: list[Collector] = []
        self.log = root / "forwarder.log"

    def collector(self, kind: str, *how: str) -> Collector:
        self.collectors.append(Collector(self.root, kind, *how))
        return self.collectors[-1]

    def command(self, to: str, *options: str) -> list[str]:
        return [
            *(sys.executable, "-m", "twisted", "--log-format=text", "ncolony-syslog", "--to", to),
            *("--messages", str(self.root / "messages"), "--config", str(self.root / "conf")),
            *("--state", str(self.root / "state"), "--hostname", "here", *options),
        ]

    def forward(self, to: str, *options: str, confirm: str = "0.2", **env: str) -> subprocess.Popen[bytes]:
        """Start a forwarder."""
        with self.log.open("ab") as log:
            self.forwarders.append(
                subprocess.Popen(
                    self.command(to, "--confirm", confirm, *options),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **env},
                )
            )
        return self.forwarders[-1]

    def said(self) -> list[str]:
        """What forwarders logged, without times and Twisted's own lines."""
        lines = self.log.read_text().splitlines()
        return [line.partition("] ")[2] for line in lines if "[ncolony.syslog#" in line]

    def close(self) -> None:
        for forwarder in self.forwarders:
            forwarder.kill()
            forwarder.wait()
        for collector in self.collectors:
            collector.kill()


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    """Directories of a colony; nothing outlives the test."""
    found = Yard(tmp_path)
    yield found
    found.close()


def stop(forwarder: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and the end."""
    forwarder.terminate()
    forwarder.wait(30)


# What is sent


@pytest.mark.parametrize("kind", KINDS)
def test_messages(yard: Yard, kind: str) -> None:
    """Each line is a message of RFC 5424: its own time, the process as APP-NAME, the severity of its stream."""
    out, err = Scribe(yard.logs, "web"), Scribe(yard.logs, "web", stderr=True)
    out.write("hello\n", at=T0 + 123_456_789)
    out.write(b"gr\xc3\xbcn 10 \xff <1>\n", at=T0 + S)
    collector = yard.collector(kind)
    yard.forward(collector.place)
    collector.wait_for_texts("hello", "grün 10 � <1>")
    err.write("oops\n", at=T0 + 2 * S)
    out.write("\n", at=T0 + 3 * S)
    wait_for(lambda: len(collector.messages()) == 4, "all four are there")
    found = {one["text"]: (one["pri"], one["time"], one["host"], one["app"]) for one in collector.messages()}
    assert found == {
        "hello": ("30", "2023-11-14T22:13:20.123Z", "here", "web"),
        "gr\xc3\xbcn 10 \xff <1>": ("30", "2023-11-14T22:13:21.000Z", "here", "web"),
        "oops": ("27", "2023-11-14T22:13:22.000Z", "here", "web"),
        "": ("30", "2023-11-14T22:13:23.000Z", "here", "web"),
    }


def test_facility_and_names(yard: Yard) -> None:
    """The facility and the APP-NAME can be chosen; what a header cannot hold is replaced, and cut."""
    Scribe(yard.logs, "ä b:0").write("x\n")
    Scribe(yard.logs, "y" * 60).write("y\n")
    collector = yard.collector("tcp")
    yard.forward(collector.place, "--facility=local0", "--app-name=shop/{name}")
    wait_for(lambda: len(collector.messages()) == 2, "both are there")
    found = {one["text"]: (one["pri"], one["app"]) for one in collector.messages()}
    assert found == {"x": ("134", "shop/__b:0"), "y": ("134", "shop/" + "y" * 43)}


@pytest.mark.parametrize(("kind", "longest"), [("tcp", 8192), ("udp", 2048), ("unix-datagram", 8192)])
def test_long_lines(yard: Yard, kind: str, longest: int) -> None:
    """A line that is too long for a message becomes several; nothing is missing, no character is torn."""
    text = "€" * 50_000
    Scribe(yard.logs, "web").write(f"{text}\nafter\n")
    collector = yard.collector(kind)
    yard.forward(collector.place)
    wait_for(lambda: collector.texts()[-1:] == ["after"], "the line after it is there")
    texts = collector.texts()
    assert "".join(texts) == text + "after"
    assert max(len(one[0]) for one in collector.messages()) in range(longest - 4, longest + 1)


def test_longest(yard: Yard) -> None:
    """How long a message may be can be chosen."""
    Scribe(yard.logs, "web").write("x" * 5000 + "\n")
    collector = yard.collector("udp")
    yard.forward(collector.place, "--longest=480")
    wait_for(lambda: sum(map(len, collector.texts())) == 5000, "all is there")
    assert {len(one[0]) for one in collector.messages()[:-1]} == {480}


def test_which_processes(yard: Yard) -> None:
    """Only those that are selected are forwarded, and never the forwarder itself."""
    for name in ("web:0", "web:1", "db", "other", "syslog:0", "syslog"):
        Scribe(yard.logs, name).write(f"{name}\n")
    collector = yard.collector("tcp")
    first = yard.forward(collector.place, NCOLONY_NAME="syslog:0")
    wait_for(lambda: sorted(collector.texts()) == ["db", "other", "web:0", "web:1"], "all but itself are there")
    stop(first)
    yard.forward(collector.place, "--select=web", "--select=d*", "--offsets", str(yard.root / "offsets"))
    wait_for(lambda: len(collector.texts()) >= 7, "the selected ones are there")
    assert sorted(collector.texts()[4:]) == ["db", "web:0", "web:1"]


def test_follows(yard: Yard) -> None:
    """Processes that appear, rotations, compressed files and ends in mid-line are followed; unfinished lines wait."""
    web = Scribe(yard.logs, "web")
    web.write("1\n")
    web.rotate()
    web.compress(0)
    web.write("2\n3")
    collector = yard.collector("tcp")
    yard.forward(collector.place)
    collector.wait_for_texts("1", "2")
    web.rotate()
    web.write("-\n")
    collector.wait_for_texts("1", "2", "3-")
    web.write("4")
    web.cut()
    collector.wait_for_texts("1", "2", "3-", "4")
    Scribe(yard.logs, "new").write("5\n")
    collector.wait_for_texts("1", "2", "3-", "4", "5")


# Each line at least once


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_and_started_again(yard: Yard, kind: str) -> None:
    """What was sent before a stop is not sent again after it, and what was printed meanwhile is."""
    web, collector = Scribe(yard.logs, "web"), yard.collector(kind)
    for number in range(3):
        web.write(f"{number}\n")
        forwarder = yard.forward(collector.place, confirm=NEVER)
        collector.wait_for_texts(*map(str, range(number + 1)))
        stop(forwarder)
    assert yard.said() == []


def remembered(yard: Yard) -> list[int]:
    """The offset of `web` that a forwarder has written down, none where there is none yet."""
    data = [path.read_bytes() for path in (yard.root / "state" / "syslog").rglob("stdout/web")]
    return [int(offset) for offset in data if offset]


class Writer:
    """Prints numbered lines, rotating now and then, until it is stopped."""

    def __init__(self, yard: Yard) -> None:
        self.scribe = Scribe(yard.logs, "web")
        self.count, self._stopped = 0, False
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def _write(self) -> None:
        while not self._stopped:
            text = "".join(f"{number} {'.' * (number % 200)}\n" for number in range(self.count, self.count + 20))
            self.scribe.write(text)
            self.count += 20
            if self.count % 1000 == 0:
                self.scribe.rotate()
            time.sleep(0.002)

    def stop(self) -> int:
        """How many lines were printed."""
        self._stopped = True
        self._thread.join()
        return self.count


def wait_for_more(collector: Collector) -> None:
    """Wait for some hundred messages more."""
    seen = len(collector.texts())
    wait_for(lambda: len(collector.texts()) > seen + 300, "more lines came")


def numbers(collector: Collector) -> list[int]:
    return [int(text.split()[0]) for text in collector.texts()]


def check_at_least_once(found: list[int], count: int) -> None:
    """All are there. One that is not the successor of the one before it goes back, to where nothing is missing."""
    assert set(found) == set(range(count))
    assert all(later <= earlier + 1 for earlier, later in pairwise(found))


@pytest.mark.parametrize("kind", ["tcp", "unix-datagram", "unix-stream"])
def test_collector_killed_and_back(yard: Yard, kind: str) -> None:
    """Over the death of the collector, again and again in the middle of it, no line is lost."""
    collector, writer = yard.collector(kind), Writer(yard)
    forwarder = yard.forward(collector.place)
    for _ in range(4):
        wait_for_more(collector)
        collector.kill()
        collector.start()
    count = writer.stop()
    wait_for(lambda: count - 1 in numbers(collector), "the last line came")
    stop(forwarder)
    check_at_least_once(numbers(collector), count)


def test_udp_collector_gone_and_back(yard: Yard) -> None:
    """Over UDP nothing is lost that is printed while nobody listens."""
    web, collector = Scribe(yard.logs, "web"), yard.collector("udp")
    web.write("0\n")
    yard.forward(collector.place)
    collector.wait_for_texts("0")
    # Sent and made sure of, so that what is lost below could only be what was printed while it was gone.
    wait_for(lambda: remembered(yard) == [2], "it is remembered")
    collector.kill()
    for number in range(1, 200):
        web.write(f"{number}\n")
    wait_for(lambda: any("gone" in line for line in yard.said()), "it noticed")
    collector.start()
    wait_for(lambda: 199 in numbers(collector), "the last line came")
    check_at_least_once(numbers(collector), 200)


@pytest.mark.parametrize("kind", ["tcp", "unix-datagram"])
def test_forwarder_killed(yard: Yard, kind: str) -> None:
    """Over the SIGKILL of the forwarder no line is lost; what comes twice was not made sure of yet."""
    collector, writer = yard.collector(kind), Writer(yard)
    for _ in range(4):
        forwarder = yard.forward(collector.place)
        wait_for_more(collector)
        forwarder.kill()
        forwarder.wait()
    count = writer.stop()
    forwarder = yard.forward(collector.place)
    wait_for(lambda: count - 1 in numbers(collector), "the last line came")
    stop(forwarder)
    check_at_least_once(numbers(collector), count)


def test_what_is_sure_is_not_sent_again(yard: Yard) -> None:
    """What was made sure of does not come again after a SIGKILL."""
    web, collector = Scribe(yard.logs, "web"), yard.collector("tcp")
    web.write("1\n")
    forwarder = yard.forward(collector.place, confirm="0")
    wait_for(lambda: remembered(yard) == [2], "it is remembered")
    forwarder.kill()
    forwarder.wait()
    web.write("2\n")
    yard.forward(collector.place)
    collector.wait_for_texts("1", "2")


def test_gone_and_back_are_said_once(yard: Yard) -> None:
    """That the collector is gone is said once, however often it is tried, and once that it is back."""
    web, collector = Scribe(yard.logs, "web"), yard.collector("tcp")
    collector.kill()
    web.write("1\n")
    yard.forward(collector.place)
    gone = f"{collector.place}: the collector is gone (Connection refused); trying again"
    wait_for(lambda: yard.said() == [gone], "it is said")
    web.write("2\n")
    before = connections()
    wait_for(lambda: connections() > before + 1, "it tries again and again")
    collector.start()
    collector.wait_for_texts("1", "2")
    wait_for(lambda: yard.said() == [gone, f"{collector.place}: the collector is back"], "that is said too")


def connections() -> int:
    """How many connections this machine has tried to make."""
    names, values = (
        line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Tcp:")
    )
    return int(values[names.index("ActiveOpens")])


def test_a_log_that_was_removed(yard: Yard) -> None:
    """A log that was removed and begun anew is forwarded from its new beginning; nothing is remembered of the old."""
    web, collector = Scribe(yard.logs, "web"), yard.collector("tcp")
    web.write("a long first life\n")
    yard.forward(collector.place)
    wait_for(lambda: remembered(yard) == [web.end], "it is remembered")
    shutil.rmtree(web.directory)
    wait_for(lambda: remembered(yard) == [], "it is forgotten")
    Scribe(yard.logs, "web").write("new\n")
    collector.wait_for_texts("a long first life", "new")


def test_one_log_that_cannot_be_read(yard: Yard) -> None:
    """A log that cannot be read is told of once, and holds up no other."""
    broken, web = Scribe(yard.logs, "broken"), Scribe(yard.logs, "web")
    broken.current.mkdir()
    collector = yard.collector("tcp")
    yard.forward(collector.place)
    for number in range(3):
        web.write(f"{number}\n")
        collector.wait_for_texts(*map(str, range(number + 1)))
    assert yard.said() == ["cannot read the log of broken: Is a directory; trying again"]
    broken.current.rmdir()
    broken.write("mended\n")
    collector.wait_for_texts("0", "1", "2", "mended")


def test_more_logs_than_descriptors(yard: Yard) -> None:
    """More logs than it may have files open are forwarded all the same."""
    scribes = [Scribe(yard.logs, f"p{number}") for number in range(150)]
    for scribe in scribes:
        scribe.write(f"{scribe.name}\n")
    collector = yard.collector("tcp")
    limited = ["sh", "-c", 'ulimit -n 60; exec "$@"', "sh", *yard.command(collector.place, "--confirm=0.2")]
    with yard.log.open("ab") as log:
        yard.forwarders.append(subprocess.Popen(limited, stdout=log, stderr=log))
    wait_for(lambda: len(collector.texts()) == 150, "all are there")
    for scribe in scribes[::50]:
        scribe.write("more\n")
    wait_for(lambda: collector.texts()[150:] == ["more"] * 3, "more is there")
    assert yard.said() == []


# The ways there, by themselves


def test_a_collector_that_never_closes(yard: Yard) -> None:
    """One that does not answer the end of a connection with its own is served all the same, and that is said once."""
    lazy, bell = yard.collector("tcp", "lazy"), Bell()
    link = Tcp(bell, "127.0.0.1", int(lazy.address))
    link.send([b"<30>1 2023-11-14T22:13:20.123Z here web - - - 1"])
    assert "does not close" in link.confirm(patience=0.2)
    link.send([b"<30>1 2023-11-14T22:13:20.123Z here web - - - 2"])
    assert link.confirm(patience=0.2) == ""
    wait_for(lambda: sorted(lazy.texts()) == ["1", "2"], "both are there")
    link.close()


@pytest.mark.parametrize("kind", ["tcp", "unix-datagram", "unix-stream"])
def test_a_collector_killed_before_it_read(yard: Yard, kind: str) -> None:
    """What the kernel had taken but the collector had not read when it was killed is not taken for arrived, though
    another collector is there already."""
    deaf, bell = yard.collector(kind, "deaf"), Bell()
    link = Tcp(bell, "127.0.0.1", int(deaf.address)) if kind == "tcp" else Unix(bell, deaf.address)
    link.send([b"1"])
    deaf.kill()
    deaf.start()
    with pytest.raises(Gone):
        link.confirm(patience=30)
    link.close()


def test_a_collector_that_does_not_read(yard: Yard) -> None:
    """What a collector on this machine has not read is not taken for arrived, and can be waited for without end."""
    deaf, bell = yard.collector("unix-datagram", "deaf"), Bell()
    link = Unix(bell, deaf.address)
    link.send([b"1"])
    with pytest.raises(Gone, match="does not read"):
        link.confirm(patience=0.1)
    bell.ring()
    with pytest.raises(Stopped):
        link.send([b"x" * 1000] * 10_000)
    link.close()


def test_stop_while_the_collector_does_not_read(yard: Yard) -> None:
    """A stop comes through while a send is stuck, and nothing that was not sent is taken for sent."""
    web, deaf = Scribe(yard.logs, "web"), yard.collector("unix-stream", "deaf")
    count = 20_000
    web.write("".join(f"{number} {'.' * 100}\n" for number in range(count)))
    forwarder = yard.forward(deaf.place)
    wait_for(lambda: is_stuck(forwarder.pid), "it is stuck")
    stop(forwarder)
    deaf.kill()
    deaf._how = ()
    deaf.start()
    yard.forward(deaf.place)
    wait_for(lambda: count - 1 in numbers(deaf), "the last line came")
    check_at_least_once(numbers(deaf), count)


def is_stuck(pid: int) -> bool:
    """Whether all threads of a process wait, and one of them to write to a socket: it holds a log and a connection."""
    try:
        targets = [os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return False
    if not any(target.endswith("/web/current") for target in targets):
        return False
    before = used(pid)
    time.sleep(0.3)
    return used(pid) == before


def used(pid: int) -> int:
    """Clock ticks of processor time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


# Options


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("udp:logs.example.com:5514", ("udp", "logs.example.com", 5514)),
        ("tcp:10.0.0.1", ("tcp", "10.0.0.1", 514)),
        ("tcp:[::1]:601", ("tcp", "::1", 601)),
        ("udp:[::1]", ("udp", "::1", 514)),
        ("unix:/dev/log", ("unix", "/dev/log", 0)),
    ],
)
def test_places(text: str, place: tuple[str, str, int]) -> None:
    """A collector is named by its kind and address; the port is 514 unless said otherwise."""
    assert syslog.parse_place(text) == place


@pytest.mark.parametrize(
    "text", ["", "udp", "udp:", "tcp::514", "tcp:h:0", "tcp:h:x", "tcp:h:70000", "unix:log", "x:y:1"]
)
def test_no_places(text: str) -> None:
    """Anything else is a usage error."""
    with pytest.raises(UsageError, match="--to"):
        syslog.Options().parseOptions(["--messages", "m", "--config", "c", "--to", text])


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ([], "--messages DIR is required"),
        (["--messages=m"], "--config DIR is required"),
        (["--messages=m", "--config=c"], "--to PLACE is required"),
        (["--facility=x"], "--facility: expected one of kern, user"),
        (["--confirm=soon"], "--confirm: expected seconds"),
        (["--longest=100"], "--longest: expected bytes from 480"),
        (["extra"], "unexpected argument 'extra'"),
    ],
)
def test_bad_options(words: list[str], wrong: str) -> None:
    """What is missing or makes no sense is a usage error."""
    with pytest.raises(UsageError, match=re.escape(wrong)):
        syslog.Options().parseOptions(words)


def test_two_for_one_collector(yard: Yard) -> None:
    """A second forwarder that would remember in the same place refuses to start."""
    collector = yard.collector("tcp")
    Scribe(yard.logs, "web").write("1\n")
    yard.forward(collector.place)
    collector.wait_for_texts("1")
    found = subprocess.run(yard.command(collector.place), capture_output=True, text=True, check=False)
    assert found.returncode == 1
    [line] = [line for line in found.stderr.splitlines() if "cannot start" in line]
    assert line.startswith("cannot start: another ncolony-syslog remembers in ")
    assert "Traceback" not in found.stderr


# In earnest


def test_as_a_process_of_the_colony(colony: Colony, tmp_path: Path) -> None:
    """Run by the colony whose output it forwards, as the page on output has it, it forwards all but its own, over the
    death of both."""
    collector = Collector(tmp_path, "tcp")
    try:
        [example] = [block for block in re.findall(r"(?ms)^```json\n(.*?)^```", PAGE) if "ncolony-syslog" in block]
        said = {"/messages": colony.messages, "/conf": colony.config, "tcp:logs.example.com:601": collector.place}
        definition = json.loads(example)
        args = [str(said.get(word, word)) for word in definition["args"]]
        assert (args[0], args[3]) == ("python", "--log-format=text")
        colony.put("syslog", {**definition, "args": [sys.executable, *args[1:], "--state", str(colony.state)]})
        colony.put("web", {"args": colony.payload("web", "say", "hello", "there")})
        colony.start()
        wait_for(lambda: collector.texts() == ["hello", "there"], "all is there")
        os.kill(colony.wait_until_running("syslog"), signal.SIGKILL)
        colony.kill()
        colony.start()
        colony.wait_for_status("syslog", state="RUNNING", instance=2)
        colony.send({"type": "RESTART", "name": "web"})
        wait_for(lambda: collector.texts()[-2:] == ["hello", "there"] and len(collector.texts()) >= 4, "all is there")
        assert {one["app"] for one in collector.messages()} == {"web"}
        assert colony.stop() == 0
        assert b"ncolony-syslog" not in collector.file.read_bytes()
    finally:
        collector.kill()


@pytest.mark.skipif(not shutil.which("rsyslogd"), reason="rsyslogd is not installed")
@pytest.mark.parametrize("kind", ["tcp", "udp", "unix"])
def test_rsyslog(yard: Yard, kind: str) -> None:
    """Debian's rsyslog understands it all: time, host, application, severity and text."""
    port, path = free_port(), yard.root / "log.sock"
    load = {
        "tcp": f'module(load="imtcp")\ninput(type="imtcp" address="127.0.0.1" port="{port}")',
        "udp": f'module(load="imudp")\ninput(type="imudp" address="127.0.0.1" port="{port}")',
        "unix": f'module(load="imuxsock" SysSock.Use="off")\ninput(type="imuxsock" Socket="{path}"'
        ' UseSpecialParser="off" ParseHostname="on" IgnoreTimestamp="off")',
    }
    (yard.root / "rsyslog.conf").write_text(
        f'global(workDirectory="{yard.root}")\n{load[kind]}\n'
        'template(name="t" type="string" string="%syslogfacility-text%.%syslogseverity-text%'
        ' %timereported:::date-rfc3339% %hostname% %app-name% %msg%\\n")\n'
        f'action(type="omfile" file="{yard.root}/out" template="t")\n'
    )
    command = ["rsyslogd", "-n", "-f", str(yard.root / "rsyslog.conf"), "-i", str(yard.root / "pid")]
    with (yard.root / "rsyslog.err").open("wb") as said:
        daemon = subprocess.Popen(command, stdout=said, stderr=said)
    try:
        wait_for(lambda: (yard.root / "pid").exists(), "rsyslogd is up")
        Scribe(yard.logs, "web").write("hello\nthere\n", at=T0)
        Scribe(yard.logs, "web", stderr=True).write("oops\n", at=T0 + S)
        yard.forward(f"unix:{path}" if kind == "unix" else f"{kind}:127.0.0.1:{port}")
        out = yard.root / "out"
        wait_for(lambda: out.exists() and out.read_bytes().count(b"\n") == 3, (yard.root / "rsyslog.err").read_text())
        lines = [re.sub(r"\+00:00|Z", "", line) for line in out.read_text().splitlines()]
        assert sorted(line.replace("  ", " ") for line in lines) == [
            "daemon.err 2023-11-14T22:13:21.000 here web oops",
            "daemon.info 2023-11-14T22:13:20.000 here web hello",
            "daemon.info 2023-11-14T22:13:20.000 here web there",
        ]
    finally:
        daemon.kill()
        daemon.wait()


def free_port() -> int:
    """A port that nobody uses; rsyslog cannot be asked which one the kernel gave it."""
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
