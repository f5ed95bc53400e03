"""The history of exits: bounded files that survive whatever happened to their writer; and an instance's last lines."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from ncolony.model.history import Record, decode
from ncolony.system.history import MOST_BYTES, MOST_RECORDS, History, last_lines


def ended(number: int, **more: object) -> Record:
    """The record of instance `number`, whose identity is its number in hexadecimal."""
    facts = {"instance": number, "pid": 5, "started": 1.0, "at": 2.0, "lived": 1.0, "code": 0, "signal": None}
    return msgspec.convert({"id": f"{number:016x}", "text": "exit code 0", **facts, **more}, Record)


def numbers(path: Path) -> list[int]:
    """The instances that a reader finds, in their order."""
    return [record.instance for line in path.read_bytes().split(b"\n") if (record := decode(line))]


def test_records_follow_each_other(tmp_path: Path) -> None:
    """Each exit is one line at the end of its process's file; a missing directory is made."""
    history = History(str(tmp_path / "history"))
    for number in (1, 2, 3):
        history.add("web", ended(number, lines=[f"line {number}"]))
    history.add("echo", ended(1))
    lines = (tmp_path / "history" / "web").read_bytes().splitlines()
    assert [decode(line) for line in lines] == [ended(number, lines=[f"line {number}"]) for number in (1, 2, 3)]
    assert numbers(tmp_path / "history" / "echo") == [1]


@pytest.mark.parametrize("anew", [False, True], ids=["one writer", "a new writer each time"])
@pytest.mark.parametrize("printed", [0, 150], ids=["quiet", "loud"])
def test_a_file_is_bounded_and_keeps_the_newest(tmp_path: Path, printed: int, anew: bool) -> None:
    """However many exits there are, the file stays within both bounds and holds the newest without a gap."""
    history = History(str(tmp_path))
    path = tmp_path / "web"
    for number in range(1, 3 * MOST_RECORDS):
        if anew:
            history = History(str(tmp_path))
        history.add("web", ended(number, lines=["x" * printed] * 20))
        found = numbers(path)
        assert found == list(range(found[0], number + 1))
        assert len(found) >= min(number, MOST_BYTES // 2 // (printed * 20 + 600), MOST_RECORDS // 2)
        assert len(found) <= MOST_RECORDS
        assert path.stat().st_size <= MOST_BYTES
    assert os.listdir(tmp_path) == ["web"]


def test_a_full_file_costs_a_rewriting_only_now_and_then(tmp_path: Path) -> None:
    """Most exits are appended to the file that is there."""
    history = History(str(tmp_path))
    rewritten = last = 0
    for number in range(4 * MOST_RECORDS):
        history.add("web", ended(number))
        inode = (tmp_path / "web").stat().st_ino
        rewritten += inode != last
        last = inode
    assert rewritten <= 1 + 4 * MOST_RECORDS // (MOST_RECORDS // 2)


@pytest.mark.parametrize("torn", [b'{"id":"00', b"\x00\x00\x00", b"no record\n", b"\n\n", b'{"id":"01"}'])
def test_a_torn_line_swallows_no_record(tmp_path: Path, torn: bytes) -> None:
    """What a writer left behind that died in the middle costs itself alone, also when the file is rewritten."""
    path = tmp_path / "web"
    History(str(tmp_path)).add("web", ended(1))
    with path.open("ab") as file:
        file.write(torn)
    history = History(str(tmp_path))
    history.add("web", ended(2))
    assert numbers(path) == [1, 2]
    for number in range(3, 2 * MOST_RECORDS):
        history.add("web", ended(number))
    assert all(decode(line) for line in path.read_bytes().splitlines())
    assert numbers(path)[-1] == 2 * MOST_RECORDS - 1


def test_a_killed_writer_leaves_a_file_that_goes_on(tmp_path: Path) -> None:
    """SIGKILL at any moment of many writes leaves every record whole that was there, and room for the next."""
    program = (
        "import sys, msgspec; sys.path.insert(0, sys.argv[2])\n"
        "from test_system_history import History, ended\n"
        "history = History(sys.argv[1])\n"
        "for number in range(1, 100000):\n"
        "    history.add('web', ended(number, lines=['x' * 50] * 20))\n"
        "    if number == 60: print('ready', flush=True)\n"
    )
    argv = [sys.executable, "-c", program, str(tmp_path), str(Path(__file__).parent)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        writer.kill()
    found = numbers(tmp_path / "web")
    assert found == list(range(found[0], found[-1] + 1))
    history = History(str(tmp_path))
    history.prune(["web"])
    history.add("web", ended(found[-1] + 1))
    assert numbers(tmp_path / "web")[-2:] == [found[-1], found[-1] + 1]
    assert os.listdir(tmp_path) == ["web"]


def test_a_record_that_does_not_fit_on_the_disk_leaves_no_trace(tmp_path: Path) -> None:
    """add raises when the file cannot grow, what was there stays readable, and it goes on when there is room again."""
    # A limit on the size of files stands for the disk: the write is cut short in the middle of the record.
    program = (
        "import resource, signal, sys; sys.path.insert(0, sys.argv[2])\n"
        "from test_system_history import History, ended\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "history = History(sys.argv[1]); history.add('web', ended(1))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))\n"
        "try: history.add('web', ended(2, lines=['x' * 100] * 5)); sys.exit('no error')\n"
        "except OSError: pass\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)\n"
        "history.add('web', ended(3))\n"
    )
    argv = [sys.executable, "-c", program, str(tmp_path), str(Path(__file__).parent)]
    subprocess.run(argv, check=True, timeout=60)
    assert (tmp_path / "web").read_bytes().count(b"\n") == 2
    assert numbers(tmp_path / "web") == [1, 3]


def test_a_file_that_was_emptied_or_removed_begins_anew(tmp_path: Path) -> None:
    """Whoever clears the history under us disturbs nothing."""
    history = History(str(tmp_path))
    for number in range(1, MOST_RECORDS):
        history.add("web", ended(number))
    (tmp_path / "web").write_bytes(b"")
    history.add("web", ended(100))
    (tmp_path / "web").unlink()
    history.add("web", ended(101))
    assert numbers(tmp_path / "web") == [101]


def test_it_knows_what_it_has(tmp_path: Path) -> None:
    """has() finds recorded instances only: no torn record, no other process's, no identity that was printed."""
    history = History(str(tmp_path))
    assert not history.has("web", f"{1:016x}")
    history.add("web", ended(1, lines=[f'"id":"{7:016x}"', f"{8:016x}"]))
    for number in range(2, 2 * MOST_RECORDS):
        history.add("web", ended(number))
    with (tmp_path / "web").open("ab") as file:
        file.write(msgspec.json.encode(ended(200))[:60])
    anew = History(str(tmp_path))
    assert anew.has("web", f"{2 * MOST_RECORDS - 1:016x}")
    assert not anew.has("web", f"{200:016x}")
    assert not anew.has("web", f"{7:016x}")
    assert not anew.has("echo", f"{2 * MOST_RECORDS - 1:016x}")


def test_histories_of_removed_processes_stay_up_to_a_number(tmp_path: Path) -> None:
    """Of processes that were removed the files of those gone longest go first; one that came back keeps its own."""
    history = History(str(tmp_path), most_gone=2)
    known = {f"p{number}" for number in range(6)}
    history.prune(known)
    for name in sorted(known - {"p4"}):
        history.add(name, ended(1))
    for name in ("p3", "p0", "p1"):
        known.remove(name)
        history.forget(name)
    assert sorted(os.listdir(tmp_path)) == ["p0", "p1", "p2", "p5"]
    known.add("p0")
    history.add("p0", ended(2))
    known.remove("p4")
    history.forget("p4")
    history.add("p4", ended(1))  # its last exit was still to be recorded
    assert sorted(os.listdir(tmp_path)) == ["p0", "p1", "p2", "p4", "p5"]
    for name in ("p2", "p5"):
        known.remove(name)
        history.forget(name)
    assert sorted(os.listdir(tmp_path)) == ["p0", "p2", "p5"]
    assert numbers(tmp_path / "p0") == [1, 2]


def test_a_new_supervisor_prunes_what_it_does_not_know(tmp_path: Path) -> None:
    """At a start the oldest files of unknown processes beyond the number go, and half-written ones."""
    history = History(str(tmp_path))
    for number, name in enumerate(["known", "old", "older", "new", "newer"]):
        history.add(name, ended(1))
        os.utime(tmp_path / name, (number, number))
    os.utime(tmp_path / "older", (0.5, 0.5))
    (tmp_path / ".77-0.new").write_bytes(b"half")
    anew = History(str(tmp_path), most_gone=2)
    known = {"known"}
    anew.prune(known)
    assert sorted(os.listdir(tmp_path)) == ["known", "new", "newer"]
    known.clear()
    anew.forget("known")
    assert sorted(os.listdir(tmp_path)) == ["known", "newer"]


# --- the last lines ---


class Log:
    """A log directory as the keeper writes it: rotated files named by the offset they begin at, and the current one."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.start, self.size = directory, 0, 0
        directory.mkdir()
        self.turn()

    def turn(self) -> None:
        """Begin a new current file."""
        for ending, name in (("log", "current"), ("index", "current.index")):
            if (self.directory / name).exists():
                (self.directory / name).rename(self.directory / f"{self.start:020d}.{ending}")
        self.start += self.size
        self.size = 0
        (self.directory / "current").touch()
        (self.directory / "current.index").write_bytes(self.start.to_bytes(8, "big") + bytes(8))

    def write(self, data: bytes) -> int:
        """Print; returns the offset at which it ends."""
        with (self.directory / "current").open("ab") as file:
            file.write(data)
        self.size += len(data)
        return self.start + self.size

    def last(self, since: int = 0, count: int = 20) -> list[str]:
        return list(last_lines(str(self.directory), count, since))


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "web")


def test_no_log_has_no_lines(tmp_path: Path, log: Log) -> None:
    """What printed nothing, or has no directory, has no last lines."""
    assert last_lines(str(tmp_path / "nowhere")) == ()
    assert log.last() == []
    (tmp_path / "web" / "current").unlink()
    (tmp_path / "web" / "current.index").unlink()
    assert log.last() == []


def test_the_last_lines_in_order(log: Log) -> None:
    """The last lines as they were printed, at most as many as asked for, the unfinished one and empty ones included."""
    log.write(b"".join(b"line %d\n" % number for number in range(30)))
    assert log.last() == [f"line {number}" for number in range(10, 30)]
    log.write(b"\nnot finished")
    assert log.last(count=3) == ["line 29", "", "not finished"]


def test_lines_of_an_earlier_instance_do_not_count(log: Log) -> None:
    """Only what was printed from the given offset on is shown, wherever the files begin."""
    log.write(b"earlier\nunfinished")
    since = log.write(b"")
    assert log.last(since) == []
    log.write(b"mine\n")
    assert log.last(since) == ["mine"]
    log.turn()
    assert log.last(since) == ["mine"]
    log.write(b"mine too\n")
    assert log.last(since) == ["mine", "mine too"]
    later = log.write(b"")
    assert log.last(later) == []
    assert log.last(later + 1000) == []
    log.write(b"newest\n")
    assert log.last(later) == ["newest"]


def test_the_newest_rotated_file_fills_up(log: Log) -> None:
    """When the current file is short the one before it is read too, and none before that."""
    log.write(b"oldest\n")
    log.turn()
    log.write(b"".join(b"old %d\n" % number for number in range(30)))
    log.turn()
    log.write(b"new\n")
    assert log.last() == [*(f"old {number}" for number in range(11, 30)), "new"]


def test_a_gap_between_files_joins_no_lines(log: Log) -> None:
    """Where output was dropped in between, the older file is not shown as if it came right before."""
    log.write(b"before\n")
    log.turn()
    log.start += 1000
    (log.directory / "current.index").write_bytes(log.start.to_bytes(8, "big") + bytes(8))
    log.write(b"after\n")
    assert log.last() == ["after"]


def test_an_index_that_is_missing_or_late_is_made_up_for(log: Log) -> None:
    """Without an index, or with that of the file before, the rotated file's end says where the current one begins."""
    log.write(b"first\n")
    late = (log.directory / "current.index").read_bytes()
    log.turn()
    log.write(b"second\n")
    (log.directory / "current.index").write_bytes(late)
    assert log.last(since=6) == ["second"]
    (log.directory / "current.index").unlink()
    assert log.last(since=6) == ["second"]
    assert log.last(since=0) == ["first", "second"]


def test_any_bytes_can_be_shown(log: Log) -> None:
    """Bytes that are no text and control characters are escaped; letters and tabs are not."""
    log.write("é\tü\n".encode() + b"\xff\xfe\n\x1b[2J\x07\r\n\x00\x9b\xc2\x9b\n")
    assert log.last() == ["é\tü", "\\xff\\xfe", "\\x1b[2J\\x07\\x0d", "\\x00\\x9b\\x9b"]


def test_long_lines_are_cut(log: Log) -> None:
    """A line has 200 characters at most and says that it was cut; one that began before what is read shows its end."""
    log.write(b"a" * 200 + b"\n" + b"b" * 201 + b"\n")
    assert log.last() == ["a" * 200, "b" * 199 + "…"]
    log.write(b"c" * 9000 + b"the end")
    assert log.last() == ["…" + ("c" * 199 + "the end")[-199:]]
    log.write(b"\nnext\n")
    assert log.last() == ["next"]


def test_little_is_read_of_a_large_log(log: Log) -> None:
    """Of a log of any size only the end is read, and no line is shown in part."""
    log.write(b"".join(b"%0100d\n" % number for number in range(20_000)))
    assert log.last(count=1000) == [f"{number:0100d}" for number in range(20_000 - 8192 // 101, 20_000)]


def test_the_newest_rotated_file_may_be_compressed(log: Log) -> None:
    """What is read of the file before the current one is the same once that is compressed."""
    log.write(b"".join(b"old %d\n" % number for number in range(5_000)))
    log.turn()
    log.write(b"new\n")
    expected = log.last()
    assert expected == [*(f"old {number}" for number in range(4_981, 5_000)), "new"]
    path = log.directory / f"{0:020d}.log"
    (log.directory / f"{0:020d}.log.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    assert log.last() == expected
