"""What the page on hearts shows is more than text: every example on it is typed here as it stands."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from colony import Colony
from manager import Manager
from ncolony.model import config
from ncolony.system.places import messages_directory

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "hearts.md").read_text(encoding="utf-8")
BIN = str(Path(sys.executable).parent)


def blocks(language: str, about: str = "") -> list[str]:
    """The examples in a language, those that have a word in them."""
    found = re.findall(rf"(?ms)^```{language}\n(.*?)^```", PAGE)
    return [text for text in found if about in text]


def block(language: str, about: str) -> str:
    """The only such example."""
    [found] = blocks(language, about)
    return found


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """Somebody who listens to sd_notify."""
    found = Manager(tmp_path / "notify")
    yield found
    found.close()


def test_every_example_is_known_here() -> None:
    """No example on the page is left out by this file."""
    languages = re.findall(r"(?m)^```(\w+)$", PAGE)
    assert {language: languages.count(language) for language in set(languages)} == {
        "json": 2, "sh": 2, "python": 4, "console": 3, "yaml": 2, "docker": 1,
    }  # fmt: skip


def test_definitions_are_good() -> None:
    """Every config file on the page is one without a warning."""
    for text in blocks("json"):
        definition = config.define("x", text.encode())
        assert isinstance(definition, config.Definition), definition
        assert definition.warnings == ()


def wait_for_touches(colony: Colony, heart: Path) -> None:
    """Wait until a file is touched, and once more."""
    colony.wait_for(heart.exists, "it beats")
    before = heart.stat().st_mtime_ns
    colony.wait_for(lambda: heart.stat().st_mtime_ns != before, "it beats again")


def test_shell(colony: Colony) -> None:
    """The shell script touches the file of its process, as its config file asks for."""
    hearts, script = colony.root / "hearts", colony.root / "worker.sh"
    hearts.mkdir()
    script.write_text(block("sh", "touch").replace("/run/hearts", str(hearts)).replace("sleep 15", "sleep 0.1"))
    text = block("json", "heartbeat").replace("/run/hearts", str(hearts)).replace("/srv/worker.sh", str(script))
    colony.put("worker", json.loads(text))
    colony.start()
    wait_for_touches(colony, hearts / "worker")
    colony.wait_for(lambda: colony.lines("worker"), "it works")
    assert "working" in colony.lines("worker")


def put_python(colony: Colony, args: list[str], **keys: Any) -> Path:
    """Define a Python program with a heart; the file that it is to touch."""
    heart = colony.root / "heart"
    check = [{"heartbeat": str(heart), "period": 0.3, "grace": 60, "action": "report"}]
    env = {"PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}
    colony.put("worker", {"args": args, "cwd": str(colony.root), "env": env, "check": check, **keys})
    return heart


def test_twisted(colony: Colony) -> None:
    """The .tac file, run as the page says, works and beats."""
    (colony.root / "worker.tac").write_text(block("python", "wrapHeart"))
    assert "`twistd -noy worker.tac`" in PAGE
    heart = put_python(colony, shlex.split("twistd -noy worker.tac"))
    colony.start()
    wait_for_touches(colony, heart)
    colony.wait_for(lambda: "working" in "".join(colony.lines("worker")), "it works")


def test_asyncio(colony: Colony, manager: Manager) -> None:
    """The asyncio server answers, beats, and says that it is ready; on a port that is free."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = block("python", "asyncio").replace("8007", str(port))
    heart = colony.root / "heart"
    check = json.dumps({"check": [{"heartbeat": str(heart), "period": 0.3}]})
    env = {**os.environ, "NCOLONY_CONFIG": check, "NOTIFY_SOCKET": manager.name}
    server = subprocess.Popen([sys.executable, "-c", code], env=env)
    try:
        assert manager.next_with("READY") == {"READY": "1"}
        wait_for_touches(colony, heart)
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            client.sendall(b"hello\n")
            assert client.recv(100) == b"hello\n"
    finally:
        server.kill()
        server.wait()


def test_thread(colony: Colony) -> None:
    """The thread beats while the loop goes round; when that stands still for the time that it gives itself, no more."""
    code = block("python", "alive=").replace("< 60", "< 0.2").replace("time.sleep(1)", "time.sleep(pause())")
    hang = colony.root / "hang"
    begin = f"import os\npause = lambda: 1000 if os.path.exists({str(hang)!r}) else 0.01\n"
    heart = put_python(colony, [sys.executable, "-c", begin + code])
    colony.start()
    wait_for_touches(colony, heart)
    assert "working" in colony.lines("worker")
    hang.touch()
    colony.wait_for(lambda: time.time() - heart.stat().st_mtime > 2, "it stands still")


@pytest.mark.skipif(not shutil.which("systemd-notify"), reason="systemd-notify is not installed")
def test_systemd_notify(manager: Manager) -> None:
    """The shell script with systemd's tool says that it is ready, and again and again that it works."""
    script = block("sh", "systemd-notify").replace("sleep 10", "sleep 0.01")
    env = {**os.environ, "NOTIFY_SOCKET": manager.name}
    shell = subprocess.Popen(["sh", "-c", script], env=env, start_new_session=True)
    try:
        assert manager.next_with("READY")["STATUS"] == "at work"
        for _ in range(2):
            manager.next_with("WATCHDOG", "1")
    finally:
        os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()


def test_notify_from_python(manager: Manager) -> None:
    """The Python example says all that it shows, with the standard library alone."""
    env = {"PYTHONPATH": str(ROOT / "src"), "NOTIFY_SOCKET": manager.name}
    code = block("python", "from ncolony.client import notify")
    subprocess.run([sys.executable, "-S", "-c", code], env=env, check=True, timeout=60)
    manager.listen(30)
    said = ["READY", "RELOADING", "READY", "STOPPING"]
    assert manager.words() == said
    assert [heard.get("STATUS") for heard in manager.heard[:2]] == ["serving", "12 requests"]
    assert manager.heard[4] == {"EXTEND_TIMEOUT_USEC": "30000000"}


def here(colony: Colony, words: list[str]) -> list[str]:
    """A command of the page, with this Python and this colony's directories."""
    places = {"/messages": str(colony.messages), "/conf": str(colony.config), "python": sys.executable}
    return [places.get(word, word) for word in words]


def test_health_on_the_command_line(colony: Colony) -> None:
    """`ncolony ctl health` says "healthy", or reasons as the page shows them, with the statuses given there."""
    well, ill = (text.splitlines() for text in blocks("console", "ctl health"))
    assert well[0] == ill[0] == "$ ncolony ctl health"
    command = here(colony, ["python", "-m", *shlex.split(well[0])[1:]])
    command[4:4] = ["--state", str(colony.state)]
    env = {**os.environ, "NCOLONY_CTL_CONFIG": str(colony.config), "NCOLONY_CTL_MESSAGES": str(colony.messages)}

    def ask() -> tuple[int, list[str]]:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
        assert done.stderr == ""
        return done.returncode, done.stdout.splitlines()

    colony.start()
    colony.wait_for(lambda: ask() == (0, well[1:]), "all is well, the keeper too")
    colony.put("api", {"args": ["/bin/sh", "-c", "exit 3"]})
    colony.wait_for_status("api", state="BACKOFF")
    code, lines = ask()
    form = re.sub(r"0\\\.012", r"[0-9.]+", re.escape(ill[1]))
    assert code == 1
    assert [re.fullmatch(form, line) is not None for line in lines] == [True]


def listening(colony: Colony) -> str:
    """Run the page's process on a free port; its URL."""
    text = block("json", "ncolony-health").replace(":8081", "127.0.0.1:0").replace("text", "json")
    definition = json.loads(text)
    definition["args"] = [*here(colony, definition["args"]), "--state", str(colony.state)]
    colony.put("health", definition)

    def url() -> str:
        said = [line for line in colony.output("health").decode().splitlines() if "listens on" in line]
        return str(json.loads(said[0].strip("\x1e"))["url"]) if said else ""

    return str(colony.wait_for(url, "it listens"))


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_health_over_http(colony: Colony) -> None:
    """The page's process answers the page's `curl` in the form that it shows, and both probes of Kubernetes."""
    colony.start()
    url = listening(colony)
    colony.put("web", {"args": ["/bin/sleep", "1000"]})
    colony.put("api", {"args": ["/bin/sh", "-c", "exit 3"]})
    colony.wait_until_running("web")
    colony.wait_for_status("api", state="BACKOFF")
    command, *expected = block("console", "curl").splitlines()
    words = shlex.split(command.removeprefix("$ ").replace("http://127.0.0.1:8081", url))

    def ask(*words: str) -> list[str]:
        done = subprocess.run([*words, "-sS", "--noproxy", "*"], capture_output=True, text=True, timeout=60)
        assert done.stderr == ""
        return done.stdout.splitlines()

    lines = colony.wait_for(lambda: (got := ask(*words)) and len(got) == len(expected) and got, "all are told of")
    assert [re.sub(r"after [0-9.]+ s", "after 0.012 s", line) for line in lines] == expected
    paths = re.findall(r"httpGet: \{path: (\S+), port: 8081\}", block("yaml", "httpGet"))
    assert paths == ["/livez", "/readyz"]
    codes = [ask("curl", "-o", "/dev/null", "-w", "%{http_code}", f"{url}{path}") for path in paths]
    assert codes == [["200"], ["503"]]


def test_docker(colony: Colony) -> None:
    """The HEALTHCHECK is the example Dockerfile's, and tells how a colony is that `ncolony run` has started."""
    line = block("docker", "HEALTHCHECK")
    assert line in (ROOT / "examples" / "Dockerfile").read_text(encoding="utf-8")
    words = json.loads(line.partition("CMD ")[2])
    [probe] = re.findall(r"exec: \{command: \[(.*?)\]\}", block("yaml", "exec"))
    assert probe.split(", ") == words == ["ncolony", "ctl", "health"]
    state = str(colony.state)
    env = {**os.environ, "NCOLONY_CTL_CONFIG": str(colony.config), "PATH": f"{BIN}:{os.environ['PATH']}"}
    env.pop("NCOLONY_CTL_MESSAGES", None)

    def health() -> tuple[int, str]:
        command = [sys.executable, "-m", *words[:2], "--state", state, *words[2:]]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout

    colony.start(command=[sys.executable, "-m", "ncolony", "run", "--state", state], env=env)
    assert os.path.isdir(messages_directory(colony.config, colony.state))
    assert colony.wait_for(lambda: health() == (0, "healthy\n"), "it is healthy")
    colony.put("api", {"args": ["/bin/sh", "-c", "exit 3"]})
    colony.wait_for(lambda: (code := health())[0] == 1 and code[1].startswith("api: BACKOFF: "), "it is not")
