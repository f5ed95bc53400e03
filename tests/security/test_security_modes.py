"""Who may read and write what a colony keeps on disk: the table of docs/security.md is what is there.

`test_the_table_is_what_is_there` (the table, umask 022 and 0), `test_a_strict_umask_holds` (umask 077),
`test_nobody_writes` and `test_what_others_may_read` (what a user of the machine can do with it), and
`test_directories_that_are_made` (config, messages, pid and log directories made by us).
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest
from people import MALLORY, NOBODY, needs_root, run_as, tree

from colony import SLEEP, Colony

DOCS = Path(__file__).resolve().parents[2] / "docs" / "security.md"
# What is there at special times only.
RARE = {"events.old", "ending", "shutdown.lock"}
# What other programs make; their own tests look at it.
OF_OTHERS = {"notify-to", "notify-to/RECEIVER.json", "notify-to/RECEIVER.json.lock", "jobs", "jobs/.lock", "jobs/NAME"}
pytestmark = needs_root


def table() -> dict[str, tuple[str, int | None]]:
    """What docs/security.md says: path below the state directory -> owner and mode (None: as it came)."""
    found = {}
    section = DOCS.read_text().partition("(files)=\n## ")[2].partition("\n## ")[0]
    for line in section.splitlines():
        if cells := re.match(r"\| `([^`]+)` \| ([^|]+) \| ([^|]+) \|", line):
            path, owner, mode = (cell.strip() for cell in cells.groups())
            found[path.rstrip("/") or "."] = (owner, int(mode, 8) if mode.isdigit() else None)
    return found


def in_table(path: Path) -> str:
    """How the table names a path below the state directory."""
    parts = list(path.parts)
    if parts[:1] in (["status"], ["history"], ["previous"], ["forwarded"]) and len(parts) == 2:
        return f"{parts[0]}/NAME"
    if parts[:1] == ["logs"] and len(parts) >= 2:
        parts[1] = "NAME"
        if len(parts) == 4:  # standard error has the same files
            del parts[2]
    if parts[:1] in (["fifo"], ["config"], ["instances"], ["notify"]) and len(parts) == 2:
        return f"{parts[0]}/INSTANCE"
    if parts[:1] in (["answers"], ["rejected"]) and len(parts) == 2:
        return f"{parts[0]}/MESSAGE" + (".reason" if parts[1].endswith(".reason") else "")
    return re.sub(r"[0-9]{20}", "OFFSET", "/".join(parts)) or "."


def start_with_umask(colony: Colony, umask: int, *options: str) -> None:
    colony.logs = colony.state / "logs"
    before = os.umask(umask)
    try:
        colony.start(*options)
    finally:
        os.umask(before)


def use_everything(colony: Colony) -> None:
    """Have every kind of file made."""
    shell = ["/bin/sh", "-c"]
    colony.put("large", {"args": [SLEEP, "100000"], "uid": NOBODY, "mycorp.text": "x" * 200_000})
    colony.put("many", {"args": [SLEEP, "100000"], "instances": 2})
    colony.put("dies", {"args": [*shell, "echo secret; exit 1"], "max_restart_delay": 0.1, "min_restart_delay": 0.1})
    script = "echo x >&2; exec sleep 100000"
    log = {"stderr": True, "stdout": str(colony.root / "own"), "compress": True}
    colony.put("split", {"args": [*shell, script], "log": log})
    script = "seq 3000; printf tail; exec sleep 100000"
    colony.put("loud", {"args": [*shell, script], "uid": NOBODY, "log": {"max_bytes": 4096}, "cwd": "/"})
    colony.put("trial", {"args": [SLEEP, "100000"]})
    colony.wait_until_running("trial")
    colony.put("trial", {"args": [SLEEP, "100001"], "threshold": 1000, "rollback_if_not_ready": 1000})
    for name, ready in (("tells", {"notify": True}), ("writes", {"fd": 3})):
        colony.put(name, {"args": [SLEEP, "100000"], "uid": NOBODY, "ready": ready})
        colony.wait_for(lambda name=name: (colony.status(name) or {}).get("pid"), f"{name} is there")  # type: ignore[misc]
    for name in ("large", "many:0", "many:1", "loud", "split"):
        colony.wait_until_running(name)
    colony.send({"type": "RESTART", "name": "many"})
    colony.send({"type": "RESTART", "name": "loud"})
    odd = colony.post(b"nonsense")
    # In the way that a user's umask would have it.
    colony.wait_for(lambda: (colony.state / "rejected" / odd).exists(), "nonsense is set aside")
    colony.wait_for(lambda: list((colony.logs / "loud").glob("*.log")), "a log is rotated")
    colony.wait_for(lambda: (colony.logs / "loud" / "cuts").exists(), "a cut is noted")
    colony.wait_for(lambda: (colony.logs / "split" / "stderr" / "current").exists(), "an error is kept")
    colony.wait_for(lambda: (colony.state / "history" / "dies").exists(), "an end is recorded")
    colony.wait_for(lambda: (colony.state / "applied").exists(), "what is applied is noted")


@pytest.mark.parametrize("umask", [0o022, 0], ids=oct)
def test_the_table_is_what_is_there(open_colony: Colony, umask: int) -> None:
    """Every file and directory has the owner and the mode of the table, and every row of the table was seen."""
    said = table()
    start_with_umask(open_colony, umask, "--pid", str(open_colony.root / "pids"))
    use_everything(open_colony)
    seen = set()
    for path in tree(open_colony.state):
        if re.fullmatch(r"\.[0-9]+-.*\.new", path.name):
            continue  # about to be renamed
        try:
            found = path.lstat()
        except FileNotFoundError:
            continue
        name = in_table(path.relative_to(open_colony.state))
        assert name in said, f"{path} is not in the table"
        owner, mode = said[name]
        seen.add(name)
        assert found.st_uid == 0 if owner == "the supervisor" else found.st_uid in (0, NOBODY), path
        if mode is not None:
            assert oct(stat.S_IMODE(found.st_mode)) == oct(mode), path
        assert not found.st_mode & 0o022 or stat.S_ISLNK(found.st_mode), path
    assert said.keys() - RARE - OF_OTHERS == seen


def test_a_strict_umask_holds(open_colony: Colony) -> None:
    """With a umask of 077 what the supervisor makes is for its user alone, and a process still reads its own file."""
    start_with_umask(open_colony, 0o077)
    script = 'wc -c <"$NCOLONY_CONFIG_FILE"; exec sleep 100000'
    open_colony.put("web", {"args": ["/bin/sh", "-c", script], "uid": NOBODY, "umask": "022", "a.b": "y" * 200_000})
    (size,) = open_colony.wait_for(lambda: open_colony.lines("web"), "the process has looked at its file")
    assert int(size) == (open_colony.config / "web").stat().st_size
    open_colony.wait_until_running("web")
    for name in ("status", "answers", "history", "logs", "instances", "rejected"):
        assert stat.S_IMODE((open_colony.state / name).stat().st_mode) == 0o700, name
    assert stat.S_IMODE((open_colony.state / "status" / "web").stat().st_mode) == 0o600


@pytest.mark.parametrize("umask", [0o022, 0], ids=oct)
def test_nobody_writes(open_colony: Colony, umask: int) -> None:
    """Another user can neither write, nor create, nor connect to anything of a colony, whatever its umask."""
    start_with_umask(open_colony, umask, "--pid", str(open_colony.root / "pids"))
    open_colony.put("web", {"args": ["/bin/sh", "-c", "echo x; exec sleep 100000"]})
    open_colony.wait_until_running("web")
    open_colony.wait_for(lambda: open_colony.lines("web"), "something is logged")
    script = """
import socket, stat
for root in sys.argv[1:]:
    for directory, _, names in os.walk(root):
        for path in (directory, *(f"{directory}/{name}" for name in names)):
            if os.access(path, os.W_OK):
                print(path)
"""
    done = run_as(MALLORY, script, open_colony.state, open_colony.root / "pids", open_colony.config)
    assert (done.returncode, done.stdout) == (0, ""), done


def test_what_others_may_read(open_colony: Colony) -> None:
    """Another user sees states and answers; output, histories, rejected messages and identities it does not."""
    start_with_umask(open_colony, 0o022)
    use_everything(open_colony)
    identities = os.listdir(open_colony.state / "fifo")
    script = """
for directory, _, names in os.walk(sys.argv[1]):
    print(directory)
    for name in names:
        try:
            print(f"{directory}/{name}", open(f"{directory}/{name}", "rb").read())
        except OSError:
            pass
"""
    done = run_as(MALLORY, script, open_colony.state)
    assert done.returncode == 0
    assert f"{open_colony.state}/status/large b'{{" in done.stdout
    for secret in ("secret", "nonsense", "xxxx", *identities):
        assert secret not in done.stdout


def test_directories_that_are_made(open_colony: Colony) -> None:
    """With a umask of 0, directories that were missing are not for others to write, nor those above them."""
    above = open_colony.root / "above"
    open_colony.config, open_colony.messages = above / "conf", above / "messages"
    open_colony.state, open_colony.logs = above / "run" / "state", above / "log" / "logs"
    before = os.umask(0)
    try:
        open_colony.start("--pid", str(above / "run" / "pids"))
    finally:
        os.umask(before)
    for path in tree(above):
        assert not path.lstat().st_mode & 0o022, path
