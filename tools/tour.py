"""Write docs/tour.md from real runs: every command of the tour is typed into a terminal, and what it shows is copied.

    tools/tour.py           write docs/tour.md
    tools/tour.py --check   run it all and fail when the page is not what the programs show now

The terminal is tmux's. Pids, times and temporary paths differ from run to run: comparing leaves them out.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "tour.md"
SCRIPT = ROOT / "tools" / "tour.txt"
_COLUMNS, _ROWS = 110, 40
_PATIENCE_S = 60.0
_PROMPT = "$ "


class CannotTour(Exception):
    """Why the tour cannot be made; the text is for people."""


class Terminal:
    """A shell in a tmux of its own."""

    def __init__(self, directory: Path) -> None:
        self._socket = f"ncolony-tour-{os.getpid()}"
        self.directory = directory
        rc = directory / "bashrc"
        # Every prompt is a signal that the command before it has ended.
        rc.write_text(f"PS1='{_PROMPT}'\nPROMPT_COMMAND='tmux -L {self._socket} wait-for -S prompt'\n")
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '/usr/bin:/bin')}",
            "HOME": str(directory), "LANG": "C.UTF-8", "TERM": "screen", "NO_COLOR": "1",
            "NCOLONY_CTL_MESSAGES": str(directory / "messages"), "NCOLONY_CTL_CONFIG": str(directory / "conf"),
            "TMPDIR": str(directory), "XDG_RUNTIME_DIR": str(directory), "HISTFILE": "",
        }  # fmt: skip
        size = ("-x", str(_COLUMNS), "-y", str(_ROWS))
        shell = f"exec bash --noprofile --rcfile {rc} -i"
        self._tmux("-f", "/dev/null", "new-session", "-d", *size, "-c", str(directory), shell, env=environment)
        self._tmux("set-option", "-g", "history-limit", "20000")
        self._wait_for_prompt()

    def _tmux(self, *words: str, env: dict[str, str] | None = None) -> str:
        command = ["tmux", "-L", self._socket, *words]
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=_PATIENCE_S, check=False)
        if done.returncode:
            raise CannotTour(f"tmux {words[0]}: {done.stderr.strip()}")
        return done.stdout

    def _wait_for_prompt(self) -> None:
        try:
            self._tmux("wait-for", "prompt")
        except subprocess.TimeoutExpired:
            raise CannotTour(f"no prompt within {_PATIENCE_S:g} s; the screen:\n{self._screen()}") from None

    def _screen(self) -> str:
        # Lines that the terminal broke are joined again.
        return self._tmux("capture-pane", "-p", "-J", "-S", "-")

    def type(self, command: str) -> list[str]:
        """Type a command; what it shows, when it has ended."""
        self._begin(command)
        self._wait_for_prompt()
        return self._shown()

    def watch(self, command: str, until: str, keys: str) -> list[str]:
        """Type a command that goes on; what it shows when a pattern appears. Then it gets the keys that end it."""
        self._begin(command)
        deadline = time.monotonic() + _PATIENCE_S
        while not re.search(until, "\n".join(self._shown()[1:])):
            if time.monotonic() > deadline:
                raise CannotTour(f"{command}: no {until!r} within {_PATIENCE_S:g} s; the screen:\n{self._screen()}")
            time.sleep(0.05)
        shown = self._shown()
        self._tmux("send-keys", keys)
        self._wait_for_prompt()
        return shown

    def _begin(self, command: str) -> None:
        self._command = command
        self._tmux("send-keys", "-R", "")  # which takes the prompt away too
        self._tmux("clear-history")
        self._tmux("send-keys", "-l", command)
        self._tmux("send-keys", "Enter")

    def _shown(self) -> list[str]:
        _, *lines = (line.rstrip() for line in self._screen().rstrip("\n").split("\n"))
        lines.insert(0, f"{_PROMPT}{self._command}")
        while lines and lines[-1] in ("", _PROMPT.rstrip()):
            lines.pop()
        return lines

    def close(self) -> None:
        """End the shell and whatever was started from it."""
        subprocess.run(["tmux", "-L", self._socket, "kill-server"], capture_output=True, check=False)


def tour() -> str:
    """The page, with what every command shows now."""
    if shutil.which("tmux") is None:
        raise CannotTour("tmux is not installed (Debian, Ubuntu: apt-get install tmux)")
    directory = Path(tempfile.mkdtemp(prefix="ncolony-tour-"))
    terminal = Terminal(directory)
    try:
        written = _play(terminal, SCRIPT.read_text(encoding="utf-8"))
    finally:
        subprocess.run(
            [sys.executable, "-m", "ncolony", "ctl", "--messages", directory / "messages", "--config",
             directory / "conf", "shutdown", "--wait"],
            capture_output=True, check=False, timeout=_PATIENCE_S,
            env={**os.environ, "TMPDIR": str(directory), "XDG_RUNTIME_DIR": str(directory)},
        )  # fmt: skip
        terminal.close()
        shutil.rmtree(directory, ignore_errors=True)
    return written.replace(str(directory), "/home/you")


def _play(terminal: Terminal, script: str) -> str:
    """Copy the script, with every line "$ command" replaced by the command and what it shows.

    "$! command" is typed and not shown. "$~ PATTERN ~ command" is a command that goes on: it is shown as it is when the
    pattern appears, and then ended with CTRL-C.
    """
    page: list[str] = []
    for line in script.splitlines():
        if line.startswith("$! "):
            terminal.type(line[3:])
        elif line.startswith("$~ "):
            _, pattern, command = line.split("~ ", 2)
            page += terminal.watch(command, pattern.strip(), "C-c")
        elif line.startswith("$ "):
            page += terminal.type(line[2:])
        else:
            page.append(line)
    return "\n".join(page) + "\n"


# What differs from run to run, and what stands for it when pages are compared. In this order.
_VOLATILE = [
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?([+-]\d{4}|Z)?", "WHEN"),
    (r"\b\d\d:\d\d:\d\d(\.\d+)?\b", "WHEN"),
    (r"\b\d+:\d\d:\d\d\b", "SPAN"),
    (r"\bpid \d+", "pid N"),
    (r"^\[1\] \d+", "[1] N"),
    (r"\b\d+-\d+-\d+\b", "MESSAGE"),
    (r"\b\d+(\.\d+)?(e-\d+)? (s|ms|min|KiB|MiB|GiB)\b", "N UNIT"),
    (r"\b\d+(\.\d+)?(e-\d+)?s\b", "N UNIT"),
    (r" {2,}", "  "),
]


def stable(page: str) -> list[str]:
    """The page without what differs from run to run."""
    for pattern, word in _VOLATILE:
        page = re.sub(pattern, word, page, flags=re.MULTILINE)
    lines = [line.rstrip() for line in page.splitlines()]
    # How often something was printed until it was looked at.
    return [line for place, line in enumerate(lines) if place == 0 or line != lines[place - 1]]


def main() -> int:
    try:
        page = tour()
    except CannotTour as error:
        print(f"cannot make the tour: {error}", file=sys.stderr)
        return 1
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page, encoding="utf-8")
        return 0
    there = PAGE.read_text(encoding="utf-8")
    differences = list(difflib.unified_diff(stable(there), stable(page), "docs/tour.md", "now", lineterm=""))
    print("\n".join(differences))
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
