"""The hint that something changed: soon after it happened, and "anything" where it is not known what."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from desk import Desk

from ncolony.system.wake import Names, Watcher

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")


class Watch:
    """A watcher of one directory, and what it said since the last question."""

    def __init__(self, desk: Desk, directory: Path) -> None:
        self.desk, self.directory = desk, directory
        self.said: list[tuple[str, Names]] = []
        self.watcher = Watcher(desk.reactor, lambda directory, names: self.said.append((directory, names)))
        self.watcher.arm(str(directory))

    def wait_for(self, *names: str) -> None:
        """Wait until all these names were said, then forget what was said."""

        def heard() -> bool:
            return set(names) <= {name for _, some in self.said for name in some or ()}

        self.desk.until(heard, f"{names} are said, not only {self.said}")
        self.said.clear()

    def wait_for_anything(self) -> None:
        """Wait until it was said that anything may have changed, then forget what was said."""
        self.desk.until(lambda: (str(self.directory), None) in self.said, f"anything may have changed: {self.said}")
        self.said.clear()

    def quiet(self) -> None:
        """Hear what is still to come, and forget it."""
        self.desk.settle()
        self.said.clear()


@pytest.fixture
def watch(desk: Desk, tmp_path: Path) -> Iterator[Watch]:
    """A directory that is watched."""
    place = tmp_path / "conf"
    place.mkdir()
    found = Watch(desk, place)
    assert found.said == [(str(place), None)]
    found.said.clear()
    yield found
    found.watcher.close()


def _drop(place: Path) -> None:
    (place / "a.new").write_bytes(b"1")
    (place / "a.new").rename(place / "a")


def _write_in_place(place: Path) -> None:
    (place / "a").write_bytes(b"1")


def _remove(place: Path) -> None:
    (place / "z").rename(place / "a")
    (place / "a").unlink()


def _change_mode(place: Path) -> None:
    (place / "z").chmod(0o600)
    (place / "a").touch()


@pytest.mark.parametrize("deed", [_drop, _write_in_place, _remove, _change_mode], ids=lambda deed: deed.__name__[1:])
def test_what_happens_to_a_file_is_said(watch: Watch, deed: Callable[[Path], None]) -> None:
    """A file that is renamed into place, written in place, removed or given another mode is named."""
    (watch.directory / "z").write_bytes(b"")
    watch.quiet()
    deed(watch.directory)
    watch.wait_for("a")


def test_a_file_that_stays_open_is_said(watch: Watch) -> None:
    """Every write to a file is said, though the writer does not close it."""
    with (watch.directory / "a").open("wb", buffering=0) as file:
        watch.wait_for("a")
        watch.quiet()
        file.write(b"more")
        watch.wait_for("a")


def test_mode_alone(watch: Watch) -> None:
    """A change of mode alone is said: it may make a file usable."""
    (watch.directory / "z").write_bytes(b"")
    watch.quiet()
    (watch.directory / "z").chmod(0o600)
    watch.wait_for("z")


def test_mode_of_the_directory(watch: Watch) -> None:
    """A change of the directory's own mode may concern everything in it."""
    watch.directory.chmod(0o700)
    watch.wait_for_anything()


def test_moved_out(watch: Watch, tmp_path: Path) -> None:
    """A file that is moved out of the directory is named."""
    (watch.directory / "a").write_bytes(b"")
    watch.quiet()
    (watch.directory / "a").rename(tmp_path / "elsewhere")
    watch.wait_for("a")


def test_config_map_swap(watch: Watch) -> None:
    """When ..data is swapped anything may have changed."""
    (watch.directory / "..version").mkdir()
    watch.quiet()
    (watch.directory / "..data_tmp").symlink_to("..version")
    (watch.directory / "..data_tmp").rename(watch.directory / "..data")
    watch.wait_for_anything()


@pytest.mark.parametrize("way", ["removed", "moved"])
def test_directory_that_is_replaced(watch: Watch, tmp_path: Path, way: str) -> None:
    """A directory that was removed or moved away is watched again when it is back and armed."""
    if way == "removed":
        shutil.rmtree(watch.directory)
    else:
        watch.directory.rename(tmp_path / "away")
    watch.wait_for_anything()
    watch.watcher.arm(str(watch.directory))
    watch.desk.settle()
    assert watch.said == []
    watch.directory.mkdir()
    watch.watcher.arm(str(watch.directory))
    watch.wait_for_anything()
    _drop(watch.directory)
    watch.wait_for("a")


def test_directory_replaced_unnoticed(watch: Watch, tmp_path: Path) -> None:
    """A directory that was replaced before we looked is told of at the next arming, and the new one is watched."""
    watch.directory.rename(tmp_path / "away")
    watch.directory.mkdir()
    watch.watcher.arm(str(watch.directory))
    assert (str(watch.directory), None) in watch.said
    watch.quiet()
    watch.watcher.arm(str(watch.directory))
    watch.quiet()
    _drop(watch.directory)
    watch.wait_for("a")


def test_arming_again_says_nothing(watch: Watch) -> None:
    """To arm what is armed is not news."""
    for _ in range(3):
        watch.watcher.arm(str(watch.directory))
    watch.desk.settle()
    assert watch.said == []


def test_overflow(watch: Watch) -> None:
    """More events than the kernel keeps mean that anything may have changed, and the next one is heard again."""
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if most > 50_000:
        pytest.skip("the queue is very long here")
    (watch.directory / "x").write_bytes(b"")
    watch.quiet()
    here = os.open(watch.directory, os.O_RDONLY)
    names = ["x", "y"]
    for number in range(most // 2 + 100):
        os.rename(names[number % 2], names[1 - number % 2], src_dir_fd=here, dst_dir_fd=here)
    os.close(here)
    watch.wait_for_anything()
    watch.quiet()
    _drop(watch.directory)
    watch.wait_for("a")


def test_two_directories(watch: Watch, tmp_path: Path) -> None:
    """Events are told of the directory that they happened in."""
    other = tmp_path / "messages"
    other.mkdir()
    watch.watcher.arm(str(other))
    watch.said.clear()
    (other / "m").write_bytes(b"")
    watch.desk.until(lambda: watch.said, "it is said")
    assert {directory for directory, _ in watch.said} == {str(other)}
    shutil.rmtree(other)
    watch.desk.until(lambda: (str(other), None) in watch.said, "its end is said")
    watch.said.clear()
    _drop(watch.directory)
    watch.wait_for("a")


def test_missing_directory(desk: Desk, tmp_path: Path) -> None:
    """A directory that is not there yet is no error, and is watched once it is armed again."""
    watch = Watch(desk, tmp_path / "later")
    try:
        assert watch.said == []
        watch.directory.mkdir()
        watch.watcher.arm(str(watch.directory))
        assert watch.said == [(str(watch.directory), None)]
        _drop(watch.directory)
        watch.wait_for("a")
    finally:
        watch.watcher.close()


def test_without_inotify(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without inotify nothing is said and nothing fails: the periodic scan is the truth."""
    monkeypatch.setenv("NCOLONY_WITHOUT", "inotify")
    watch = Watch(desk, tmp_path)
    _drop(tmp_path)
    desk.settle()
    watch.watcher.arm(str(tmp_path))
    assert watch.said == []
    assert watch.watcher.fileno() == -1
    assert watch.watcher not in desk.reactor.getReaders()
    watch.watcher.close()


def test_close(desk: Desk, tmp_path: Path) -> None:
    """A closed watcher leaves no descriptor behind, and may be closed again."""
    before = len(os.listdir("/proc/self/fd"))
    watch = Watch(desk, tmp_path)
    watch.watcher.close()
    watch.watcher.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert watch.watcher not in desk.reactor.getReaders()


class Two:
    """A watcher of two directories, what it said in order, and what a caller took meanwhile."""

    def __init__(self, desk: Desk, root: Path) -> None:
        self.desk, self.places = desk, (root / "conf", root / "messages")
        self.said: list[tuple[str, Names]] = []
        self.watcher = Watcher(desk.reactor, self._hear)
        self.on_said: Callable[[str], None] = lambda name: None
        for place in self.places:
            place.mkdir()
            self.watcher.arm(str(place))
        self.said.clear()

    def _hear(self, directory: str, names: Names) -> None:
        name = os.path.basename(directory)
        self.said.append((name, names))
        self.on_said(name)

    def take(self, which: int = 0) -> Names:
        return self.watcher.take(str(self.places[which]))


@pytest.fixture
def two(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Two]:
    """Directories of which everything is told, whatever they lie on."""
    monkeypatch.setattr("ncolony.system.mounts.tells_of_changes", lambda directory: True)
    found = Two(desk, tmp_path)
    yield found
    found.watcher.close()


def test_taken_is_what_has_happened(two: Two) -> None:
    """What has happened up to now can be taken at any moment, once, and is not said again."""
    assert two.take() == set()
    _drop(two.places[0])
    (two.places[0] / "z").write_bytes(b"")
    assert {"a", "z"} <= (two.take() or set())
    assert two.take() == set()
    two.desk.settle()
    assert two.said == []
    _drop(two.places[0])
    two.desk.until(lambda: two.said, "it is said")
    assert two.said[0][0] == "conf"


def test_what_is_not_taken_is_said_later(two: Two) -> None:
    """Who takes what has changed in one directory keeps nobody from hearing of the other."""
    (two.places[1] / "m").write_bytes(b"")
    _drop(two.places[0])
    assert "a" in (two.take() or set())
    assert two.said == []  # not in the middle of what the caller does
    two.desk.until(lambda: two.said, "it is said")
    assert two.said == [("messages", {"m"})]


def test_taken_while_it_is_said(two: Two) -> None:
    """What a message leads to may take the changes of the other directory, later ones too: said is only the rest."""
    taken: list[Names] = []

    def take(name: str) -> None:
        if name == "messages":
            (two.places[0] / "late").write_bytes(b"")
            taken.append(two.take())

    two.on_said = take
    (two.places[1] / "m").write_bytes(b"")
    (two.places[0] / "early").write_bytes(b"")
    two.desk.until(lambda: two.said, "it is said")
    two.desk.settle()
    assert two.said == [("messages", {"m"})]
    assert taken == [{"early", "late"}]


@pytest.mark.parametrize("first", [0, 1])
def test_the_order_between_directories(two: Two, first: int) -> None:
    """The directory in which something happened first is told of first."""
    for which in (first, 1 - first, first):
        (two.places[which] / "x").write_bytes(b"1")
    two.desk.until(lambda: len(two.said) == 2, "both are said")
    assert [name for name, _ in two.said] == [two.places[first].name, two.places[1 - first].name]


def test_taken_after_its_end(two: Two) -> None:
    """Of a directory that is gone, or was replaced and is not watched yet, nobody knows what has changed."""
    assert two.watcher.is_told(str(two.places[0]))
    (two.places[0] / "a").write_bytes(b"")
    assert two.take() == {"a"}
    shutil.rmtree(two.places[0])
    assert two.take() is None
    two.places[0].mkdir()
    two.desk.settle()
    assert not two.watcher.is_told(str(two.places[0]))
    assert two.take() is None
    two.watcher.arm(str(two.places[0]))
    _drop(two.places[0])
    assert "a" in (two.take() or set())


def test_anything_that_was_said_is_not_made_less(two: Two) -> None:
    """That anything may have changed stays so though more names are said before it is passed on."""
    two.places[0].chmod(0o700)
    _drop(two.places[0])
    assert two.take() is None
    _drop(two.places[0])
    assert two.take() is not None


def test_overflow_keeps_what_was_said(two: Two) -> None:
    """When events were lost anything may have changed, in every directory, also where names were said before."""
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if most > 50_000:
        pytest.skip("the queue is very long here")
    (two.places[1] / "m").write_bytes(b"")
    here = os.open(two.places[0], os.O_RDONLY)
    _drop(two.places[0])
    names = ["a", "b"]
    for number in range(most // 2 + 100):
        os.rename(names[number % 2], names[1 - number % 2], src_dir_fd=here, dst_dir_fd=here)
    os.close(here)
    assert two.take() is None
    two.desk.until(lambda: two.said, "it is said")
    two.desk.settle()
    assert two.said == [("messages", None)]
    _drop(two.places[0])
    assert "a" in (two.take() or set())


def test_where_not_everything_is_told(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel may keep something to itself, or there is no inotify, anything may have changed: it is said."""
    monkeypatch.setattr("ncolony.system.mounts.tells_of_changes", lambda directory: False)
    watch = Two(desk, tmp_path)
    assert not watch.watcher.is_told(str(watch.places[0]))
    _drop(watch.places[0])
    assert watch.take() is None
    desk.until(lambda: watch.said, "it is said")
    watch.watcher.close()
    assert watch.take() is None
    monkeypatch.setenv("NCOLONY_WITHOUT", "inotify")
    monkeypatch.setattr("ncolony.system.mounts.tells_of_changes", lambda directory: True)
    without = Watcher(desk.reactor, lambda directory, names: None)
    without.arm(str(tmp_path))
    assert without.take(str(tmp_path)) is None
    assert not without.is_told(str(tmp_path))


def test_nothing_is_said_after_the_end(two: Two) -> None:
    """A watcher that was closed while something was still to be said harms nobody."""
    (two.places[1] / "m").write_bytes(b"")
    two.take()
    two.watcher.close()
    two.desk.settle()
    assert two.said in ([], [("messages", {"m"})])
