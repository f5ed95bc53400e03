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
