"""Whether the kernel tells of every change in a directory, by what is mounted where."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ncolony
from ncolony.system.mounts import _tells, tells_of_changes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/mountinfo is Linux's")
SOURCE = str(Path(ncolony.__file__).parent.parent)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
ROOT = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw"


def told(here: str | bytes, *mounts: str | bytes) -> bool:
    """What a table of these lines means for a directory."""
    lines = [one if isinstance(one, bytes) else one.encode() for one in mounts]
    return _tells(io.BytesIO(b"".join(line + b"\n" for line in lines)), os.fsencode(here))


def at(point: str, kind: str, root: str = "/") -> str:
    """A line of the table."""
    return f"40 22 0:35 {root} {point} rw,nosuid shared:7 master:1 - {kind} some/where rw,size=1k"


@pytest.mark.parametrize(
    ("here", "mounts", "expected"),
    [
        ("/conf", [ROOT], True),
        ("/conf", [ROOT, at("/conf", "tmpfs")], True),
        ("/conf", [ROOT, at("/conf", "overlay"), at("/proc", "proc")], True),
        # Of files on other machines, and of kinds that nobody here has heard of, who knows.
        *(
            ("/conf", [ROOT, at("/conf", kind)], False)
            for kind in ("nfs4", "cifs", "9p", "fuse.sshfs", "virtiofs", "new")
        ),
        ("/srv/a/conf", [ROOT, at("/srv", "nfs4")], False),
        ("/srv/a/conf", [ROOT, at("/srv", "nfs4"), at("/srv/a", "ext4")], True),
        ("/srv/a/conf", [ROOT, at("/srv/a", "ext4"), at("/srv", "nfs4")], True),
        ("/srv/a/conf", [ROOT, at("/srv", "ext4"), at("/srv/a", "nfs4")], False),
        # Names that only begin alike.
        ("/srv/conf", [ROOT, at("/srv/con", "nfs4"), at("/srv/conf2", "nfs4"), at("/srv/conf.d/x", "nfs4")], True),
        ("/srv/conf", [at("/", "nfs4"), at("/srv/con", "ext4")], False),
        # What is mounted later in the same place lies above.
        ("/conf", [ROOT, at("/conf", "nfs4"), at("/conf", "tmpfs")], True),
        ("/conf", [ROOT, at("/conf", "tmpfs"), at("/conf", "nfs4")], False),
        # A file that is a mount of its own, as containers have them; of whatever kind.
        ("/conf", [ROOT, at("/conf/web", "ext4", root="/home/user/web")], False),
        ("/conf", [ROOT, at("/conf/a/b", "tmpfs")], False),
        ("/", [ROOT], True),
        ("/", [ROOT, at("/proc", "proc")], False),
        # A bind mount has the kind of what it shows.
        ("/conf", [ROOT, at("/conf", "ext4", root="/home/user/conf")], True),
        ("/conf", [ROOT, at("/conf", "nfs4", root="/home/user/conf")], False),
        # Blanks, tabs, newlines, backslashes and number signs are written in octal; others as they are.
        ("/a b", [at("/", "nfs4"), at("/a\\040b", "ext4")], True),
        ("/a b", [ROOT, at("/a\\040b/c", "ext4")], False),
        ("/a\tb\nc", [at("/", "nfs4"), at("/a\\011b\\012c", "ext4")], True),
        ("/a\\040b", [at("/", "nfs4"), at("/a\\134040b", "ext4")], True),
        ("/a\\nb#c", [at("/", "nfs4"), at("/a\\134nb\\043c", "ext4")], True),
        ("/Füße ☂", [at("/", "nfs4"), at("/Füße\\040☂", "ext4")], True),
        ("/a\rb", [at("/", "nfs4"), at("/a\rb", "ext4")], True),
        # Without the optional fields, and with many.
        ("/conf", ["22 1 254:0 / / rw - ext4 /dev/vda rw"], True),
        ("/conf", ["22 1 254:0 / / rw a:1 b:2 c:3 unbindable - ext4 /dev/vda rw"], True),
        ("/conf", [], False),
    ],
)
def test_table(here: str, mounts: list[str], expected: bool) -> None:
    """The mount that a directory lies in decides, and what is mounted inside forbids."""
    assert told(here, *mounts) is expected


def test_any_bytes() -> None:
    """Names need not be UTF-8."""
    assert told(b"/\xff \xfe", at("/", "nfs4"), b"40 22 0:35 / /\xff\\040\xfe rw - xfs x rw")


def test_a_table_of_another_kind() -> None:
    """What is no such table is none that anybody may rely on."""
    with pytest.raises(IndexError):
        told("/conf", "garbage")


def test_a_directory_of_ours(tmp_path: Path) -> None:
    """It is as the kernel's own table says, also by way of a link, and for one that is not there (yet)."""
    table = Path("/proc/self/mountinfo").read_bytes().splitlines(keepends=True)
    expected = _tells(table, os.fsencode(os.path.realpath(tmp_path)))
    (tmp_path / "link").symlink_to(tmp_path)
    assert [tells_of_changes(str(tmp_path / one)) for one in (".", "link", "missing")] == [expected] * 3
    assert tells_of_changes("/proc") is False


@as_root
def test_real_mounts(tmp_path: Path) -> None:
    """A tmpfs is told of; one with a file that is a mount of its own is not, until that is gone again."""
    place = tmp_path / "a b"
    place.mkdir()
    script = (
        f"import sys, subprocess; sys.path.insert(0, {SOURCE!r})\n"
        "from ncolony.system.mounts import tells_of_changes\n"
        f"place = {str(place)!r}\n"
        "def run(*command): subprocess.run(command, check=True)\n"
        "run('mount', '-t', 'tmpfs', 'none', place)\n"
        "print(tells_of_changes(place))\n"
        "open(place + '/web', 'w').close()\n"
        "open(place + '/other', 'w').close()\n"
        "run('mount', '--bind', place + '/other', place + '/web')\n"
        "print(tells_of_changes(place))\n"
        "run('umount', place + '/web')\n"
        "print(tells_of_changes(place))\n"
        "run('mount', '-t', 'proc', 'none', place)\n"
        "print(tells_of_changes(place))\n"
    )
    command = ["unshare", "-m", sys.executable, "-I", "-S", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.stdout == "True\nFalse\nTrue\nFalse\n", done.stderr
