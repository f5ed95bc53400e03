"""`make demo` shows what it promises and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def held_port() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("", 0)) as server:
        yield server.getsockname()[1]


class Demo:
    """tools/demo.py with another port in place of 8080, which another test may be using."""

    def __init__(self, directory: Path, port: int, **environment: str) -> None:
        self.output = directory / "output"
        temporary = directory / "tmp"
        temporary.mkdir()
        self.temporary = temporary
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        code = "import sys, demo; demo.WEB_PORT = int(sys.argv[1]); sys.exit(demo.main())"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, str(port)],
                env={
                    **os.environ,
                    "PATH": path,
                    "TMPDIR": str(temporary),
                    "PYTHONPATH": str(ROOT / "tools"),
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def text(self) -> str:
        return self.output.read_text(encoding="utf-8")

    def wait_for_text(self, pattern: str) -> None:
        end = time.monotonic() + 90
        while not re.search(pattern, self.text()):
            assert time.monotonic() < end and self.process.poll() is None, self.text()
            time.sleep(0.02)

    def end(self) -> int:
        """The exit status, once it has ended."""
        try:
            return self.process.wait(90)
        except subprocess.TimeoutExpired:
            self.process.terminate()
            self.process.wait(60)
            raise


def test_demo_ends_by_itself(tmp_path: Path, held_port: int) -> None:
    """With DEMO_SECONDS it ends with 0; where the port is taken it takes another and says so; it tidies up."""
    demo = Demo(tmp_path, held_port, DEMO_SECONDS="0.5")
    assert demo.end() == 0, demo.text()
    assert re.search(rf"Port {held_port} is taken, so web listens on (\d+)", demo.text())
    assert re.search(r"(?m)^web +RUNNING", demo.text())
    assert demo.text().rstrip().endswith("Everything is stopped.")
    # A user other than root keeps the state of all colonies there.
    assert [path for path in demo.temporary.rglob("*") if path.name != f"ncolony-{os.getuid()}"] == []


def test_demo_ends_at_ctrl_c(tmp_path: Path, held_port: int) -> None:
    """Both programs of the colony are seen working; then SIGINT stops it cleanly, and the demo ends with 0."""
    demo = Demo(tmp_path, held_port)
    demo.wait_for_text("CTRL-C stops everything")
    demo.wait_for_text(r"\[echo\] hello")
    os.killpg(demo.process.pid, signal.SIGINT)
    assert demo.end() == 0, demo.text()
    assert demo.text().rstrip().endswith("Everything is stopped.")


def test_demo_says_why_not(tmp_path: Path) -> None:
    """A DEMO_SECONDS that is no number is told in one line."""
    demo = Demo(tmp_path, 0, DEMO_SECONDS="soon")
    assert demo.end() == 1
    assert demo.text() == "cannot run the demo: DEMO_SECONDS is not a number: soon\n"
