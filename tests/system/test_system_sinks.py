"""Files of processes' own: each byte once, whoever is killed when; rotated; never what is somebody else's."""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ncolony.model.config import LogConfig
from ncolony.system.compress import Compressor, compress
from ncolony.system.own_log import LONGEST_LINE
from ncolony.system.sinks import Files, FileSink, Target, Unwritable, plan
from ncolony.system.times import Times, in_words


def target(path: Path, **more: Any) -> Target:
    """A file of the process "web"."""
    found = Target("web", None, str(path), "raw", False, 1 << 20, 3, False, None, None)
    return msgspec.structs.replace(found, **more)


def files(tmp_path: Path) -> Files:
    """All files, as a supervisor that was just started has them."""
    return Files(str(tmp_path / "note"), Compressor(str(tmp_path / "logs")))


def sink(found: Target, all_files: Files, tmp_path: Path, in_line: bool = False) -> FileSink:
    return FileSink(found, all_files, str(tmp_path / "logs"), lambda: in_line)


def take_all(one: FileSink, data: bytes, offset: int = 0, finished: bool = True) -> int:
    """Have all of the data written as far as it can be; where it got to."""
    at = 0
    while taken := one.take("web", offset + at, data[at:], finished):
        at += taken
    return at


def killed(tmp_path: Path, code: str) -> None:
    """Run Python that writes with `files` and `web` and is killed wherever it says so."""
    prelude = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from ncolony.system import sinks\n"
        "from ncolony.system.compress import Compressor\n"
        f"root = Path({str(tmp_path)!r})\n"
        "files = sinks.Files(str(root / 'note'), Compressor(str(root)))\n"
        "web = sinks.Target('web', None, str(root / 'web.log'), 'raw', False, 1 << 20, 3, False, None, None)\n"
        "kill = lambda: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", prelude + code], capture_output=True, timeout=60)
    assert done.returncode == -9, done.stderr.decode()


TORN = (
    "files.append(web, 'web', 0, 4, b'one\\n')\n"
    "write = os.write\n"
    "def torn(descriptor, data):\n"
    "    write(descriptor, bytes(data)[:2])\n"
    "    kill()\n"
    "sinks.os.write = torn\n"
    "files.append(web, 'web', 4, 8, b'two\\n')\n"
)


def test_killed_in_the_middle_of_a_write(tmp_path: Path) -> None:
    """What was written of a piece is cut off, so that it can be written again."""
    killed(tmp_path, TORN)
    assert (tmp_path / "web.log").read_bytes() == b"one\ntw"
    assert files(tmp_path).finish(lambda key: 4) is None
    assert (tmp_path / "web.log").read_bytes() == b"one\n"


def test_killed_after_a_write(tmp_path: Path) -> None:
    """A piece that is complete and not committed is told of, and not written again."""
    killed(tmp_path, "files.append(web, 'web', 0, 4, b'one\\n')\nkill()\n")
    note = files(tmp_path).finish(lambda key: 0)
    assert note is not None
    assert (note.key, note.end) == ("web", 4)
    assert files(tmp_path).finish(lambda key: 4) is None
    assert (tmp_path / "web.log").read_bytes() == b"one\n"


def test_killed_and_moved_away(tmp_path: Path) -> None:
    """A file that got another name after the kill is found in its directory."""
    killed(tmp_path, TORN)
    (tmp_path / "web.log").rename(tmp_path / "web.log-20261122")
    assert files(tmp_path).finish(lambda key: 4) is None
    assert (tmp_path / "web.log-20261122").read_bytes() == b"one\n"


@pytest.mark.parametrize("committed", [8, None])
def test_what_is_not_the_last_piece_is_not_cut(tmp_path: Path, committed: int | None) -> None:
    """Where the commit says that the noted piece is done, whatever the file looks like is somebody else's doing."""
    killed(tmp_path, TORN)
    assert files(tmp_path).finish(lambda key: committed) is None
    assert (tmp_path / "web.log").read_bytes() == b"one\ntw"


def test_another_file_is_not_cut(tmp_path: Path) -> None:
    """A file that took the place of the noted one is left as it is."""
    killed(tmp_path, TORN)
    (tmp_path / "web.log").rename(tmp_path / "kept")
    (tmp_path / "web.log").write_bytes(b"one\ntwo")
    files(tmp_path).finish(lambda key: 4)
    assert (tmp_path / "web.log").read_bytes() == b"one\ntwo"


def test_a_file_that_somebody_else_writes_is_not_cut(tmp_path: Path) -> None:
    """Once somebody else has written the file, nothing is ever cut off it."""
    killed(tmp_path, TORN.replace("write = os.write", "(root / 'web.log').open('ab').write(b'x\\n')\nwrite = os.write"))
    assert files(tmp_path).finish(lambda key: 4) is None
    assert (tmp_path / "web.log").read_bytes() == b"one\nx\ntw"


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff", b'{"key": 1}'])
def test_a_damaged_note(tmp_path: Path, damage: bytes) -> None:
    """A note that cannot be read is none."""
    (tmp_path / "note").write_bytes(damage)
    assert files(tmp_path).finish(lambda key: 0) is None


def test_emptied_by_who_rotates_so(tmp_path: Path) -> None:
    """A file that was copied and emptied is written on from its new end."""
    path, all_files = tmp_path / "web.log", files(tmp_path)
    take_all(sink(target(path), all_files, tmp_path), b"one\n")
    os.truncate(path, 0)
    take_all(sink(target(path), all_files, tmp_path), b"two\n")
    assert path.read_bytes() == b"two\n"


def test_removed_and_begun_anew(tmp_path: Path) -> None:
    """A file that was removed is created anew with the next output."""
    path, all_files = tmp_path / "web.log", files(tmp_path)
    take_all(sink(target(path), all_files, tmp_path), b"one\n")
    path.unlink()
    take_all(sink(target(path), all_files, tmp_path), b"two\n")
    assert path.read_bytes() == b"two\n"


def test_moved_away_and_reopened(tmp_path: Path) -> None:
    """A file that was moved away is written on until it is reopened."""
    path, all_files = tmp_path / "web.log", files(tmp_path)
    take_all(sink(target(path), all_files, tmp_path), b"one\n")
    path.rename(tmp_path / "moved")
    take_all(sink(target(path), all_files, tmp_path), b"two\n")
    all_files.reopen()
    take_all(sink(target(path), all_files, tmp_path), b"three\n")
    assert ((tmp_path / "moved").read_bytes(), path.read_bytes()) == (b"one\ntwo\n", b"three\n")


def test_many_files(tmp_path: Path) -> None:
    """Hundreds of files are written with few descriptors."""
    all_files = files(tmp_path)
    before = len(os.listdir("/dev/fd"))
    for _ in range(2):
        for number in range(200):
            take_all(sink(target(tmp_path / f"p{number}"), all_files, tmp_path), b"line\n")
    assert len(os.listdir("/dev/fd")) - before < 40
    assert all((tmp_path / f"p{number}").read_bytes() == b"line\n" * 2 for number in range(200))


def rotated(tmp_path: Path) -> dict[str, bytes]:
    """The content of the file and of what was rotated of it."""
    return {path.name: path.read_bytes() for path in tmp_path.glob("web.log*")}


def test_rotation(tmp_path: Path) -> None:
    """A full file becomes PATH.1 with the next output; the oldest beyond `keep` goes."""
    one = sink(target(tmp_path / "web.log", max_bytes=4, keep=2), files(tmp_path), tmp_path)
    for line in (b"aaa\n", b"bbb\n", b"ccc\n", b"ddd\n"):
        take_all(one, line)
    assert rotated(tmp_path) == {"web.log": b"ddd\n", "web.log.1": b"ccc\n", "web.log.2": b"bbb\n"}


def test_nothing_is_kept(tmp_path: Path) -> None:
    """With keep 0 a full file is removed."""
    one = sink(target(tmp_path / "web.log", max_bytes=4, keep=0), files(tmp_path), tmp_path)
    for line in (b"aaa\n", b"bbb\n"):
        take_all(one, line)
    assert rotated(tmp_path) == {"web.log": b"bbb\n"}


def test_fewer_are_kept(tmp_path: Path) -> None:
    """When `keep` becomes smaller what is beyond it goes with the next rotation."""
    all_files = files(tmp_path)
    one = sink(target(tmp_path / "web.log", max_bytes=4, keep=4), all_files, tmp_path)
    for number in range(6):
        take_all(one, b"%3d\n" % number)
    one.target = target(tmp_path / "web.log", max_bytes=4, keep=2)
    take_all(one, b"end\n")
    assert rotated(tmp_path) == {"web.log": b"end\n", "web.log.1": b"  5\n", "web.log.2": b"  4\n"}


def test_rotation_that_was_interrupted(tmp_path: Path) -> None:
    """Where a number is missing, since whoever rotated was killed, nothing that is there is thrown away for it."""
    one = sink(target(tmp_path / "web.log", max_bytes=4, keep=3), files(tmp_path), tmp_path)
    for name, line in (("web.log", b"ccc\n"), ("web.log.2.gz", b"bbb\n"), ("web.log.3", b"aaa\n")):
        (tmp_path / name).write_bytes(line)
    take_all(one, b"ddd\n")
    assert rotated(tmp_path) == {
        "web.log": b"ddd\n", "web.log.1": b"ccc\n", "web.log.2.gz": b"bbb\n", "web.log.3": b"aaa\n"
    }  # fmt: skip


def test_rotation_is_at_the_end_of_lines(tmp_path: Path) -> None:
    """A piece that is larger than a file is divided between lines; a line is not divided."""
    one = sink(target(tmp_path / "web.log", max_bytes=100, keep=100), files(tmp_path), tmp_path)
    data = b"".join(b"%07d\n" % number for number in range(100)) + b"x" * 300 + b"\n" + b"end\n"
    assert take_all(one, data) == len(data)
    found = rotated(tmp_path)
    names = sorted(found, key=lambda name: -int(name.removeprefix("web.log").removeprefix(".") or 0))
    assert b"".join(found[name] for name in names) == data
    assert len(found) > 5
    assert all(100 <= len(found[name]) < 100 + 301 for name in names[:-1])
    assert all(content.endswith(b"\n") for content in found.values())


def test_rotation_that_is_not_possible(tmp_path: Path) -> None:
    """A file that cannot be rotated grows on, the reason is told, and it is rotated once it can be."""
    one = sink(target(tmp_path / "web.log", max_bytes=4, keep=1), files(tmp_path), tmp_path)
    (tmp_path / "web.log.1").mkdir()
    for line in (b"aaa\n", b"bbb\n"):
        take_all(one, line)
    assert one.trouble == f"cannot rotate {tmp_path}/web.log: Is a directory"
    assert (tmp_path / "web.log").read_bytes() == b"aaa\nbbb\n"
    (tmp_path / "web.log.1").rmdir()
    take_all(one, b"ccc\n")
    assert one.trouble == ""
    assert rotated(tmp_path) == {"web.log": b"ccc\n", "web.log.1": b"aaa\nbbb\n"}


def index(tmp_path: Path, *entries: tuple[int, int]) -> None:
    """The index of a log, times in seconds."""
    (tmp_path / "logs" / "web").mkdir(parents=True, exist_ok=True)
    data = b"".join(struct.pack("!QQ", offset, seconds * 10**9) for offset, seconds in entries)
    (tmp_path / "logs" / "web" / "current.index").write_bytes(data)


def test_times_of_lines(tmp_path: Path) -> None:
    """Each line has the time by which it was printed; what is not indexed yet has that of what came before."""
    index(tmp_path, (0, 10), (4, 11), (12, 12))
    one = sink(target(tmp_path / "web.log", timestamps=True), files(tmp_path), tmp_path)
    take_all(one, b"aaa\nbbb\nccc\nddd\n")
    stamps = [line.split(" ") for line in (tmp_path / "web.log").read_text().splitlines()]
    assert stamps == [
        ["1970-01-01T00:00:11.000Z", "aaa"],
        ["1970-01-01T00:00:12.000Z", "bbb"],
        ["1970-01-01T00:00:12.000Z", "ccc"],
        ["1970-01-01T00:00:12.000Z", "ddd"],
    ]


def test_times_across_files(tmp_path: Path) -> None:
    """The index of each file tells of what is in it."""
    index(tmp_path, (8, 20), (12, 21))
    place = tmp_path / "logs" / "web"
    (place / f"{0:020d}.log").write_bytes(b"aaa\nbbb\n")
    (place / f"{0:020d}.index").write_bytes(struct.pack("!QQQQ", 0, 10 * 10**9, 8, 11 * 10**9))
    times = Times(str(place), 0, 12)
    assert [times.of(end) // 10**9 for end in (4, 8, 12)] == [11, 11, 21]


def test_times_in_a_long_index(tmp_path: Path) -> None:
    """Of a long index only what concerns the bytes is read."""
    index(tmp_path, *((number, number) for number in range(50_000)))
    times = Times(str(tmp_path / "logs" / "web"), 30_000, 30_100)
    assert len(times.entries) < 200
    assert times.of(30_050) == 30_050 * 10**9


def test_no_index(tmp_path: Path) -> None:
    """Without an index a line has the present time."""
    one = sink(target(tmp_path / "web.log", timestamps=True), files(tmp_path), tmp_path)
    take_all(one, b"aaa\n")
    assert (tmp_path / "web.log").read_text()[:4] > "2000"


def test_unfinished_lines(tmp_path: Path) -> None:
    """A line gets one time, in however many pieces it comes, and ends where its instance does."""
    index(tmp_path, (0, 10), (10**6, 11))
    one = sink(target(tmp_path / "web.log", timestamps=True), files(tmp_path), tmp_path)
    assert one.take("web", 0, b"aaa\nbb", False) == 4
    assert one.take("web", 4, b"bb", False) == 0
    assert one.take("web", 4, b"bbb", True) == 3
    long = b"x" * LONGEST_LINE
    assert one.take("web", 7, long, False) == len(long)
    assert one.take("web", 7 + len(long), b"yy\nzzz\n", False) == 7
    stamp = b"1970-01-01T00:00:11.000Z "
    assert (tmp_path / "web.log").read_bytes() == (
        stamp + b"aaa\n" + stamp + b"bbb\n" + stamp + long + b"yy\n" + stamp + b"zzz\n"
    )


def test_a_line_that_was_begun_before(tmp_path: Path) -> None:
    """The rest of a line that an earlier supervisor began gets no time of its own."""
    index(tmp_path, (0, 10), (10**6, 11))
    one = sink(target(tmp_path / "web.log", timestamps=True), files(tmp_path), tmp_path, in_line=True)
    take_all(one, b"rest\nnext\n", offset=100)
    assert (tmp_path / "web.log").read_bytes() == b"rest\n1970-01-01T00:00:11.000Z next\n"


def test_json(tmp_path: Path) -> None:
    """Lines of JSON hold whatever was printed; a part of a long line says that it is one."""
    index(tmp_path, (0, 10), (10**6, 11))
    one = sink(target(tmp_path / "web.log", format="json"), files(tmp_path), tmp_path)
    data = b'q"\n\xff\n\n' + b"x" * LONGEST_LINE
    assert one.take("web", 0, data, False) == len(data)
    records = [msgspec.json.decode(line) for line in (tmp_path / "web.log").read_bytes().splitlines()]
    common = {"time": "1970-01-01T00:00:11.000Z", "name": "web", "stream": None}
    assert records[:3] == [{**common, "line": line} for line in ('q"', "\\xff", "")]
    assert records[3] == {**common, "line": "x" * LONGEST_LINE, "partial": True}


def test_in_words() -> None:
    """Times are in UTC, to the millisecond."""
    assert in_words(1_795_371_444_007_999_999) == "2026-11-22T18:17:24.007Z"


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/stderr", "/dev/fd/1", "/proc/self/fd/1", "/dev/null"])
def test_what_is_no_file(tmp_path: Path, path: str) -> None:
    """A device, and what means another file to everybody, is refused with the reason."""
    with pytest.raises(Unwritable, match=f"cannot write {path}: it is not a (file of its own; .*forward|regular file)"):
        take_all(sink(target(Path(path)), files(tmp_path), tmp_path), b"line\n")


def test_plans() -> None:
    """Paths are relative to the process's directory; one file for both streams does not keep them apart."""
    apart = plan("web", LogConfig(stdout="out", stderr="/abs/err", max_bytes="1K"), "/srv", 5, 6)
    assert apart.stdout == Target("web", "stdout", "/srv/out", "raw", False, 1024, 3, False, 5, 6)
    assert apart.stderr == Target("web", "stderr", "/abs/err", "raw", False, 1024, 3, False, 5, 6)
    joined = plan("web", LogConfig(stdout="out", stderr="out"), "/srv", None, None)
    assert (joined.split, joined.stderr) == (False, None)
    assert joined.stdout == Target("web", None, "/srv/out", "raw", False, 10 << 20, 3, False, None, None)
    assert plan("web", LogConfig(stderr=True), "/srv", None, None).split


def test_compress(tmp_path: Path) -> None:
    """A compressed file holds what it held, with the same mode; the plain one and anything half made are gone."""
    path = tmp_path / "web.log.1"
    path.write_bytes(b"line\n" * 100_000)
    path.chmod(0o640)
    (tmp_path / "web.log.1.gz.new").write_bytes(b"half made")
    compress(str(path))
    assert [found.name for found in tmp_path.iterdir()] == ["web.log.1.gz"]
    assert gzip.decompress((tmp_path / "web.log.1.gz").read_bytes()) == b"line\n" * 100_000
    assert (tmp_path / "web.log.1.gz").stat().st_mode & 0o777 == 0o640


def test_thrown_away_while_it_is_compressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the plain file is removed meanwhile, no compressed one is left either."""
    path = tmp_path / "0.log"
    path.write_bytes(b"line\n")
    monkeypatch.setattr("ncolony.system.compress.reach", lambda point: path.unlink(missing_ok=True))
    compress(str(path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["symlink", "hardlink"])
def test_links_are_not_compressed(tmp_path: Path, kind: str) -> None:
    """What is a link to something else is left alone."""
    (tmp_path / "other").write_bytes(b"precious")
    if kind == "symlink":
        (tmp_path / "web.log.1").symlink_to("other")
        with pytest.raises(OSError, match="symbolic"):
            compress(str(tmp_path / "web.log.1"))
    else:
        os.link(tmp_path / "other", tmp_path / "web.log.1")
        compress(str(tmp_path / "web.log.1"))
    assert sorted(found.name for found in tmp_path.iterdir()) == ["other", "web.log.1"]
    assert (tmp_path / "other").read_bytes() == b"precious"
