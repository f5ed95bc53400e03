"""What curl is told about a colony while its processes, its keeper and its supervisor die."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from itertools import groupby

from colony import Colony
from services.peers import Nginx, Redis, needs, path_of


class Health:
    """ncolony-health as a process of the colony, asked by curl."""

    def __init__(self, colony: Colony) -> None:
        self.colony = colony
        program = [sys.executable, "-m", "twisted", "--log-format=text", "ncolony-health"]
        places = ("--messages", str(colony.messages), "--config", str(colony.config), "--state", str(colony.state))
        colony.put("health", {"args": [*program, *places, "--listen", "127.0.0.1:0"], "env_inherit": ["PATH"]})
        self.address = ""

    def wait_for_address(self) -> None:
        """Wait until it has told where it listens."""

        def told() -> str | None:
            found = re.search(rb"127\.0\.0\.1:([1-9]\d*)", self.colony.output("health"))
            return found[0].decode() if found else None

        self.address = self.colony.wait_for(told, "ncolony-health tells its address")

    def get(self, page: str) -> tuple[int, str]:
        """The status and the text of a page; 0 when there was no answer."""
        url = f"http://{self.address}{page}"
        command = [path_of("curl"), "-sS", "--max-time", "20", "-w", "\n%{http_code}", url]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        text, _, code = done.stdout.rpartition("\n")
        return int(code), text

    def wait_for(self, page: str, code: int, *words: str, timeout: float = 60) -> str:
        """Wait until a page has this status, and these words in its text; the text."""

        def has() -> str | None:
            found, text = self.get(page)
            return text if found == code and all(word in text for word in words) else None

        return self.colony.wait_for(has, f"{page} is {code}, with {words}", timeout)

    def asking(self, page: str) -> subprocess.Popen[str]:
        """Ask for a page again and again, until the process gets a SIGTERM; it prints the statuses."""
        loop = 'trap "exit 0" TERM; while :; do "$@"; sleep 0.05; done'
        ask = [path_of("curl"), "-s", "-o", "/dev/null", "--max-time", "20", "-w", "%{http_code}\n"]
        command = ["/bin/sh", "-c", loop, "sh", *ask, f"http://{self.address}{page}"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def statuses(asking: subprocess.Popen[str]) -> list[int]:
    """End it; the statuses that it saw, without repetitions."""
    asking.send_signal(signal.SIGTERM)
    said, _ = asking.communicate(timeout=30)
    return [code for code, _ in groupby(map(int, said.split()))]


@needs("nginx", "redis-server", "redis-cli", "curl")
def test_curl_is_told_who_is_not_well(open_colony: Colony) -> None:
    """/livez and /readyz tell what dies and what comes back; a page about one process tells of that one alone."""
    colony = open_colony
    nginx, redis, health = Nginx(colony, "nginx"), Redis(colony, "redis"), Health(colony)
    delays = {"threshold": 3600, "min_restart_delay": 2, "max_restart_delay": 2}
    colony.put("nginx", nginx.config(ready={"http": nginx.url, "timeout": 60}, **delays))
    colony.put("redis", redis.config(ready={"exec": redis.answers(), "timeout": 60}, threshold=0.1))
    colony.start()
    health.wait_for_address()
    health.wait_for("/readyz", 200, "ok")
    assert health.get("/livez")[0] == 200
    live = health.asking("/livez")
    other = health.asking("/readyz/redis")

    os.kill(colony.wait_until_running("nginx"), signal.SIGKILL)
    health.wait_for("/readyz", 503, "nginx")
    assert health.get("/readyz?exclude=nginx")[0] == 200
    assert "redis" not in health.get("/readyz")[1]
    health.wait_for("/readyz", 200)

    keeper = colony.keeper_pid()
    assert keeper is not None
    os.kill(keeper, signal.SIGKILL)
    colony.wait_for(lambda: colony.keeper_pid() not in (None, keeper), "there is another keeper")
    health.wait_for("/readyz", 200)
    # Nobody who asks whether all of it is to be killed must ever have been told so.
    assert statuses(live) == [200]
    assert statuses(other) == [200]


@needs("nginx", "curl")
def test_curl_is_told_that_nobody_supervises(open_colony: Colony) -> None:
    """While the supervisor is dead neither page is 200; the next one makes both so again, and restarts nothing."""
    colony = open_colony
    nginx, health = Nginx(colony, "nginx"), Health(colony)
    colony.put("nginx", nginx.config(ready={"http": nginx.url, "timeout": 60}, threshold=0.1))
    colony.start()
    health.wait_for_address()
    health.wait_for("/readyz", 200)
    colony.kill()
    health.wait_for("/livez", 503, "ncolony/supervisor")
    health.wait_for("/readyz", 503, "ncolony/supervisor")
    assert nginx.get() == "ok"
    colony.start()
    health.wait_for("/livez", 200)
    health.wait_for("/readyz", 200)
    assert (colony.status("nginx") or {})["instance"] == 1
    assert (colony.status("health") or {})["instance"] == 1
