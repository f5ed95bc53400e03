"""Files: written whole, read as snapshots, never waiting for anybody."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import inotify_simple
import pytest

import ncolony
from ncolony.model.names import is_ignored
from ncolony.system.files import LARGEST, Directory, Entry, Unreadable, read_small, remove_if_there, write_whole

SOURCE = str(Path(ncolony.__file__).parent.parent)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root is strict, and only root can mount")
LONG_AGO = 1_000_000_000


def put(path: Path, data: bytes = b"{}") -> Path:
    """Write a file as it would be after some time: old enough to be told from a later version of it."""
    path.write_bytes(data)
    os.utime(path, (LONG_AGO, LONG_AGO))
    return path


def entries(found: dict[str, Entry | None]) -> dict[str, bytes | str | None]:
    """Name to content, or to why it is not to be used, or None for what is gone."""
    return {name: None if e is None else e.why or e.data for name, e in found.items()}


def settle(directory: Directory) -> None:
    """Scan until what was written lately is told from what may yet be written in the same tick."""
    while directory.scan():
        pass


class TestWriteWhole:
    """write_whole"""

    def test_content_and_mode(self, tmp_path: Path) -> None:
        """The file has the content and the mode less the umask, and nothing else is there."""
        write_whole(tmp_path / "a", b"one", 0o640)
        write_whole(str(tmp_path / "a"), b"two", 0o640)
        assert (tmp_path / "a").read_bytes() == b"two"
        umask = os.umask(0)
        os.umask(umask)
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640 & ~umask
        assert os.listdir(tmp_path) == ["a"]

    def test_many_writers_of_one_path(self, tmp_path: Path) -> None:
        """Writers of one path disturb nobody: a reader sees one's content whole, and no temporary file stays."""
        path = tmp_path / "a"
        contents = [bytes([65 + number]) * 200_000 for number in range(8)]
        write_whole(path, contents[0])
        over, seen = threading.Event(), set()

        def read() -> None:
            while not over.is_set():
                seen.add(path.read_bytes())

        def write(data: bytes) -> None:
            for _ in range(20):
                write_whole(path, data)

        reader = threading.Thread(target=read)
        writers = [threading.Thread(target=write, args=(data,)) for data in contents]
        for thread in (reader, *writers):
            thread.start()
        for thread in writers:
            thread.join()
        over.set()
        reader.join()
        assert seen
        assert seen <= set(contents)
        assert os.listdir(tmp_path) == ["a"]

    def test_writers_in_other_processes(self, tmp_path: Path) -> None:
        """Writers in several processes, forked ones among them, use no temporary name of each other's."""
        path = tmp_path / "a"
        script = (
            f"import sys, os; sys.path.insert(0, {SOURCE!r})\n"
            "from ncolony.system.files import write_whole\n"
            "os.fork()\n"
            f"for _ in range(200): write_whole({str(path)!r}, b'%d' % os.getpid() * 1000)\n"
        )
        running = [subprocess.Popen([sys.executable, "-I", "-S", "-c", script]) for _ in range(2)]
        assert [process.wait(30) for process in running] == [0, 0]
        data = path.read_bytes()
        assert data == data[: len(data) // 1000] * 1000
        # A forked child may still be writing; what it leaves in between ends in .new, and its end leaves nothing.

    def test_failure_leaves_the_old_and_nothing_else(self, tmp_path: Path) -> None:
        """Where the rename fails the temporary file is removed again."""
        (tmp_path / "a").mkdir()
        with pytest.raises(OSError, match="directory"):
            write_whole(tmp_path / "a", b"x")
        assert os.listdir(tmp_path) == ["a"]

    def test_missing_directory(self, tmp_path: Path) -> None:
        """A missing directory is an OSError."""
        with pytest.raises(FileNotFoundError):
            write_whole(tmp_path / "no" / "a", b"x")

    def test_link_is_replaced(self, tmp_path: Path) -> None:
        """A symbolic link in the way is replaced, not followed."""
        (tmp_path / "victim").write_bytes(b"safe")
        (tmp_path / "a").symlink_to("victim")
        write_whole(tmp_path / "a", b"x")
        assert (tmp_path / "victim").read_bytes() == b"safe"
        assert not (tmp_path / "a").is_symlink()


def test_remove_if_there(tmp_path: Path) -> None:
    """A file that is there is removed, one that is not is no error, and one that cannot be is."""
    put(tmp_path / "a")
    assert remove_if_there(str(tmp_path / "a")) is True
    assert remove_if_there(str(tmp_path / "a")) is False
    (tmp_path / "d").mkdir()
    with pytest.raises(OSError, match="directory"):
        remove_if_there(str(tmp_path / "d"))


class TestDirectory:
    """Directory"""

    def test_snapshot_and_changes(self, tmp_path: Path) -> None:
        """The first scan shows everything, the next only what changed, was added or is gone."""
        directory = Directory(str(tmp_path), is_ignored)
        put(tmp_path / "a", b"1")
        put(tmp_path / "b", b"2")
        assert entries(directory.scan()) == {"a": b"1", "b": b"2"}
        settle(directory)
        put(tmp_path / "a", b"3")
        (tmp_path / "b").unlink()
        put(tmp_path / "c", b"4")
        assert entries(directory.scan()) == {"a": b"3", "b": None, "c": b"4"}
        settle(directory)
        assert directory.scan() == {}

    @pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
    def test_unchanged_files_are_not_read_again(self, tmp_path: Path) -> None:
        """A file whose times, size and inode are the same is not opened."""
        directory = Directory(str(tmp_path), is_ignored)
        path = put(tmp_path / "a", b"1")
        settle(directory)
        with inotify_simple.INotify(nonblocking=True) as opened:
            opened.add_watch(path, inotify_simple.flags.OPEN)
            for _ in range(3):
                assert directory.scan() == {}
            assert opened.read(timeout=0) == []
            directory.look(["a"])
            assert opened.read(timeout=0) != []

    def test_rewritten_with_equal_time_and_size(self, tmp_path: Path) -> None:
        """A file rewritten in place within the same tick, or with its old time put back, is seen all the same."""
        directory = Directory(str(tmp_path), is_ignored)
        for number in range(50):
            put(tmp_path / "a", b"%03d" % number)
            assert entries(directory.scan()) == {"a": b"%03d" % number}

    def test_look_reads_again(self, tmp_path: Path) -> None:
        """Files asked for by name are read even when they seem unchanged; unknown and ignored names are nothing."""
        directory = Directory(str(tmp_path), is_ignored)
        put(tmp_path / "a", b"1")
        settle(directory)
        assert entries(directory.look(["a", "nothing", ".hidden", "b~"])) == {"a": b"1"}
        (tmp_path / "a").unlink()
        assert entries(directory.look(["a"])) == {"a": None}
        assert directory.look(["a"]) == {}

    def test_ignored_names(self, tmp_path: Path) -> None:
        """Hidden, temporary and backup names and directories are nothing."""
        for name in (".a", "a.new", "a~", "a.swp", "a.tmp", "a.bak", "#a#"):
            put(tmp_path / name)
        (tmp_path / "directory").mkdir()
        assert Directory(str(tmp_path), is_ignored).scan() == {}

    def test_what_is_not_a_file(self, tmp_path: Path) -> None:
        """FIFO, socket, device, link to nothing, link to itself and too large files have a reason and never block."""
        os.mkfifo(tmp_path / "fifo")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "socket"))
        (tmp_path / "null").symlink_to("/dev/null")
        (tmp_path / "dangling").symlink_to("nowhere")
        (tmp_path / "loop").symlink_to("loop")
        put(tmp_path / "large", b"x" * (10 << 20))
        put(tmp_path / "fits", b"x" * LARGEST)
        put(tmp_path / "good")
        directory = Directory(str(tmp_path), is_ignored)
        found = entries(directory.scan())
        assert found.pop("good") == b"{}"
        assert found.pop("fits") == b"x" * LARGEST
        assert found == {
            "fifo": "not a regular file",
            "socket": "not a regular file",
            "null": "not a regular file",
            "dangling": "a symbolic link to nothing",
            "loop": "Too many levels of symbolic links",
            "large": f"{10 << 20} bytes, larger than {LARGEST}",
        }

    def test_problems_are_told_once(self, tmp_path: Path) -> None:
        """What cannot be used is told when it comes, not at every scan."""
        os.mkfifo(tmp_path / "fifo")
        (tmp_path / "dangling").symlink_to("nowhere")
        directory = Directory(str(tmp_path), is_ignored)
        for name in ("fifo", "dangling"):
            os.utime(tmp_path / name, (LONG_AGO, LONG_AGO), follow_symlinks=False)
        settle(directory)
        assert directory.scan() == {}
        put(tmp_path / "nowhere", b"here")
        assert entries(directory.scan()) == {"dangling": b"here", "nowhere": b"here"}

    def test_file_becomes_a_directory(self, tmp_path: Path) -> None:
        """A file that a directory has taken the place of is gone, told once."""
        directory = Directory(str(tmp_path), is_ignored)
        put(tmp_path / "a")
        settle(directory)
        (tmp_path / "a").unlink()
        (tmp_path / "a").mkdir()
        assert entries(directory.scan()) == {"a": None}
        assert directory.scan() == {}

    def test_missing_directory_keeps_what_was_known(self, tmp_path: Path) -> None:
        """A directory that vanished is an error and removes nothing; when it is back only what differs has changed."""
        place = tmp_path / "conf"
        place.mkdir()
        directory = Directory(str(place), is_ignored)
        put(place / "a", b"1")
        put(place / "b", b"2")
        settle(directory)
        place.rename(tmp_path / "away")
        with pytest.raises(FileNotFoundError):
            directory.scan()
        (tmp_path / "away").rename(place)
        (place / "b").unlink()
        assert entries(directory.scan()) == {"b": None}

    def test_config_map_swap(self, tmp_path: Path) -> None:
        """A Kubernetes mount, whose entries are links through ..data, changes as a whole when ..data is swapped."""
        for number in (1, 2):
            (tmp_path / f"..version{number}").mkdir()
            put(tmp_path / f"..version{number}" / "web", b"%d" % number)
        put(tmp_path / "..version1" / "old", b"old")
        (tmp_path / "..data").symlink_to("..version1")
        for name in ("web", "old"):
            (tmp_path / name).symlink_to(f"..data/{name}")
        directory = Directory(str(tmp_path), is_ignored)
        assert entries(directory.scan()) == {"web": b"1", "old": b"old"}
        settle(directory)
        (tmp_path / "..data_tmp").symlink_to("..version2")
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        (tmp_path / "old").unlink()
        assert entries(directory.scan()) == {"web": b"2", "old": None}

    def test_names_that_are_no_text(self, tmp_path: Path) -> None:
        """A name that is not UTF-8 is read like any other."""
        put(tmp_path / os.fsdecode(b"\xff\xfe"), b"1")
        assert entries(Directory(str(tmp_path), is_ignored).scan()) == {"\udcff\udcfe": b"1"}

    @as_root
    def test_unreadable_file(self, tmp_path: Path) -> None:
        """A file that we may not read has that as its reason, and is read once we may."""
        tmp_path.chmod(0o755)
        put(tmp_path / "a", b"1").chmod(0)
        script = (
            f"import sys, os; sys.path.insert(0, {SOURCE!r})\n"
            "from ncolony.system.files import Directory\n"
            f"os.chdir({str(tmp_path)!r})\n"
            "os.setresuid(54321, 54321, 54321)\n"
            "print(Directory('.', lambda name: False).scan()['a'].why)\n"
        )
        done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, timeout=30)
        assert done.stdout == "Permission denied\n", done.stderr


class TestHinted:
    """Directory where the kernel tells of changes: `look` is called for them, and the others have their turn"""

    ROUNDS = 6  # scans in which every file has had its turn, as the docstring of `scan` says

    def hinted(self, directory: Directory) -> dict[str, bytes | str | None]:
        """What so many scans tell together."""
        told: dict[str, bytes | str | None] = {}
        for _ in range(self.ROUNDS):
            told |= entries(directory.scan(hinted=True))
        return told

    def quiet(self, place: Path, count: int = 20) -> Directory:
        """A directory with so many files, nothing of which has changed lately."""
        for number in range(count):
            put(place / f"f{number:02}", b"1")
        directory = Directory(str(place), is_ignored)
        settle(directory)
        self.settle_listing(directory)
        return directory

    @staticmethod
    def settle_listing(directory: Directory) -> None:
        """Wait until the directory itself has not changed lately, and was listed since."""
        deadline = time.monotonic() + 20
        while time.time_ns() - os.stat(directory.path).st_ctime_ns < 100_000_000:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        directory.scan(hinted=True)

    def test_every_file_has_its_turn(self, tmp_path: Path) -> None:
        """A change that nobody spoke of is found in six scans, each of which looks at a few files only."""
        directory = self.quiet(tmp_path)
        for number in range(20):
            put(tmp_path / f"f{number:02}", b"22")
        found: list[str] = []
        for _ in range(self.ROUNDS):
            new = directory.scan(hinted=True).keys() - {*found}  # those found lately are in doubt, and come again
            assert 2 <= len(new) <= 4
            found += new
        assert sorted(found) == sorted(os.listdir(tmp_path))

    def test_turns_while_files_come_and_go(self, tmp_path: Path) -> None:
        """No file is passed over for good because others come and go."""
        directory = self.quiet(tmp_path)
        put(tmp_path / "f19", b"22")
        seen: dict[str, bytes | str | None] = {}
        for number in range(4 * self.ROUNDS):
            put(tmp_path / f"new{number}")
            (tmp_path / f"f{number % 10:02}").unlink(missing_ok=True)
            seen |= entries(directory.scan(hinted=True))
        assert seen["f19"] == b"22"

    @pytest.mark.parametrize("hinted", [True, False])
    def test_come_and_gone(self, tmp_path: Path, hinted: bool) -> None:
        """Files that come or go change the directory, which is then listed: they are told of at once."""
        directory = self.quiet(tmp_path)
        put(tmp_path / "new", b"2")
        (tmp_path / "f03").unlink()
        (tmp_path / "f04").rename(tmp_path / "f05")
        told = entries(directory.scan(hinted))
        assert (told["new"], told["f03"], told["f04"]) == (b"2", None, None)
        assert "f03" not in directory.seen
        assert entries(directory.scan(hinted)).keys() <= {"new", "f05"}

    @pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
    def test_an_unchanged_directory_is_not_listed(self, tmp_path: Path) -> None:
        """As long as the directory is as it was it is not opened; without hints it is, every time."""
        directory = self.quiet(tmp_path)
        with inotify_simple.INotify(nonblocking=True) as opened:
            opened.add_watch(tmp_path, inotify_simple.flags.OPEN | inotify_simple.flags.ONLYDIR)
            assert self.hinted(directory) == {}
            assert directory.differing(hinted=True) == []
            assert [one for one in opened.read(timeout=0) if not one.name] == []
            assert directory.scan() == {}
            assert [one for one in opened.read(timeout=0) if not one.name] != []

    def test_a_directory_that_changed_lately_is_listed_again(self, tmp_path: Path) -> None:
        """What comes in the same tick as the last listing is found all the same."""
        directory = self.quiet(tmp_path)
        for number in range(50):
            put(tmp_path / f"new{number}")
            assert f"new{number}" in directory.scan(hinted=True)

    def test_another_directory_in_its_place(self, tmp_path: Path) -> None:
        """A directory that has taken the place is listed, though its times may be the same."""
        place, other = tmp_path / "conf", tmp_path / "other"
        place.mkdir()
        directory = self.quiet(place)
        other.mkdir()
        put(other / "f00", b"other")
        os.utime(other, ns=(os.stat(place).st_atime_ns, os.stat(place).st_mtime_ns))
        place.rename(tmp_path / "away")
        other.rename(place)
        told = self.hinted(directory)
        assert told.pop("f00") == b"other"
        assert len(told) == 19
        assert set(told.values()) == {None}

    def test_a_listing_that_failed_is_made_up_for(self, tmp_path: Path) -> None:
        """When there was no descriptor to list with, what has come meanwhile is found at the next scan."""
        self.quiet(tmp_path)
        put(tmp_path / "new", b"2")
        deadline = time.monotonic() + 20
        while time.time_ns() - os.stat(tmp_path).st_ctime_ns < 100_000_000:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        script = (
            f"import sys, os, resource; sys.path.insert(0, {SOURCE!r})\n"
            "from ncolony.system.files import Directory\n"
            f"directory = Directory({str(tmp_path)!r}, lambda name: False)\n"
            "limit = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (3, limit[1]))\n"
            "try: directory.scan(hinted=True)\n"
            "except OSError as error: print(error.strerror)\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, limit)\n"
            "print(len(directory.scan(hinted=True)))\n"
        )
        done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, timeout=30)
        assert done.stdout == "Too many open files\n21\n", done.stderr

    def test_links_are_always_looked_at(self, tmp_path: Path) -> None:
        """What a link leads to may change without a word: each scan looks, and `differing_links` does at any time."""
        place = tmp_path / "conf"
        place.mkdir()
        directory = self.quiet(place)
        put(tmp_path / "target", b"1")
        (place / "link").symlink_to("../target")
        assert entries(directory.look(["link"])) == {"link": b"1"}
        settle(directory)
        for number in range(2, 5):
            assert directory.differing_links() == []
            put(tmp_path / "target", b"%d" % number)
            assert directory.differing_links() == ["link"]
            assert "link" in directory.differing(hinted=True)
            assert entries(directory.scan(hinted=True))["link"] == b"%d" % number
            settle(directory)
        (tmp_path / "target").unlink()
        assert directory.differing_links() == ["link"]
        assert entries(directory.look(["link"])) == {"link": "a symbolic link to nothing"}
        (place / "link").unlink()
        assert entries(directory.look(["link"])) == {"link": None}
        assert directory.differing_links() == []

    def test_a_file_that_becomes_a_link_and_back(self, tmp_path: Path) -> None:
        """It is known from the look, without a listing."""
        place = tmp_path / "conf"
        place.mkdir()
        directory = self.quiet(place)
        put(tmp_path / "target", b"1")
        (tmp_path / "new").symlink_to("target")
        (tmp_path / "new").rename(place / "f00")
        directory.look(["f00"])
        put(tmp_path / "target", b"22")
        assert directory.differing_links() == ["f00"]
        put(tmp_path / "plain", b"333").rename(place / "f00")
        assert entries(directory.look(["f00"])) == {"f00": b"333"}
        settle(directory)
        assert directory.links == set()

    def test_a_file_with_another_name_elsewhere(self, tmp_path: Path) -> None:
        """Who writes by that other name changes it without a word about this one: it is looked at as a link is."""
        place = tmp_path / "conf"
        place.mkdir()
        directory = self.quiet(place)
        os.link(put(tmp_path / "other", b"1"), place / "web")
        assert entries(directory.look(["web"])) == {"web": b"1"}
        settle(directory)
        assert directory.differing_links() == []
        (tmp_path / "other").write_bytes(b"22")
        assert directory.differing_links() == ["web"]
        assert entries(directory.scan(hinted=True))["web"] == b"22"
        settle(directory)  # lists it anew
        (tmp_path / "other").write_bytes(b"333")
        assert directory.differing_links() == ["web"]
        (tmp_path / "other").unlink()
        directory.look(["web"])
        settle(directory)
        assert directory.links == set()

    def test_differing_reads_nothing_and_settles_nothing(self, tmp_path: Path) -> None:
        """It names what `scan` would tell, however often it is asked, until that is read."""
        directory = self.quiet(tmp_path)
        put(tmp_path / "f00", b"22")
        put(tmp_path / "new")
        (tmp_path / "f01").unlink()
        for _ in range(3):
            assert sorted(directory.differing()) == ["f00", "f01", "new"]
        assert sorted(entries(directory.look(directory.differing()))) == ["f00", "f01", "new"]
        settle(directory)
        assert directory.differing() == []

    def test_differing_with_hints(self, tmp_path: Path) -> None:
        """What has come and is not read yet is named at least once in six times."""
        directory = self.quiet(tmp_path)
        put(tmp_path / "f07", b"22")
        named = [name for _ in range(self.ROUNDS) for name in directory.differing(hinted=True)]
        assert named == ["f07"]
        put(tmp_path / "new")
        assert "new" in directory.differing(hinted=True)

    def test_what_was_read_in_doubt_is_looked_at_again(self, tmp_path: Path) -> None:
        """A file that had just been written when it was read may have changed in the same tick: every scan looks."""
        directory = self.quiet(tmp_path)
        (tmp_path / "f00").write_bytes(b"--")
        directory.look(["f00"])
        for number in range(50):
            (tmp_path / "f00").write_bytes(b"%02d" % number)
            assert "f00" in directory.differing(hinted=True)
            assert entries(directory.scan(hinted=True))["f00"] == b"%02d" % number

    def test_a_signature_has_all_that_counts(self, tmp_path: Path) -> None:
        """Another size, another inode, other times, also of the inode alone: each is a change."""
        directory = self.quiet(tmp_path, 4)
        paths = [tmp_path / f"f{number:02}" for number in range(4)]
        put(paths[0], b"22")
        put(tmp_path / ".x", b"1").rename(paths[1])
        os.utime(paths[2], (LONG_AGO + 1, LONG_AGO + 1))
        paths[3].write_bytes(b"9")
        os.utime(paths[3], (LONG_AGO, LONG_AGO))  # as it was, but for the time of that
        assert sorted(directory.differing()) == sorted(path.name for path in paths)

    @as_root
    def test_strictness_is_asked_for_each_time(self, tmp_path: Path) -> None:
        """A directory that anybody may write from now on is looked at as a whole, whatever the kernel told."""
        for number in range(20):
            put(tmp_path / f"f{number:02}", b"1")
        directory = Directory(str(tmp_path), is_ignored, strict=True)
        settle(directory)
        self.settle_listing(directory)
        tmp_path.chmod(0o777)
        assert len(directory.differing(hinted=True)) == 20
        told = entries(directory.scan(hinted=True))
        assert len(told) == 20
        assert all("anybody may write" in str(why) for why in told.values())
        tmp_path.chmod(0o755)
        assert set(entries(directory.scan(hinted=True)).values()) == {b"1"}
        assert len(directory.seen) == 20

    def test_missing(self, tmp_path: Path) -> None:
        """A directory that is away is an error for a hinted scan too, and what was known stays so."""
        place = tmp_path / "conf"
        place.mkdir()
        directory = self.quiet(place)
        place.rename(tmp_path / "away")
        for call in (directory.scan, directory.differing):
            with pytest.raises(FileNotFoundError):
                call(True)
        (tmp_path / "away").rename(place)
        assert self.hinted(directory) == {}


class TestStrict:
    """Directory with strict modes, as a root supervisor has it"""

    def test_file_that_anybody_may_write(self, tmp_path: Path) -> None:
        """A file that anybody may write is not used, and is once its mode is right."""
        put(tmp_path / "a", b"1").chmod(0o666)
        put(tmp_path / "b", b"2").chmod(0o664)
        directory = Directory(str(tmp_path), is_ignored, strict=True)
        found = entries(directory.scan())
        assert found["b"] == b"2"
        assert found["a"] == f"anybody may write {tmp_path}/a (mode 666); --no-strict-modes would allow it"
        settle(directory)
        (tmp_path / "a").chmod(0o644)
        assert entries(directory.scan()) == {"a": b"1"}
        (tmp_path / "b").chmod(0o666)
        assert "anybody may write" in str(entries(directory.scan())["b"])

    def test_directory_that_anybody_may_write(self, tmp_path: Path) -> None:
        """Nothing in a directory that anybody may write is used, until its mode is right; a sticky one is fine."""
        put(tmp_path / "a", b"1")
        directory = Directory(str(tmp_path), is_ignored, strict=True)
        settle(directory)
        tmp_path.chmod(0o777)
        assert f"anybody may write {tmp_path} (mode 777)" in str(entries(directory.scan())["a"])
        settle_strict = entries(directory.scan())
        assert settle_strict.keys() <= {"a"}
        tmp_path.chmod(0o1777)
        assert entries(directory.scan()) == {"a": b"1"}

    def test_a_link_is_judged_by_what_it_leads_to(self, tmp_path: Path) -> None:
        """The mode of a symbolic link, which is always 777, does not matter; its file's does."""
        place = tmp_path / "conf"
        place.mkdir()
        put(tmp_path / "good", b"1")
        put(tmp_path / "bad", b"2").chmod(0o666)
        (place / "a").symlink_to("../good")
        (place / "b").symlink_to("../bad")
        found = entries(Directory(str(place), is_ignored, strict=True).scan())
        assert found["a"] == b"1"
        assert "anybody may write" in str(found["b"])

    def test_without_strict_modes(self, tmp_path: Path) -> None:
        """Without strict modes modes do not matter."""
        put(tmp_path / "a", b"1").chmod(0o666)
        tmp_path.chmod(0o777)
        assert entries(Directory(str(tmp_path), is_ignored).scan()) == {"a": b"1"}

    @as_root
    def test_read_only_mount_is_exempt(self, tmp_path: Path) -> None:
        """On a read-only mount, as ConfigMaps are, modes do not matter."""
        place = tmp_path / "conf"
        place.mkdir()
        put(place / "a", b"1").chmod(0o777)
        place.chmod(0o777)
        script = (
            f"import sys; sys.path.insert(0, {SOURCE!r})\n"
            "import subprocess\n"
            "from ncolony.system.files import Directory\n"
            f"directory = Directory({str(place)!r}, lambda name: False, strict=True)\n"
            "print(bool(directory.scan()['a'].why))\n"
            f"subprocess.run(['mount', '--bind', {str(place)!r}, {str(place)!r}], check=True)\n"
            f"subprocess.run(['mount', '-o', 'remount,bind,ro', {str(place)!r}], check=True)\n"
            "print(bool(directory.scan()['a'].why))\n"
        )
        command = ["unshare", "-m", sys.executable, "-I", "-S", "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert done.stdout == "True\nFalse\n", done.stderr


def test_read_small_of_what_grows(tmp_path: Path) -> None:
    """A file as large as allowed is read whole; one byte more is refused."""
    put(tmp_path / "a", b"x" * LARGEST)
    assert read_small(str(tmp_path / "a")) == b"x" * LARGEST
    put(tmp_path / "b", b"x" * (LARGEST + 1))
    with pytest.raises(Unreadable, match="larger than"):
        read_small(str(tmp_path / "b"))
    put(tmp_path / "c", b"")
    assert read_small(str(tmp_path / "c")) == b""
