"""What was imported runs: a supervisor on the files that `ncolony import` wrote."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from colony import MARK, Colony, environment_of


def bring(colony: Colony, *sources: Path) -> None:
    """Import the sources into the colony's config directory, and mark the processes as this test's."""
    done = subprocess.run(
        [sys.executable, "-m", "ncolony", "import", *map(str, sources), str(colony.config)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for path in list(colony.config.iterdir()):
        config: dict[str, Any] = json.loads(path.read_bytes())
        config["env"] = {**config.get("env", {}), MARK: colony.mark}
        path.write_text(json.dumps(config))


def test_supervisord_programs_run(colony: Colony) -> None:
    """The programs of a supervisord.conf run with their arguments, variables and directory, and stop as they should."""
    payload = " ".join(f'"{word}"' for word in colony.payload("web", "serve"))
    (colony.root / "supervisord.conf").write_text(
        f"""
[supervisord]
environment=SHOP="main street"

[program:web]
command={payload} --name=%(program_name)s ; the web server
directory={colony.notes_directory}
environment=RATE="50%%"
stopsignal=TERM
stopwaitsecs=20

[program:once]
command=/bin/sh -c 'echo once; exit 3'
autorestart=false
startsecs=0

[program:idle]
command=/bin/sleep 1000
autostart=false
"""
    )
    bring(colony, colony.root / "supervisord.conf")
    colony.start()
    [note] = colony.wait_for_notes("web")
    pid = colony.wait_until_running("web")
    assert note == f"up {pid}"
    env = environment_of(pid)
    assert (env["SHOP"], env["RATE"]) == ("main street", "50%")
    assert Path(f"/proc/{pid}/cwd").resolve() == colony.notes_directory.resolve()
    colony.wait_for_status("once", state="EXITED")
    assert colony.status("idle")["enabled"] is False  # type: ignore[index]
    assert colony.output("once") == b"once\n"


def test_procfile_runs(colony: Colony) -> None:
    """The lines of a Procfile run in its directory, each with its port."""
    directory = colony.root / "app"
    directory.mkdir()
    (directory / "Procfile").write_text('web: echo "web on $PORT"; exec sleep 1000\nclock: exec sleep 1001\n')
    bring(colony, directory / "Procfile")
    colony.start()
    web, clock = colony.wait_until_running("web"), colony.wait_until_running("clock")
    assert (environment_of(web)["PORT"], environment_of(clock)["PORT"]) == ("5000", "5100")
    colony.wait_for(lambda: colony.output("web") == b"web on 5000\n", "web has said its port")
    assert Path(f"/proc/{web}/cwd").resolve() == directory.resolve()


def test_pm2_apps_run(colony: Colony) -> None:
    """The apps of an ecosystem file run with interpreter, arguments and variables."""
    (colony.root / "app.py").write_text(
        "import os, sys, time\nprint(sys.argv[1:], os.environ['A'])\ntime.sleep(1000)\n"
    )
    (colony.root / "ecosystem.config.json").write_text(
        json.dumps(
            {
                "apps": [
                    {
                        "name": "app",
                        "script": "app.py",
                        "interpreter": sys.executable,
                        "args": "a 'b c'",
                        "env": {"A": 1},
                    }
                ]
            }
        )
    )
    bring(colony, colony.root / "ecosystem.config.json")
    colony.start()
    colony.wait_until_running("app")
    colony.wait_for(lambda: colony.output("app") == b"['a', 'b c'] 1\n", "the app has said its arguments")


def test_crontab_jobs_run(colony: Colony) -> None:
    """A job of a crontab waits for its time, and when it is run it has its standard input and its directory."""
    (colony.root / "crontab").write_text(f"HOME={colony.root}\n0 0 29 2 * cat > said%hello%\n")
    bring(colony, colony.root / "crontab")
    colony.start()
    colony.wait_for_status("cat", state="STOPPED", job=True)
    said = colony.root / "said"
    assert not said.exists()
    colony.send({"type": "START", "name": "cat"})
    colony.wait_for(lambda: said.exists() and said.read_text() == "hello\n\n", "the job has run")
    colony.wait_for_status("cat", state="EXITED")


def test_systemd_units_run_in_order(colony: Colony) -> None:
    """Units that are imported together start in their order: the oneshot first, then who waits for its end."""
    (colony.root / "prepare.service").write_text(
        f"[Unit]\nBefore=serve.service\n[Service]\nType=oneshot\nExecStart=/bin/mkdir {colony.root}/data\n"
    )
    (colony.root / "serve.service").write_text(
        f"""
[Unit]
After=prepare.service
Requires=prepare.service
[Service]
WorkingDirectory={colony.root}
ExecStart=/bin/sh -c 'test -d data && echo ready; exec sleep 1000'
"""
    )
    bring(colony, colony.root / "serve.service", colony.root / "prepare.service")
    colony.start()
    colony.wait_until_running("serve")
    colony.wait_for(lambda: colony.output("serve") == b"ready\n", "the directory was there")
    colony.wait_for_status("prepare", state="EXITED")


def test_systemd_unit_runs(colony: Colony) -> None:
    """A unit runs with its arguments, variables and umask, after what must come before."""
    (colony.root / "unit.service").write_text(
        f"""
[Service]
UMask=0027
WorkingDirectory={colony.root}
Environment="GREETING=hello world"
ExecStartPre=/bin/mkdir -p {colony.root}/made
ExecStart=/bin/sh -c 'umask; ls -d made; echo "$$GREETING"; exec sleep 1000'
Restart=always
"""
    )
    bring(colony, colony.root / "unit.service")
    colony.start()
    colony.wait_until_running("unit")
    colony.wait_for(lambda: colony.output("unit").endswith(b"hello world\n"), "the unit has said everything")
    assert colony.output("unit").splitlines() == [b"0027", b"made", b"hello world"]
