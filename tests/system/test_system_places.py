"""Where the state is: one rule for everybody who looks for it, and no trust in what others could have put there."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import ncolony
from ncolony.system.places import UnsafeState, make_private, messages_directory, state_directory

SOURCE = str(Path(ncolony.__file__).parent.parent)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def as_user(script: str, **env: str) -> str:
    """What a script prints as user 54321 with this environment and nothing else."""
    begin = (
        f"import os, sys; sys.path.insert(0, {SOURCE!r})\n"
        "from ncolony.system.places import UnsafeState, make_private, state_directory\n"
        "os.setgroups([]); os.setresgid(54321, 54321, 54321); os.setresuid(54321, 54321, 54321)\n"
    )
    command = [sys.executable, "-I", "-S", "-c", begin + script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout.rstrip("\n")


def test_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state directory that was given is the answer, made absolute."""
    monkeypatch.chdir(tmp_path)
    assert state_directory("c", "m", "s") == str(tmp_path / "s")
    assert state_directory("c", "m", tmp_path / "x" / ".." / "y") == str(tmp_path / "y")


def test_messages_of_a_colony_that_was_given_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are in the state directory that was given, else beside the state directories, one for each real config."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "link").symlink_to("conf")
    monkeypatch.chdir(tmp_path)
    found = Path(messages_directory("conf"))
    assert found == Path(messages_directory(tmp_path / "link"))
    assert found != Path(messages_directory("other"))
    assert found.parent == Path(state_directory("conf", found)).parent
    assert messages_directory("conf", "s") == str(tmp_path / "s" / "messages")


@as_root
def test_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For root it is under /run/ncolony, whatever the environment says, and nothing is created."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    found = Path(state_directory(tmp_path / "c", tmp_path / "m"))
    assert found.parent == Path("/run/ncolony")
    assert not found.exists()
    assert list(tmp_path.iterdir()) == []


@as_root
@pytest.mark.parametrize(
    ("env", "parent"),
    [
        ({"XDG_RUNTIME_DIR": "/run/user/5"}, "/run/user/5/ncolony"),
        ({"XDG_RUNTIME_DIR": "/run/user/5", "TMPDIR": "/var/tmp"}, "/run/user/5/ncolony"),
        ({"XDG_RUNTIME_DIR": "relative", "TMPDIR": "/var/tmp"}, "/var/tmp/ncolony-54321"),
        ({"XDG_RUNTIME_DIR": ""}, "/tmp/ncolony-54321"),
        ({"TMPDIR": ""}, "/tmp/ncolony-54321"),
        ({}, "/tmp/ncolony-54321"),
    ],
)
def test_other_users(env: dict[str, str], parent: str) -> None:
    """For others it is under $XDG_RUNTIME_DIR if absolute, else under $TMPDIR or /tmp with the user's number."""
    assert os.path.dirname(as_user("print(state_directory('/c', '/m'))", **env)) == parent


def test_same_directories_same_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the two directories are written down, links and relative paths included, the state is the same."""
    for name in ("c", "m"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("c")
    monkeypatch.chdir(tmp_path / "c")
    ways: list[tuple[str | Path, str | Path]] = [
        (tmp_path / "c", tmp_path / "m"),
        (f"{tmp_path}/c/", f"{tmp_path}/c/../m"),
        (".", "../m"),
    ]
    found = {state_directory(config, messages) for config, messages in [*ways, (tmp_path / "link", "../m")]}
    assert len(found) == 1
    others = {state_directory(*pair) for pair in (("../m", "."), (".", "."), ("../m/x", "../m"), ("..", "m/c"))}
    assert len(others | found) == 5


def test_the_pair_is_not_run_together() -> None:
    """Two pairs of directories whose names put together are equal have different states."""
    assert state_directory("/a", "/b/c") != state_directory("/a/b", "/c")


def test_make_private(tmp_path: Path) -> None:
    """The directory is made, with those above it, and is ours alone to write whatever the umask; twice is fine."""
    before = os.umask(0)
    try:
        make_private(str(tmp_path / "ncolony" / "x"))
        make_private(str(tmp_path / "ncolony" / "x"))
    finally:
        os.umask(before)
    found = (tmp_path / "ncolony" / "x").stat()
    assert stat.S_IMODE(found.st_mode) == 0o755
    assert found.st_uid == os.geteuid()


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757, 0o1777])
def test_others_may_write(tmp_path: Path, mode: int) -> None:
    """A directory that others may write, sticky or not, is refused."""
    (tmp_path / "x").mkdir()
    (tmp_path / "x").chmod(mode)
    with pytest.raises(UnsafeState, match=rf"{tmp_path}/x may be written by others \(mode {mode:o}\)"):
        make_private(str(tmp_path / "x"))


def test_a_file_in_the_way(tmp_path: Path) -> None:
    """A file of that name is refused."""
    (tmp_path / "x").write_text("")
    with pytest.raises(UnsafeState, match="is not a directory"):
        make_private(str(tmp_path / "x"))


@as_root
def test_somebody_elses(tmp_path: Path) -> None:
    """A directory of another user, or a link to one, is refused."""
    (tmp_path / "x").mkdir()
    os.chown(tmp_path / "x", 54321, 54321)
    with pytest.raises(UnsafeState, match="belongs to user 54321, not to 0"):
        make_private(str(tmp_path / "x"))
    (tmp_path / "link").symlink_to("x")
    with pytest.raises(UnsafeState, match="belongs to user 54321"):
        make_private(str(tmp_path / "link"))


@as_root
def test_a_trap_in_a_shared_directory() -> None:
    """In a directory where anybody may create names, a parent that somebody else prepared is refused."""
    with tempfile.TemporaryDirectory() as shared:
        os.chmod(shared, 0o1777)
        trap = Path(shared, "ncolony-54321")
        trap.mkdir()
        os.chown(trap, 54323, 54323)
        trap.chmod(0o777)
        script = (
            "try: make_private(state_directory('/c', '/m'))\n"
            "except UnsafeState as why: print('refused', why)\n"
            "else: print('used')\n"
        )
        assert as_user(script, TMPDIR=shared).startswith("refused")
