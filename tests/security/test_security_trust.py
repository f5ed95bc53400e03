"""What a supervisor that runs as root believes, and what it does not: config files, messages, directories.

Config files: `test_a_file_that_another_added_to_a_sticky_directory`, `test_links_into_places_of_others`,
`test_a_hard_link_in_a_sticky_directory`, `test_a_directory_that_anybody_could_exchange`,
`test_what_a_group_or_another_owner_may_write`, `test_an_access_control_list_is_a_group`. The command line agrees:
`test_ctl_check_says_the_same`. Places that root writes: `test_root_writes_nowhere_that_anybody_could_exchange`.
Messages: `test_messages_from_another_user`, `test_a_link_among_messages_is_not_followed`,
`test_a_message_can_take_no_more_power`.
"""

from __future__ import annotations

import errno
import json
import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from people import ALICE, MALLORY, needs_root, run_as

from colony import SLEEP, Colony

pytestmark = needs_root
BASE = {"args": [SLEEP, "100000"]}


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory like /tmp that every user reaches."""
    with tempfile.TemporaryDirectory(prefix="shared-") as place:
        path = Path(place)
        path.chmod(0o1777)
        yield path


def give(path: Path, uid: int) -> Path:
    os.lchown(path, uid, uid)
    return path


def is_refused(colony: Colony, name: str, *words: str) -> None:
    problem = colony.wait_for_problem(name)
    for word in words:
        assert word in problem
    status = colony.status(name)
    assert status and status["instance"] == 0


def test_a_file_that_another_added_to_a_sticky_directory(open_colony: Colony) -> None:
    """Where anybody may add config files, those of root and of the directory's owner count, and no others."""
    open_colony.config.chmod(0o1777)
    give(open_colony.config, ALICE)
    open_colony.put("roots", BASE)
    open_colony.put("alices", BASE)
    give(open_colony.config / "alices", ALICE)
    open_colony.start()
    script = "open(sys.argv[1], 'w').write(sys.argv[2])"
    assert run_as(MALLORY, script, open_colony.config / "evil", json.dumps(BASE)).returncode == 0
    is_refused(open_colony, "evil", f"belongs to user {MALLORY}", "anybody may add files", "--no-strict-modes")
    open_colony.wait_until_running("roots")
    open_colony.wait_until_running("alices")


def test_links_into_places_of_others(open_colony: Colony, shared: Path) -> None:
    """A link counts as little as what it leads to: a file that anybody may write, or could have put there."""
    (shared / "open").mkdir()
    (shared / "open").chmod(0o777)
    for path in (shared / "added", shared / "open" / "exchanged", shared / "written", shared / "fine"):
        path.write_text(json.dumps(BASE))
    give(shared / "added", MALLORY)
    (shared / "written").chmod(0o666)
    for name in ("added", "written", "fine"):
        (open_colony.config / name).symlink_to(shared / name)
    (open_colony.config / "exchanged").symlink_to(shared / "open" / "exchanged")
    open_colony.start()
    is_refused(open_colony, "added", f"belongs to user {MALLORY}")
    is_refused(open_colony, "written", "anybody may write")
    is_refused(open_colony, "exchanged", f"anybody may write {shared / 'open'}")
    open_colony.wait_until_running("fine")


def test_a_hard_link_in_a_sticky_directory(open_colony: Colony) -> None:
    """Another name for a file of root's, which anybody can make in a sticky directory, does not run it."""
    (open_colony.root / "elsewhere").write_text(json.dumps(BASE))
    open_colony.config.chmod(0o1777)
    os.link(open_colony.root / "elsewhere", open_colony.config / "web")
    open_colony.start()
    is_refused(open_colony, "web", "has several names")


def test_a_directory_that_anybody_could_exchange(open_colony: Colony, shared: Path) -> None:
    """A config directory below one that anybody may write can be another tomorrow: its files are problems."""
    above = shared / "above"
    above.mkdir()
    above.chmod(0o777)
    open_colony.config = above / "conf"
    open_colony.config.mkdir()
    open_colony.put("web", BASE)
    open_colony.start("--frequency", "0.2")
    is_refused(open_colony, "web", f"anybody may write {above}")
    above.chmod(0o1777)
    open_colony.wait_until_running("web")


def test_what_a_group_or_another_owner_may_write(open_colony: Colony) -> None:
    """Who owns the directory or a file, or is in their group, was chosen by root: that is believed."""
    open_colony.put("group", BASE)
    (open_colony.config / "group").chmod(0o664)
    os.chown(open_colony.config / "group", 0, ALICE)
    open_colony.put("owner", BASE)
    give(open_colony.config / "owner", ALICE)
    open_colony.config.chmod(0o775)
    give(open_colony.config, ALICE)
    open_colony.start()
    open_colony.wait_until_running("group")
    open_colony.wait_until_running("owner")


def test_an_access_control_list_is_a_group(open_colony: Colony) -> None:
    """A user whom an access control list lets write a file was chosen by its owner, as a group is."""
    open_colony.put("web", BASE)
    # acl(5) as in linux/posix_acl_xattr.h: version 2; owner rw, user ALICE rw, group r, mask rw, others r.
    anyone = 0xFFFFFFFF
    entries = [(1, 6, anyone), (2, 6, ALICE), (4, 4, anyone), (16, 6, anyone), (32, 4, anyone)]
    listed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(open_colony.config / "web", "system.posix_acl_access", listed)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        pytest.skip("this filesystem has no access control lists")
    assert run_as(ALICE, "open(sys.argv[1], 'r+b')", open_colony.config / "web").returncode == 0
    open_colony.start()
    open_colony.wait_until_running("web")


def test_ctl_check_says_the_same(open_colony: Colony) -> None:
    """`ctl check` as root finds the problems that the supervisor would."""
    open_colony.config.chmod(0o1777)
    open_colony.put("evil", BASE)
    give(open_colony.config / "evil", MALLORY)
    assert f"belongs to user {MALLORY}" in open_colony.ctl("check", check=False)
    assert "belongs" not in open_colony.ctl("check", "--no-strict-modes", check=False)


@pytest.mark.parametrize("what", ["state", "logs", "pids"])
def test_root_writes_nowhere_that_anybody_could_exchange(shared: Path, open_colony: Colony, what: str) -> None:
    """A state, log or PID directory that anybody could exchange is refused; --no-strict-modes allows it."""
    above = shared / "above"
    above.mkdir()
    above.chmod(0o777)
    options = []
    if what == "pids":
        options = ["--pid", str(above / "pids")]
    else:
        setattr(open_colony, what, above / what)
    open_colony.launch(*options)
    assert open_colony.wait_for_exit() != 0
    said = (open_colony.root / "output").read_text()
    assert f"cannot start: anybody may write {above}" in said
    assert "--no-strict-modes" in said
    open_colony.start(*options, "--no-strict-modes")


def test_messages_from_another_user(open_colony: Colony) -> None:
    """Who may write into the messages directory may ask, whoever that is, and reads the answer."""
    open_colony.messages.chmod(0o1777)
    open_colony.put("web", BASE)
    open_colony.start()
    open_colony.wait_until_running("web")
    script = 'open(sys.argv[1], \'w\').write(\'{"type": "RESTART", "name": "web"}\')'
    assert run_as(ALICE, script, open_colony.messages / "please").returncode == 0
    open_colony.wait_until_running("web", instance=2)
    script = "print(open(sys.argv[1]).read())"
    assert '"done"' in run_as(ALICE, script, open_colony.wait_for(
        lambda: [p for p in [open_colony.state / "answers" / "please"] if b"done" in p.read_bytes()], "it is answered"
    )[0]).stdout  # fmt: skip


@pytest.mark.parametrize("target", ["private", "missing", "directory", "/dev/zero"])
def test_a_link_among_messages_is_not_followed(open_colony: Colony, target: str) -> None:
    """A link that another user puts among the messages tells nothing of what it leads to, not even that it exists."""
    private = open_colony.root / "private"
    private.write_text('{"type": "hunter2"}')
    private.chmod(0o600)
    (open_colony.root / "directory").mkdir()
    open_colony.messages.chmod(0o1777)
    open_colony.start()
    script = "os.symlink(sys.argv[1], sys.argv[2])"
    assert run_as(MALLORY, script, open_colony.root / target, open_colony.messages / "curious").returncode == 0
    answer = open_colony.wait_for_answer("curious")
    assert (answer["state"], answer["why"]) == ("failed", f"a symbolic link of user {MALLORY}")
    assert private.read_text() == '{"type": "hunter2"}'
    assert "hunter2" not in open_colony.log()
    # One of our own is followed, as ever.
    (open_colony.root / "scan").write_text('{"type": "SCAN"}')
    (open_colony.messages / "ours").symlink_to(open_colony.root / "scan")
    assert open_colony.wait_for_answer("ours")["state"] == "done"


def test_a_message_can_take_no_more_power(open_colony: Colony) -> None:
    """No message says what is run, as whom, or with which arguments: keys beyond its own have no effect."""
    open_colony.messages.chmod(0o1777)
    open_colony.put("web", {**BASE, "uid": ALICE})
    open_colony.start()
    pid = open_colony.wait_until_running("web")
    more = {"args": ["/bin/sh"], "uid": 0, "env": {"LD_PRELOAD": "/x"}, "pid": 1, "command": "x", "cwd": "/"}
    for kind in ({"type": "SIGNAL", "name": "web", "signal": "WINCH"}, {"type": "UPGRADE"}):
        assert open_colony.send({**kind, **more})["state"] == "done"
    assert open_colony.wait_until_running("web", instance=1) == pid
    assert open_colony.send({"type": "RESTART", "name": "web", **more})["state"] == "done"
    pid = open_colony.wait_until_running("web", instance=2)
    assert os.stat(f"/proc/{pid}").st_uid == ALICE
    assert Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:2] == [SLEEP.encode(), b"100000"]
    for name in ("../../etc/passwd", "/etc/passwd", "..", "1", "-1", "*"):
        assert open_colony.send({"type": "SIGNAL", "name": name, "signal": "KILL"})["state"] == "failed"


def test_an_unprivileged_sender_of_many_cannot_fill_the_state(open_colony: Colony) -> None:
    """Of messages that make no sense only the newest thousand are kept, whoever sends how many."""
    open_colony.start()
    name = open_colony.post(b"first")
    rejected = open_colony.state / "rejected"
    open_colony.wait_for(lambda: (rejected / name).exists(), "it is set aside")
    script = """
for number in range(1100):
    with open(f"{sys.argv[1]}/m{number}", "wb") as file:
        file.truncate(1 << 20)
"""
    open_colony.messages.chmod(0o1777)
    assert run_as(MALLORY, script, open_colony.messages).returncode == 0
    open_colony.wait_for(lambda: not os.listdir(open_colony.messages), "all are set aside", 60)
    kept = [one for one in os.listdir(rejected) if not one.endswith(".reason")]
    assert len(kept) == 1000
    assert name not in kept
    assert open_colony.send({"type": "SCAN"})["state"] == "done"
