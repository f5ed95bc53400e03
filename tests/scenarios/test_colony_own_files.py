"""Standard error on its own way, and files of their own that processes' output goes to."""

from __future__ import annotations

import contextlib
import functools
import gzip
import json
import os
import re
import signal
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from colony import Colony

BOTH = "for i in 1 2 3; do echo out $i; echo err $i >&2; done; exec sleep 100000"


def text(path: Path) -> str:
    """The text of a file, none when it is not there."""
    return path.read_text() if path.exists() else ""


def wait_for_text(colony: Colony, path: Path, expected: str) -> None:
    """Wait until a file holds this and nothing else."""
    colony.wait_for(lambda: len(text(path)) >= len(expected), f"{path.name} is written")
    assert text(path) == expected


def events(colony: Colony) -> list[dict[str, Any]]:
    """The events of processes' output in a JSON log."""
    found = [json.loads(record) for record in colony.log().split("\x1e")[1:]]
    return [event for event in found if event["log_namespace"] == "ncolony.output"]


def test_standard_error_apart(colony: Colony) -> None:
    """With `"stderr": true` each stream is kept on its own, and both are in the log under the process's name."""
    colony.put("web", {"args": ["/bin/sh", "-c", BOTH], "log": {"stderr": True}})
    colony.start()
    colony.wait_for(lambda: len(colony.lines("web")) == 6, "all is logged")
    assert [line for line in colony.lines("web") if line.startswith("out")] == ["out 1", "out 2", "out 3"]
    assert [line for line in colony.lines("web") if line.startswith("err")] == ["err 1", "err 2", "err 3"]
    assert colony.output("web") == b"out 1\nout 2\nout 3\n"
    assert colony.output("web/stderr") == b"err 1\nerr 2\nerr 3\n"


def test_events_tell_the_stream(colony: Colony) -> None:
    """In a JSON log an event names the process and the line, and the stream where the two are kept apart."""
    colony.put("apart", {"args": ["/bin/sh", "-c", "echo out; echo err >&2; exec sleep 1000"], "log": {"stderr": True}})
    colony.put("joined", {"args": ["/bin/sh", "-c", "echo out; echo err >&2; exec sleep 1000"]})
    colony.start(log_format="json")
    colony.wait_for(lambda: len(events(colony)) == 4, "all is logged")
    told = sorted((event["tag"], event["line"], event.get("stream")) for event in events(colony))
    assert told == [
        ("apart", "err", "stderr"),
        ("apart", "out", "stdout"),
        ("joined", "err", None),
        ("joined", "out", None),
    ]


def test_last_lines_of_both_streams(colony: Colony) -> None:
    """The last words in the history are those of both streams, in the order in which they were printed."""
    gates = [colony.root / f"gate{number}" for number in range(3)]
    for gate in gates:
        os.mkfifo(gate)
    waits = [f"read x < {gate}" for gate in gates]
    script = f"echo one; {waits[0]}; echo two >&2; {waits[1]}; echo three; {waits[2]}; echo four >&2; exit 3"
    colony.put("web", {"args": ["/bin/sh", "-c", script], "restart": "never", "log": {"stderr": True}})
    colony.start()
    for gate, word in zip(gates, ["one", "two", "three"], strict=True):
        colony.wait_for(lambda word=word: word in colony.lines("web"), f"{word} is logged")  # type: ignore[misc]
        time.sleep(0.02)  # so that the next one is printed at another time, which is the thing to be told apart
        gate.write_text("go\n")
    colony.wait_for_status("web", state="EXITED")
    history = colony.state / "history" / "web"
    colony.wait_for(history.exists, "its end is recorded")
    assert json.loads(history.read_text())["lines"] == ["one", "two", "three", "four"]


def test_a_file_of_its_own(colony: Colony) -> None:
    """With `"stdout": PATH` what it prints is in the file byte for byte, in logs/ and in the supervisor's log."""
    colony.put("web", {"args": ["/bin/sh", "-c", BOTH], "cwd": str(colony.root), "log": {"stdout": "web.log"}})
    colony.start()
    expected = "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n"
    wait_for_text(colony, colony.root / "web.log", expected)
    colony.wait_for(lambda: len(colony.lines("web")) == 6, "all is logged")
    assert colony.output("web").decode() == expected
    assert (colony.root / "web.log").stat().st_mode & 0o777 == 0o640


def test_two_files(colony: Colony) -> None:
    """With `stdout` and `stderr` as paths each stream is in its own file; one path for both keeps their order."""
    log = {"stdout": str(colony.root / "out"), "stderr": str(colony.root / "err")}
    colony.put("two", {"args": ["/bin/sh", "-c", BOTH], "log": log})
    colony.put("one", {"args": ["/bin/sh", "-c", BOTH], "log": {name: str(colony.root / "one") for name in log}})
    colony.start()
    wait_for_text(colony, colony.root / "out", "out 1\nout 2\nout 3\n")
    wait_for_text(colony, colony.root / "err", "err 1\nerr 2\nerr 3\n")
    wait_for_text(colony, colony.root / "one", "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n")


def test_file_without_forwarding(colony: Colony) -> None:
    """With `"forward": false` the file is written, and the supervisor's log leaves the process out."""
    log = {"stdout": str(colony.root / "web.log"), "forward": False}
    colony.put("web", {"args": ["/bin/sh", "-c", BOTH], "log": log})
    colony.start()
    wait_for_text(colony, colony.root / "web.log", "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n")
    assert colony.stop() == 0
    assert colony.lines("web") == []


def test_file_with_times(colony: Colony) -> None:
    """With `timestamps` each line has the time in front at which it was printed."""
    gate = colony.root / "gate"
    os.mkfifo(gate)
    log = {"stdout": str(colony.root / "web.log"), "timestamps": True}
    script = f"echo one; echo two; read x < {gate}; echo three; printf four"
    colony.put("web", {"args": ["/bin/sh", "-c", script], "restart": "never", "log": log})
    began = time.time()
    colony.start()
    colony.wait_for(lambda: "two" in text(colony.root / "web.log"), "two lines are written")
    between = time.time()
    gate.write_text("go\n")
    colony.wait_for_status("web", state="EXITED")
    assert colony.stop() == 0
    ended = time.time()
    lines = [re.fullmatch(r"(\S+Z) (\w+)", line) for line in text(colony.root / "web.log").splitlines()]
    assert [line and line[2] for line in lines] == ["one", "two", "three", "four"]
    times = [datetime.fromisoformat(line[1]).timestamp() for line in lines if line]
    # What comes within 10 ms shares one entry of the index.
    assert began - 0.011 <= times[0] <= times[1] <= between <= times[2] + 0.011 <= times[3] + 0.011 <= ended + 0.011


def test_file_of_json(colony: Colony) -> None:
    """With `"format": "json"` each line is an object that tells time, name, stream and line, whatever the bytes are."""
    log = {"stdout": str(colony.root / "web.log"), "stderr": True, "format": "json"}
    script = "printf 'plain\\n\"quoted\"\\n\\377\\n'; printf end; echo no >&2"
    colony.put("web", {"args": ["/bin/sh", "-c", script], "restart": "never", "log": log})
    colony.start()
    colony.wait_for_status("web", state="EXITED")
    assert colony.stop() == 0
    records = [json.loads(line) for line in text(colony.root / "web.log").splitlines()]
    assert [record["line"] for record in records] == ["plain", '"quoted"', "\\xff", "end"]
    assert {(record["name"], record["stream"], *record) for record in records} == {
        ("web", "stdout", "time", "name", "stream", "line")
    }
    assert all(datetime.fromisoformat(record["time"]).tzinfo is not None for record in records)


def every_line(paths: list[Path]) -> list[int]:
    """The numbers of the lines "line N" in files, the oldest of which comes last."""
    data = b"".join(
        gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes() for path in reversed(paths)
    )
    assert data.endswith(b"\n")
    return [int(line.removeprefix(b"line ")) for line in data.splitlines()]


@pytest.mark.parametrize("compress", [False, True])
def test_rotation_of_a_file(colony: Colony, compress: bool) -> None:
    """A file is rotated at the end of a line: PATH, PATH.1, PATH.2 … hold every line once, and no more are kept."""
    path = colony.root / "web.log"
    log = {"stdout": str(path), "max_bytes": 20_000, "keep": 50, "compress": compress, "forward": False}
    colony.put("web", {"args": colony.payload("web", "lines", 30_000), "log": log})
    colony.start()
    colony.wait_for(lambda: text(path).endswith("line 30000\n"), "the last line is written")
    if compress:
        colony.wait_for(lambda: not list(colony.root.glob("web.log.*[0-9]")), "all are compressed")

    def there() -> list[Path]:
        return sorted(colony.root.glob("web.log.*"), key=lambda one: int(one.name.split(".")[2]))

    def is_whole() -> bool:
        # The last line may have filled the file: then all are about to get another name.
        with contextlib.suppress(FileNotFoundError):
            return every_line([path, *there()]) == list(range(1, 30_001))
        return False

    colony.wait_for(is_whole, "every line is there once")
    assert len(there()) > 3
    assert compress or all(one.stat().st_size <= 20_020 for one in there())


def test_rotated_files_are_bounded(colony: Colony) -> None:
    """No more files are kept than `keep` says, the newest."""
    path = colony.root / "web.log"
    log = {"stdout": str(path), "max_bytes": "8K", "keep": 2}
    colony.put("web", {"args": colony.payload("web", "lines", 10_000), "log": log})
    colony.start()
    colony.wait_for(lambda: text(path).endswith("line 10000\n"), "the last line is written")
    assert sorted(one.name for one in colony.root.glob("web.log*")) == ["web.log", "web.log.1", "web.log.2"]
    numbers = every_line([path, colony.root / "web.log.1", colony.root / "web.log.2"])
    assert numbers == list(range(numbers[0], 10_001))


def test_new_sizes_for_what_runs(colony: Colony) -> None:
    """Another `max_bytes` or `keep` is in force at once for a file of its own, without a restart, and for ever."""
    path = colony.root / "web.log"
    args = colony.payload("web", "tick", 0.005)
    colony.put("web", {"args": args, "log": {"stdout": str(path), "max_bytes": "1M"}})
    colony.start()
    pid = colony.wait_until_running("web")
    colony.wait_for(lambda: len(text(path)) > 500, "some lines are written")
    assert not (colony.root / "web.log.1").exists()
    colony.put("web", {"args": args, "log": {"stdout": str(path), "max_bytes": 4096, "keep": 1}})
    colony.wait_for((colony.root / "web.log.1").exists, "it is rotated")
    colony.kill()
    colony.start()
    inode = (colony.root / "web.log.1").stat().st_ino
    colony.wait_for(lambda: (colony.root / "web.log.1").stat().st_ino != inode, "it is rotated again")
    assert (colony.root / "web.log.1").stat().st_size < 4096 + 100
    assert not (colony.root / "web.log.2").exists()
    # What is kept in logs/ is of the new size too, and stays so with another keeper.
    keeper = colony.wait_for(colony.keeper_pid, "there is a keeper")
    os.kill(keeper, signal.SIGKILL)
    colony.wait_for(lambda: colony.keeper_pid() not in (None, keeper), "there is another keeper")
    begun = max(colony.logs.glob("web/*.log"))
    colony.wait_for(lambda: begun not in (kept := sorted(colony.logs.glob("web/*.log"))) and kept, "it is rotated")
    assert max(path.stat().st_size for path in colony.logs.glob("web/*.log")) < 4096 + 100
    assert colony.wait_until_running("web", instance=1) == pid


def test_reopened_at_a_signal(colony: Colony) -> None:
    """A file that was moved away is written on until SIGUSR1; then there is a new one, and no line is lost."""
    path = colony.root / "web.log"
    colony.put("web", {"args": colony.payload("web", "tick", 0.01), "log": {"stdout": str(path)}})
    colony.start()
    colony.wait_for(lambda: "tick 5\n" in text(path), "some lines are written")
    path.rename(colony.root / "moved")
    assert colony.process
    os.kill(colony.process.pid, signal.SIGUSR1)
    colony.wait_for(lambda: text(path).count("\n") > 5, "the new file is written")
    assert colony.stop() == 0
    last = int(colony.notes("web", "last")[0].split()[1])
    assert text(colony.root / "moved") + text(path) == "".join(f"tick {number}\n" for number in range(1, last + 1))


def warnings(colony: Colony, name: str) -> str:
    """What the status of a process warns of."""
    return "\n".join((colony.status(name) or {}).get("warnings", ()))


def test_file_that_cannot_be_written(colony: Colony) -> None:
    """A missing directory is told in the status, harms nothing else, and is made good once it is there."""
    place = colony.root / "later"
    colony.put("web", {"args": colony.payload("web", "lines", 100), "log": {"stdout": str(place / "web.log")}})
    colony.start()
    colony.wait_for(
        lambda: f"cannot write {place}/web.log: No such file or directory" in warnings(colony, "web"), "it is told"
    )
    colony.wait_for(lambda: "line 100" in colony.lines("web"), "it is logged all the same")
    place.mkdir()
    wait_for_text(colony, place / "web.log", "".join(f"line {number}\n" for number in range(1, 101)))
    colony.wait_for(lambda: not warnings(colony, "web"), "nothing is wrong any more")


@pytest.mark.parametrize("kind", ["symlink", "hardlink", "fifo", "directory", "device"])
def test_what_is_no_file_of_its_own(colony: Colony, kind: str) -> None:
    """A link, a pipe or a device in the place of the file is not written, and the status says why."""
    path, other = colony.root / "web.log", colony.root / "other"
    other.write_text("precious")
    if kind == "symlink":
        path.symlink_to(other)
    elif kind == "hardlink":
        os.link(other, path)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path = Path("/dev/stderr")
    colony.put("web", {"args": colony.payload("web", "say", "hello"), "log": {"stdout": str(path)}})
    colony.start()
    colony.wait_for(lambda: f"cannot write {path}: " in warnings(colony, "web"), "it is told")
    colony.wait_for(lambda: colony.lines("web") == ["hello"], "it is logged all the same")
    assert other.read_text() == "precious"
    if kind == "device":
        assert "`forward`" in warnings(colony, "web")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_file_belongs_to_the_process(colony: Colony) -> None:
    """The file of a process that runs as another user is that user's."""
    place = colony.root / "service"
    place.mkdir()
    log = {"stdout": str(place / "web.log")}
    colony.put("web", {"args": ["/bin/echo", "hello"], "uid": 54321, "cwd": "/", "restart": "never", "log": log})
    colony.start()
    wait_for_text(colony, place / "web.log", "hello\n")
    found = (place / "web.log").stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (54321, 54321, 0o640)


TORRENT = """
import os, sys
for number in range(1, int(sys.argv[1]) + 1):
    os.write(1, b"out %d\\n" % number)
    os.write(2, b"err %d\\n" % number)
open(sys.argv[2], "w").close()
import time
time.sleep(100000)
"""


def _is_more(out: Path, seen: int, over: Path) -> bool:
    """Whether the file has grown, or will not any more."""
    return over.exists() or (out.exists() and out.stat().st_size != seen)


@pytest.mark.parametrize("form", ["raw", "json", "timestamps"])
def test_killed_again_and_again(colony: Colony, form: str) -> None:
    """Whoever is killed while both streams and both files are written, every line is once, in order, everywhere."""
    count = 20_000
    out, err, over = colony.root / "out", colony.root / "err", colony.root / "over"
    log: dict[str, Any] = {"stdout": str(out), "stderr": str(err), "max_bytes": 60_000, "keep": 10_000}
    log |= {"timestamps": True} if form == "timestamps" else {"format": form}
    args = [sys.executable, "-I", "-S", "-c", TORRENT, str(count), str(over)]
    colony.put("web", {"args": args, "log": log})
    colony.start()
    for turn in range(6):
        seen = out.stat().st_size if out.exists() else 0
        more = functools.partial(_is_more, out, seen, over)
        colony.wait_for(more, "more is written, or all is")
        keeper = colony.keeper_pid()
        if turn % 3 != 0 and keeper:
            os.kill(keeper, signal.SIGKILL)
        if turn % 3 != 1:
            colony.kill()
            colony.start()
    colony.wait_for(over.exists, "all is printed", 90)
    colony.wait_for(lambda: f"err {count}" in colony.lines("web"), "the last line is logged", 90)
    assert colony.stop() == 0
    for stream, path in (("out", out), ("err", err)):
        expected = [f"{stream} {number}" for number in range(1, count + 1)]
        kept = colony.output("web" if stream == "out" else "web/stderr").decode().splitlines()
        assert kept == expected
        assert [line for line in colony.lines("web") if line.startswith(stream)] == expected
        rotated = sorted(colony.root.glob(f"{stream}.[0-9]*"), key=lambda one: -int(one.suffix[1:]))
        written = "".join(text(one) for one in [*rotated, path]).splitlines()
        if form == "json":
            written = [json.loads(line)["line"] for line in written]
        elif form == "timestamps":
            written = [line.split(" ", 1)[1] for line in written]
        assert written == expected


def test_upgrade_with_two_streams(colony: Colony) -> None:
    """An upgrade in place loses and repeats nothing of either stream, nor of the files they go to."""
    count = 5_000
    out, err, over = colony.root / "out", colony.root / "err", colony.root / "over"
    args = [sys.executable, "-I", "-S", "-c", TORRENT, str(count), str(over)]
    log = {"stdout": str(out), "stderr": str(err), "keep": 1000}
    colony.put("web", {"args": args, "log": log})
    colony.start()
    colony.wait_for(lambda: text(out), "it prints")
    pid = colony.wait_until_running("web")
    assert colony.send({"type": "UPGRADE"})["state"] == "done"
    colony.wait_for(over.exists, "all is printed", 60)
    wait_for_text(colony, out, "".join(f"out {number}\n" for number in range(1, count + 1)))
    wait_for_text(colony, err, "".join(f"err {number}\n" for number in range(1, count + 1)))
    assert colony.wait_until_running("web") == pid
    colony.wait_for(lambda: f"err {count}" in colony.lines("web"), "the last line is logged")


def test_another_file(colony: Colony) -> None:
    """With another path in its definition the output goes there from the next instance's first line on."""
    first, second = colony.root / "first", colony.root / "second"
    colony.put("web", {"args": ["/bin/sh", "-c", "echo one; exec sleep 1000"], "log": {"stdout": str(first)}})
    colony.start()
    wait_for_text(colony, first, "one\n")
    colony.put("web", {"args": ["/bin/sh", "-c", "echo two; exec sleep 1000"], "log": {"stdout": str(second)}})
    wait_for_text(colony, second, "two\n")
    colony.put("web", {"args": ["/bin/sh", "-c", "echo three; exec sleep 1000"]})
    colony.wait_for(lambda: colony.lines("web") == ["one", "two", "three"], "all is logged")
    colony.put("web", {"args": ["/bin/sh", "-c", "echo four; exec sleep 1000"], "log": {"stdout": str(second)}})
    wait_for_text(colony, second, "two\nfour\n")
    assert text(first) == "one\n"


def test_forward_turned_off_and_on(colony: Colony) -> None:
    """What is printed while forwarding is off is in the supervisor's log neither then nor later."""
    colony.put("web", {"args": ["/bin/sh", "-c", "echo one; exec sleep 1000"]})
    colony.start()
    colony.wait_for(lambda: colony.lines("web") == ["one"], "it is logged")
    colony.put("web", {"args": ["/bin/sh", "-c", "echo two; exec sleep 1000"], "log": {"forward": False}})
    colony.wait_for(lambda: colony.output("web") == b"one\ntwo\n", "it is kept")
    colony.kill()
    colony.start()
    colony.put("web", {"args": ["/bin/sh", "-c", "echo three; exec sleep 1000"]})
    colony.wait_for(lambda: "three" in colony.lines("web"), "it is logged again")
    assert colony.lines("web") == ["one", "three"]


def test_one_file_for_two(colony: Colony) -> None:
    """Processes that share a file have every line of theirs in it, whole, also across rotations and a SIGKILL."""
    path = colony.root / "shared.log"
    log = {"stdout": str(path), "max_bytes": 50_000, "keep": 1000, "forward": False}
    for name in ("a", "b"):
        script = f"i=0; while [ $i -lt 5000 ]; do i=$((i+1)); echo {name} $i; done; touch {colony.root}/{name}-over; "
        colony.put(name, {"args": ["/bin/sh", "-c", script + "exec sleep 100000"], "log": log})
    colony.start()
    colony.wait_for(lambda: path.exists(), "it is written")
    colony.kill()
    colony.start()
    colony.wait_for(lambda: all((colony.root / f"{name}-over").exists() for name in ("a", "b")), "all is printed", 60)
    assert colony.stop() == 0
    rotated = sorted(colony.root.glob("shared.log.[0-9]*"), key=lambda one: -int(one.suffix[1:]))
    assert rotated
    lines = "".join(text(one) for one in [*rotated, path]).splitlines()
    for name in ("a", "b"):
        expected = [f"{name} {number}" for number in range(1, 5001)]
        assert [line for line in lines if line.startswith(name)] == expected
    assert len(lines) == 10_000


def test_dropped_rather_than_waited_for(colony: Colony) -> None:
    """With `"overflow": "drop"` a process never waits for the forwarder, and what it printed in vain is counted."""
    for name in ("web", "waits"):
        os.mkfifo(colony.root / f"{name}-gate")
        overflow = {"overflow": "drop"} if name == "web" else {}
        printing = colony.payload(name, "lines", 50_000)
        colony.put(name, {
            "args": ["/bin/sh", "-c", f'read x < {colony.root}/{name}-gate; exec "$@"', "sh", *printing],
            "log": {"max_bytes": "4K", "keep": 1, **overflow},
        })  # fmt: skip
    colony.start()
    for name in ("web", "waits"):
        colony.wait_until_running(name)
    assert colony.process
    os.kill(colony.process.pid, signal.SIGSTOP)
    try:
        for name in ("web", "waits"):
            (colony.root / f"{name}-gate").write_text("go\n")
        colony.wait_for_notes("web", beginning="printed")
        assert not colony.notes("waits", "printed")
    finally:
        os.kill(colony.process.pid, signal.SIGCONT)
    colony.wait_for_notes("waits", beginning="printed")
    expected = [f"line {number}" for number in range(1, 50_001)]
    for name in ("web", "waits"):
        colony.wait_for(lambda name=name: expected[-1] in colony.lines(name), "the last line is logged")  # type: ignore[misc]
    assert colony.lines("waits") == expected
    logged = sum(len(line) + 1 for line in colony.lines("web"))
    dropped = sum(len(line) + 1 for line in expected) - logged
    assert dropped > 0
    colony.wait_for(lambda: f"{dropped} bytes of its output were dropped" in warnings(colony, "web"), "it is told")
    assert not warnings(colony, "waits")
    assert re.search(r"web: \d+ bytes of its output were dropped", colony.log())


def test_kept_files_are_compressed(colony: Colony) -> None:
    """With `compress` what was set aside in logs/ becomes smaller, holds what it held, and is thrown away as ever."""
    log = {"compress": True, "max_bytes": 20_000, "keep": 5}
    colony.put("all", {"args": colony.payload("all", "lines", 10_000), "log": {**log, "keep": 1000}})
    colony.put("some", {"args": colony.payload("some", "lines", 30_000), "log": {**log, "forward": False}})
    colony.start()
    for name, last in (("all", b"line 10000\n"), ("some", b"line 30000\n")):
        directory = colony.logs / name
        colony.wait_for(lambda name=name, last=last: colony.output(name).endswith(last), "all is there")  # type: ignore[misc]
        colony.wait_for(lambda directory=directory: not list(directory.glob("*.log")), "all is compressed")  # type: ignore[misc]
    lines = colony.output("all").decode().splitlines()
    assert lines == [f"line {number}" for number in range(1, 10_001)]
    lines = colony.output("some").decode().splitlines()
    assert lines == [f"line {number}" for number in range(30_001 - len(lines), 30_001)]
    assert len(list((colony.logs / "some").glob("*.log.gz"))) == 5
    assert not list(colony.logs.glob("*/*.new"))
    for name in ("all", "some"):
        starts = {path.name.partition(".")[0] for path in (colony.logs / name).glob("*.log.gz")}
        assert {path.stem for path in (colony.logs / name).glob("[0-9]*.index")} == starts


def test_logs_of_removed_processes(colony: Colony) -> None:
    """Logs of processes that were removed stay within a quarter of the budget, the newest of them."""
    names = [f"p{number}" for number in range(6)]
    for name in names:
        colony.put(name, {"args": colony.payload(name, "lines", 5_000), "restart": "never", "log": {"stderr": True}})
    (colony.logs / "mine").mkdir(parents=True)
    (colony.logs / "mine" / "notes.txt").write_text("x" * 100_000)
    colony.start("--log-budget", "600K")
    for name in names:
        colony.wait_for(lambda name=name: "line 5000" in colony.lines(name), f"{name} is logged")  # type: ignore[misc]
    sizes = {name: len(colony.output(name)) for name in names}
    for name in names[:4]:
        colony.remove(name)
        colony.wait_until_forgotten(name)
    fits = 600 * 1024 // 4 // sizes["p0"]
    assert 0 < fits < 4
    kept = set(names[4 - fits :])
    colony.wait_for(lambda: {path.name for path in colony.logs.iterdir()} == {*kept, "mine"}, "the oldest are gone")
    commits = {path.name for path in (colony.state / "forwarded").iterdir() if not path.name.startswith(".w")}
    assert commits == kept
    # The same is so for what was removed while there was no supervisor.
    colony.kill()
    for name in names[4:]:
        colony.remove(name)
    colony.start("--log-budget", "600K")
    colony.wait_until_forgotten("p4")
    colony.wait_until_forgotten("p5")
    colony.wait_for(lambda: len(list(colony.logs.iterdir())) == fits + 1, "there is room for as many as before")
    assert (colony.logs / "mine" / "notes.txt").exists()
