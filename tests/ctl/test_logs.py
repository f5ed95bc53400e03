"""`ctl logs`: what processes printed, of one bare, of several by time, and what is still to come."""

from __future__ import annotations

import itertools
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ctl_colony import Colony

from colony import Colony as RealColony
from ncolony import cli, ctllib
from ncolony.ctllib.logs import read_logs
from scribe import T0, S, Scribe

NOW = time.time_ns()
MOMENT = "2023-11-14T22:13:"  # T0 is 20 s after this minute began, in UTC


@pytest.fixture
def scribe(colony: Colony) -> Callable[..., Scribe]:
    """Begin the log of a process."""
    return lambda name, **more: Scribe(colony.state / "logs", name, **more)


def shown(colony: Colony, *words: str, **more: Any) -> str:
    """What `ctl logs` prints; nothing else may be said."""
    found = colony.run("logs", *words, **more)
    assert (found.returncode, found.stderr) == (0, "")
    return found.stdout


def failure(colony: Colony, *words: str) -> tuple[int, str]:
    """The exit status and the only line of standard error."""
    found = colony.run("logs", *words)
    assert found.stdout == ""
    [line] = found.stderr.splitlines()
    return found.returncode, line


def on_terminal(argv: list[str], env: dict[str, str]) -> bytes:
    """What a program writes to a terminal."""
    own, its = pty.openpty()
    process = subprocess.Popen(argv, stdout=its, stdin=subprocess.DEVNULL, env=env)
    os.close(its)
    data = b""
    try:
        while part := os.read(own, 1 << 16):
            data += part
    except OSError:
        pass  # EIO: nobody has the terminal any more
    os.close(own)
    assert process.wait() == 0
    return data.replace(b"\r\n", b"\n")


# Of whom, and how it looks


def test_one_process_is_bare(colony: Colony, scribe: Callable[..., Scribe]) -> None:
    """The lines of one process come as they are."""
    scribe("web").write("one\ntwo\n")
    scribe("db").write("other\n")
    assert shown(colony, "web") == "one\ntwo\n"
    assert shown(colony, "--name=web") == "one\ntwo\n"


def test_several_are_prefixed_and_in_the_order_of_time(colony: Colony, scribe: Callable[..., Scribe]) -> None:
    """Of several processes each line bears its name, and they come by time; without a name all are meant."""
    web, db = scribe("web"), scribe("db")
    web.write("1\n", at=T0 + 1 * S)
    db.write("2\n", at=T0 + 2 * S)
    web.write("3\n", at=T0 + 3 * S)
    wanted = "[web] 1\n[db] 2\n[web] 3\n"
    assert shown(colony) == shown(colony, "web", "db") == shown(colony, "*b") == wanted


def test_which_processes(colony: Colony, scribe: Callable[..., Scribe]) -> None:
    """A name, what replicas share, a glob, and only where none of these fits, a group of the config files."""
    for name in ("web:0", "web:1", "webber", "db", "front"):
        scribe(name).write(f"{name}\n")
    (colony.config / "web").write_text('{"args": ["x"], "instances": 2, "group": "front"}')
    (colony.config / "db").write_text('{"args": ["x"], "group": ["back", "all"]}')
    (colony.config / "bad").write_text("{")

    def names(*words: str) -> set[str]:
        return set(re.findall(r"[a-z:0-9]+", shown(colony, *words).replace("[", "").replace("]", "")))

    assert names("web") == {"web:0", "web:1"}
    assert names("web:0") == {"web:0"}
    assert names("web*") == {"web:0", "web:1", "webber"}
    assert names("back", "webber") == {"db", "webber"}
    assert names("front") == {"front"}  # a process of that name comes first
    (colony.config / "db").write_text('{"args": ["x"], "group": "side"}')
    (colony.config / "web").write_text('{"args": ["x"], "instances": 2, "group": "side"}')
    assert names("side") == {"web:0", "web:1", "db"}


def test_names_that_look_like_something_else(colony: Colony, scribe: Callable[..., Scribe]) -> None:
    """Any name a process may have can be asked for: with blanks, brackets, dashes, umlauts."""
    for name in ("a b", "[x]", "-n", "ä"):
        scribe(name).write(f"{name}.\n")
    for name in ("a b", "[x]", "ä"):
        assert shown(colony, name) == f"{name}.\n"
    assert shown(colony, "--", "-n") == "-n.\n"


def test_no_such_process(colony: Colony, scribe: Callable[..., Scribe]) -> None:
    """One that nobody knows is told of, with status 4; the others are shown even so."""
    assert failure(colony, "web") == (4, "cannot show the logs of 'web': no such process")
    scribe("db").write("here\n")
    found = colony.run("logs", "web", "db")
    assert (found.returncode, found.stdout) == (4, "here\n")
    assert found.stderr == "cannot show the logs of 'web': no such process\n"


def test_known_but_silent(colony: Colony) -> None:
    """A process that is defined, or has a status, but never printed, is no error; that nothing is kept is said."""
    (colony.config / "web").write_text('{"args": ["x"]}')
    colony.report("db")
    for name in ("web", "db"):
        found = colony.run("logs", name)
        assert (found.returncode, found.stdout, found.stderr) == (0, "", f"nothing is kept of '{name}'\n")
    assert shown(colony) == ""


def test_removed_process(colony: Colony, scribe: Callable[..., Scribe]) -> None:
    """What a process printed can be read when it is not defined any more."""
    scribe("gone").write("last words")
    assert shown(colony, "gone") == "last words\n"


def test_where_the_logs_are(colony: Colony) -> None:
    """The supervisor's --logs is found while it runs and after its crash; --logs names it when it has ended."""
    logs = colony.root / "elsewhere"
    Scribe(logs, "web").write("here\n")
    assert shown(colony, "--logs", str(logs)) == "[web] here\n".removeprefix("[web] ")
    (colony.state / "supervisor.json").write_text(json.dumps({"pid": 1, "logs": str(logs)}))
    assert shown(colony, "web") == "here\n"
    (colony.state / "supervisor.json").write_text("{")
    assert failure(colony, "web")[0] == 4


# How much


def test_how_many_lines(colony: Colony, scribe: Callable[..., Scribe]) -> None:
    """The last hundred lines of each process by default, or as many as are asked for, or all."""
    web, db = scribe("web"), scribe("db")
    for number in range(250):
        web.write(f"{number}\n")
    db.write("db\n")
    assert shown(colony, "web") == "".join(f"{number}\n" for number in range(150, 250))
    assert shown(colony, "web", "-n", "3") == shown(colony, "web", "--lines=3") == "247\n248\n249\n"
    assert shown(colony, "web", "-n", "0") == ""
    assert shown(colony, "web", "-n", "all").count("\n") == 250
    assert sorted(shown(colony, "-n1").splitlines()) == ["[db] db", "[web] 249"]


def test_both_streams_count_together(colony: Colony, scribe: Callable[..., Scribe]) -> None:
    """Where standard error goes a way of its own, both streams come in the order of time and are counted as one."""
    out, err = scribe("web"), scribe("web", stderr=True)
    for number in range(0, 10, 2):
        out.write(f"out {number}\n", at=T0 + number * S)
        err.write(f"err {number + 1}\n", at=T0 + (number + 1) * S)
    assert shown(colony, "web", "-n", "3") == "err 7\nout 8\nerr 9\n"
    assert shown(colony, "web", "--stderr", "-n", "2") == "err 7\nerr 9\n"


def test_stderr_that_is_not_apart(colony: Colony, scribe: Callable[..., Scribe]) -> None:
    """--stderr of a process whose standard error is not kept apart says so and is no error."""
    scribe("web").write("mixed\n")
    assert failure(colony, "web", "--stderr") == (
        0,
        "standard error of 'web' is not kept apart (no stderr in the log key of its file)",
    )
    scribe("db", stderr=True).write("oops\n")
    assert shown(colony, "--stderr") == "[db] oops\n"


@pytest.mark.parametrize(
    ("words", "first", "last"),
    [
        (["--since=10m"], 0, 9),
        (["--since", "0h5m"], 5, 9),
        (["--since=0.1h"], 4, 9),
        (["--until=5m"], 0, 4),
        (["--since", "300s", "--until", "2m"], 5, 7),
        (["--since=1d", "-n", "2"], 8, 9),
        (["--until=5m", "-n", "2"], 3, 4),
    ],
)
def test_a_span_of_time(colony: Colony, scribe: Callable[..., Scribe], words: list[str], first: int, last: int) -> None:
    """--since and --until take spans before now, and find their place in every file; then all lines are meant."""
    web, now = scribe("web"), time.time_ns()
    for number in range(10):
        web.write(f"{number}\n", at=now - ((10 - number) * 60 - 30) * S)
        if number in (3, 6):
            web.rotate()
    web.compress(0)
    assert shown(colony, "web", *words).split() == [str(number) for number in range(first, last + 1)]


def test_a_time_of_day(colony: Colony, scribe: Callable[..., Scribe]) -> None:
    """--since takes a local time, or one with a zone; what is neither is told of in one line."""
    web = scribe("web")
    for number in range(10):
        web.write(f"{number}\n", at=T0 + number * S)
    env = {"TZ": "Asia/Kolkata"}  # half past five hours ahead
    assert shown(colony, "web", "--since", "2023-11-15T03:43:25", env=env).split() == list("56789")
    assert shown(colony, "web", "--since", MOMENT + "25Z", env=env).split() == list("56789")
    assert shown(colony, "web", "--since", "2023-11-15", env=env).split() == list("0123456789")
    for wrong in ("", "soon", "10", "m", "5m5", "-5m", "2023-13-01", "1..5s", "9" * 400 + "d", "³s"):
        code, line = failure(colony, "web", f"--since={wrong}")
        assert code == 1
        assert line.startswith("cannot show logs: --since: expected a span such as"), line


def test_grep(colony: Colony, scribe: Callable[..., Scribe]) -> None:
    """--grep chooses lines, the last of which are shown; a bad expression is told of in one line."""
    web = scribe("web")
    for number in range(300):
        web.write(f"line {number} grün\n" if number % 2 else f"line {number}\n")
    assert shown(colony, "web", "--grep", "GR.N") == ""
    assert shown(colony, "web", "--grep", "(?i)gr.N$", "-n", "2") == "line 297 grün\nline 299 grün\n"
    assert len(shown(colony, "web", "--grep", "line").splitlines()) == 100
    code, line = failure(colony, "web", "--grep", "(")
    assert (code, line.startswith("cannot show logs: --grep '(': missing )")) == (1, True)


# Its form


def test_bytes_go_out_unchanged(colony: Colony, scribe: Callable[..., Scribe]) -> None:
    """Into a file or a pipe the very bytes go that were printed; a long line is whole, a cut one ends."""
    data = bytes(range(256)) + b"\n" + b"long " * 100_000 + b"\n\xff\xfe\n"
    scribe("web").write(data)
    found = subprocess.run(colony.command("logs", "web"), capture_output=True, env=colony.environment(), check=True)
    assert found.stdout == data
    together = subprocess.run(colony.command("logs"), capture_output=True, env=colony.environment(), check=True)
    assert together.stdout == data


def test_a_long_line_of_several(colony: Colony, scribe: Callable[..., Scribe]) -> None:
    """Where lines have something before them, the pieces of a long one are lines, each but the last marked."""
    scribe("web").write("x" * 100_000 + "\n")
    scribe("db").write("y\n", at=T0 + 5 * S)
    assert shown(colony) == f"[web] {'x' * 65536} …\n[web] {'x' * 34464}\n[db] y\n"
    assert shown(colony, "web", "-n1", "--grep", "x") == f"{'x' * 65536} …\n{'x' * 34464}\n"
    first, last = map(json.loads, shown(colony, "web", "--json").splitlines())
    assert (len(first["line"]), first["partial"], len(last["line"]), "partial" in last) == (65536, True, 34464, False)


def test_timestamps(colony: Colony, scribe: Callable[..., Scribe]) -> None:
    """-t puts the time from the index before each line: ISO 8601, local, with milliseconds."""
    scribe("web").write("hello\n", at=T0 + 1_234_567)
    assert shown(colony, "web", "-t", env={"TZ": "UTC"}) == f"{MOMENT}20.001+00:00 hello\n"
    assert shown(colony, "web", "-t", env={"TZ": "Asia/Kolkata"}) == "2023-11-15T03:43:20.001+05:30 hello\n"
    assert shown(colony, "web", "-t", env={"TZ": "America/St_Johns"}) == "2023-11-14T18:43:20.001-03:30 hello\n"
    scribe("db").write("there\n", at=T0)
    assert shown(colony, "-t", env={"TZ": "UTC"}).splitlines()[0] == f"{MOMENT}20.000+00:00 [db] there"


def test_json(colony: Colony, scribe: Callable[..., Scribe]) -> None:
    """--json prints an object a line: time, name, stream and line; bytes that are no text are escaped.

    The stream is null where both come together.
    """
    scribe("web").write(b"gr\xc3\xbcn \xff\x01\n", at=T0)
    scribe("web", stderr=True).write(b"oops\n", at=T0 + S)
    scribe("db").write(b'"{}\\\t\n', at=T0 + 1_999_999)
    lines = [json.loads(line) for line in shown(colony, "--json", env={"TZ": "Asia/Kolkata"}).splitlines()]
    assert lines == [
        {"time": f"{MOMENT}20.000Z", "name": "web", "stream": "stdout", "line": "grün \\xff\x01"},
        {"time": f"{MOMENT}20.001Z", "name": "db", "stream": None, "line": '"{}\\\t'},
        {"time": f"{MOMENT}21.000Z", "name": "web", "stream": "stderr", "line": "oops"},
    ]


def test_on_a_terminal(colony: Colony, scribe: Callable[..., Scribe]) -> None:
    """On a terminal control characters are shown escaped, and the names are coloured, unless that is not wanted."""
    scribe("web").write("\x1b[2Jclear\rü\n", at=T0)
    scribe("db").write("x\n", at=T0 + S)
    argv, env = colony.command("logs"), colony.environment(TERM="xterm", LC_ALL="C.UTF-8")
    assert on_terminal(argv, env) == "\x1b[36m[web]\x1b[0m \\x1b[2Jclear\\x0dü\n\x1b[33m[db]\x1b[0m x\n".encode()
    plain = "[web] \\x1b[2Jclear\\x0dü\n[db] x\n".encode()
    assert on_terminal(argv, {**env, "NO_COLOR": "1"}) == plain
    assert on_terminal(argv, {**env, "TERM": "dumb"}) == plain
    assert on_terminal([*argv, "--json"], env).count(b"\\u001b[2J") == 1
    assert b"\x1b" not in on_terminal([*argv, "--json"], env)
    in_ascii = {**env, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "NO_COLOR": "1"}
    assert on_terminal(argv, in_ascii) == plain.replace("ü".encode(), b"\\xfc")


def test_closed_pipe(colony: Colony, scribe: Callable[..., Scribe]) -> None:
    """That nobody reads any further is no error and is not told of."""
    scribe("web").write("y\n" * 200_000)
    process = subprocess.Popen(
        colony.command("logs", "web", "-n", "all"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=colony.environment(),
    )
    assert process.stdout and process.stderr
    assert process.stdout.readline() == b"y\n"
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == (b"", 0)
    process.stderr.close()


def test_full_disk(colony: Colony, scribe: Callable[..., Scribe]) -> None:
    """That it cannot be written is told of in one line."""
    scribe("web").write("y\n")
    with open("/dev/full", "w") as full:
        found = subprocess.run(
            colony.command("logs", "web"), stdout=full, stderr=subprocess.PIPE, env=colony.environment(), check=False
        )
    assert (found.returncode, found.stderr) == (1, b"cannot write to stdout: No space left on device\n")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_may_not_be_read(colony: Colony, scribe: Callable[..., Scribe]) -> None:
    """A log that may not be read is told of in one line."""
    web = scribe("web")
    web.write("y\n")
    web.current.chmod(0)
    code, line = failure(colony, "web")
    assert (code, line) == (1, f"cannot read the logs: {str(web.current)!r}: Permission denied")


def test_a_log_that_is_no_file(colony: Colony, scribe: Callable[..., Scribe]) -> None:
    """A directory where a log should be is told of in one line."""
    web = scribe("web")
    web.current.mkdir()
    code, line = failure(colony, "web")
    assert (code, line.startswith("cannot read the logs: "), line.endswith("Is a directory")) == (1, True, True)


# What is to come


class Following:
    """A `ctl logs -f` that runs, and its lines."""

    def __init__(self, colony: Colony, *words: str) -> None:
        self.process = subprocess.Popen(
            colony.command("logs", "-f", *words),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=colony.environment(),
        )
        self._rest = b""

    def lines(self, count: int) -> list[str]:
        """Wait for so many lines; no more may have come."""
        assert self.process.stdout
        while self._rest.count(b"\n") < count:
            data = os.read(self.process.stdout.fileno(), 1 << 16)
            assert data, self.process.stderr and self.process.stderr.read()
            self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        assert len(lines) == count
        return [line.decode() for line in lines]

    def interrupt(self) -> tuple[int, bytes]:
        """CTRL-C; the exit status and what was said on standard error."""
        self.process.send_signal(signal.SIGINT)
        return self.end()

    def end(self) -> tuple[int, bytes]:
        assert self.process.stderr
        said = self.process.stderr.read()
        return self.process.wait(), said


@pytest.fixture
def follow(colony: Colony) -> Iterator[Callable[..., Following]]:
    """Run `ctl logs -f`, ended with the test."""
    running: list[Following] = []

    def start(*words: str) -> Following:
        running.append(Following(colony, *words))
        return running[-1]

    yield start
    for one in running:
        one.process.kill()
        one.process.wait()
        for stream in (one.process.stdout, one.process.stderr):
            if stream:
                stream.close()


def test_follow(colony: Colony, scribe: Callable[..., Scribe], follow: Callable[..., Following]) -> None:
    """-f begins with the last ten lines, goes on with what comes, through rotations, until CTRL-C ends it quietly."""
    web = scribe("web")
    for number in range(20):
        web.write(f"{number}\n")
    following = follow("web")
    assert following.lines(10) == [str(number) for number in range(10, 20)]
    web.write("more\nun")
    assert following.lines(1) == ["more"]
    web.rotate()
    web.write("finished\n")
    assert following.lines(1) == ["unfinished"]
    web.write("cut")
    web.cut()
    assert following.lines(1) == ["cut"]
    assert following.interrupt() == (130, b"")


def test_follow_takes_in_who_comes(
    colony: Colony, scribe: Callable[..., Scribe], follow: Callable[..., Following]
) -> None:
    """Processes that appear and are meant are taken in, from their first line on; so is standard error."""
    (colony.config / "db").write_text('{"args": ["x"], "group": "back"}')
    scribe("web").write("web\n")
    globbed, grouped, everybody = follow("w*"), follow("back"), follow()
    assert globbed.lines(1) == everybody.lines(1) == ["[web] web"]
    scribe("db").write("db\n")
    assert grouped.lines(1) == ["[db] db"]
    assert everybody.lines(1) == ["[db] db"]
    (colony.config / "db:2").write_text('{"args": ["x"], "group": "back"}')
    scribe("db:2").write("db:2\n")
    assert grouped.lines(1) == ["[db:2] db:2"]
    scribe("wiki").write("wiki\n")
    assert globbed.lines(1) == ["[wiki] wiki"]
    scribe("web", stderr=True).write("oops\n")
    assert globbed.lines(1) == ["[web] oops"]


def test_follow_one_that_has_not_printed_yet(
    colony: Colony, scribe: Callable[..., Scribe], follow: Callable[..., Following]
) -> None:
    """A process that is defined can be followed before its first line."""
    (colony.config / "web").write_text('{"args": ["x"]}')
    following = follow("web", "--json", "--grep", "[02468]$")
    assert following.process.stderr
    assert following.process.stderr.readline() == b"nothing is kept of 'web'\n"
    scribe("web").write("1\n2\n3\n4\n")
    assert [json.loads(line)["line"] for line in following.lines(2)] == ["2", "4"]


def test_follow_ends_with_its_reader(
    colony: Colony, scribe: Callable[..., Scribe], follow: Callable[..., Following]
) -> None:
    """When nobody reads any more, -f ends by itself, also if nothing is printed any more."""
    scribe("web").write("1\n")
    following = follow("web")
    assert following.lines(1) == ["1"]
    assert following.process.stdout
    following.process.stdout.close()
    following.process.stdout = None
    assert following.end() == (0, b"")


def test_follow_all_but_oneself(colony: Colony, scribe: Callable[..., Scribe]) -> None:
    """As a process of the colony, -f of all leaves out its own output, which would come out again for ever."""
    for name in ("web", "ship", "ship:0"):
        scribe(name).write(f"{name}\n")
    limited = {"NCOLONY_NAME": "ship"}
    command = ["sh", "-c", '"$@" -f -n1 | head -n 2', "sh", *colony.command("logs")]
    assert colony.run_bare(command, env=limited).stdout == "[ship:0] ship:0\n[web] web\n"
    assert colony.run("logs", "ship", "-n1", env=limited).stdout.count("ship") > 0
    assert colony.run("logs", "-n1", env=limited).stdout.count("\n") == 3


def test_follow_until_makes_no_sense(colony: Colony) -> None:
    """--until with -f is refused."""
    assert failure(colony, "-f", "--until", "1m")[0] == 1


def test_more_processes_than_descriptors(colony: Colony) -> None:
    """More logs than we may have files open are read and followed all the same."""
    for number in range(150):
        Scribe(colony.state / "logs", f"p{number:03d}").write(f"first {number}\n", at=T0 + number)
    limited = ["sh", "-c", 'ulimit -n 40; exec "$@"', "sh"]
    found = colony.run_bare([*limited, *colony.command("logs")])
    assert (found.stderr, len(found.stdout.splitlines())) == ("", 150)
    process = subprocess.Popen(
        [*limited, *colony.command("logs", "-f", "-n", "1")], stdout=subprocess.PIPE, env=colony.environment()
    )
    assert process.stdout
    assert [process.stdout.readline() for _ in range(150)][149] == b"[p149] first 149\n"
    for number in (7, 149, 70):
        path = colony.state / "logs" / f"p{number:03d}" / "current"
        with path.open("a") as file:
            file.write("more\n")
        assert process.stdout.readline() == f"[p{number:03d}] more\n".encode()
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    process.stdout.close()


# From Python, and for real


def test_from_python(colony: Colony, scribe: Callable[..., Scribe]) -> None:
    """ctllib.read_logs gives lines with their times, and waits by whatever it is given."""
    web = scribe("web")
    web.write("a\nb\n")
    [line] = ctllib.read_logs(colony.places, ["web"], last=1, state=colony.state)
    assert (line.name, line.stream, line.data, line.time_ns) == ("web", "stdout", b"b", T0 + S)

    def pause(seconds: float) -> None:
        assert 0 < seconds <= 0.25
        web.write("c\n")

    lines = read_logs(colony.places, follow=True, last=0, pause=pause, state=colony.state)
    assert [next(lines).data for _ in range(3)] == [b"c"] * 3
    lines.close()  # type: ignore[attr-defined]
    with pytest.raises(ctllib.BadValue):
        next(read_logs(colony.places, follow=True, until=1.0, state=colony.state))


def test_stdout_is_closed(colony: Colony, scribe: Callable[..., Scribe]) -> None:
    """Without a standard output there is nothing to do."""
    scribe("web").write("a\n")
    found = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *colony.command("logs", "-f")],
        stderr=subprocess.PIPE,
        env=colony.environment(),
        check=False,
    )
    assert (found.returncode, found.stderr) == (0, b"")


def test_in_process(colony: Colony, scribe: Callable[..., Scribe], capfdbinary: Any) -> None:
    """The command line can be called from Python as any other command."""
    scribe("web").write("a\n")
    assert cli.main(["ctl", *colony.options, "logs", "web"]) == 0
    sys.stdout.flush()
    assert capfdbinary.readouterr().out == b"a\n"


def test_of_a_real_colony(new_colony: Callable[[str], RealColony]) -> None:
    """What processes of a real colony print is shown and followed, with the right times, after a kill -9 and an end."""
    real = new_colony("real")
    before = time.time_ns()
    real.put("web", {"args": real.payload("web", "say", "hello", "there")})
    real.put("talk", {"args": ["sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"]})
    real.start()
    places = ctllib.Places(real.config, real.messages)
    lines = real.wait_for(
        lambda: len(found := list(read_logs(places, ["web"], state=real.state))) == 2 and found, "two lines"
    )
    assert [line.data for line in lines] == [b"hello", b"there"]
    assert all(before < line.time_ns < time.time_ns() for line in lines)
    following = read_logs(places, ["talk"], follow=True, last=0, state=real.state)
    seen = [next(following) for _ in range(5)]
    first = int(seen[0].data)
    assert [int(line.data) for line in seen] == list(range(first, first + 5))
    assert all(abs(line.time_ns - time.time_ns()) < 20 * S for line in seen)
    gaps = [later.time_ns - earlier.time_ns for earlier, later in itertools.pairwise(seen)]
    assert min(gaps) > 30_000_000
    real.kill()
    assert len([next(following) for _ in range(3)]) == 3  # the keeper goes on
    real.start()
    real.remove("web")
    real.wait_until_forgotten("web")
    assert [line.data for line in read_logs(places, ["web"], state=real.state)] == [b"hello", b"there"]
    assert real.stop() == 0
    assert [line.data for line in read_logs(places, ["web"], state=real.state, logs=real.logs)] == [b"hello", b"there"]
