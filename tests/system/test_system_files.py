"""Files: written whole, read as snapshots, never waiting for anybody."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
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
