"""Run the example colony of the README for real, in a directory of its own, until CTRL-C.

DEMO_SECONDS=10 ends it by itself that long after the web server first answered. Exit status 0 means that everything
was started, answered and was stopped cleanly.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

WEB_PORT = 8080
# A cold start of two Python programs on a loaded machine; usually it takes about a second.
ANSWER_WITHIN_S = 60
# Web and scheduler end at once; kill_time is 5 seconds.
STOP_WITHIN_S = 30


class CannotRunDemo(Exception):
    """Why there is nothing to show; the text is for people."""


class Stopped(BaseException):
    """SIGINT, SIGTERM or SIGHUP arrived."""


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    seconds = _seconds_to_run()
    directory = tempfile.mkdtemp(prefix="ncolony-demo-")
    try:
        return _run(directory, seconds)
    except CannotRunDemo as error:
        print(f"cannot run the demo: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _stop(number: int, frame: object) -> None:
    raise Stopped


def _seconds_to_run() -> float | None:
    text = os.environ.get("DEMO_SECONDS", "")
    try:
        return float(text) if text else None
    except ValueError:
        sys.exit(f"cannot run the demo: DEMO_SECONDS is not a number: {text}")


def _run(directory: str, seconds: float | None) -> int:
    messages, conf = os.path.join(directory, "messages"), os.path.join(directory, "conf")
    places = ["--messages", messages, "--config", conf]
    ctl = ["python", "-m", "ncolony", "ctl", *places]
    port = _port_for_web()

    _do(["mkdir", messages, conf])
    web = ["--cmd=python", "--arg=-m", "--arg=twisted", "--arg=web"]
    if port != WEB_PORT:
        print(f"# Port {WEB_PORT} is taken, so web listens on {port}.")
        web.append(f"--arg=--listen=tcp:{port}")
    _do([*ctl, "add", "--name=web", *web])
    echo = ["--cmd=python", "--arg=-m", "--arg=twisted", "--arg=ncolony-scheduler", "--arg=--arg=echo"]
    _do([*ctl, "add", "--name=echo", *echo, "--arg=--arg=hello", "--arg=--frequency=10", "--arg=--timeout=5",
         "--arg=--grace=10"])  # fmt: skip
    run = ["python", "-m", "twisted", "--log-format=text", "ncolony", *places]
    _show(run)
    # A session of its own: CTRL-C reaches the supervisor once, through us, not twice (a second one means "KILL now").
    supervisor = subprocess.Popen(run, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        _wait_for_web(port, supervisor)
        _show([*ctl, "status"])
        subprocess.run([*ctl, "status"], stdin=subprocess.DEVNULL, check=False)
        _say_what_next(ctl, directory, port, seconds)
        supervisor.wait(seconds)
        raise CannotRunDemo(f"the supervisor ended by itself, {_ended(supervisor.returncode)}")
    except (Stopped, subprocess.TimeoutExpired):
        return _end(supervisor, conf, messages)
    except CannotRunDemo:
        _end(supervisor, conf, messages)
        raise


def _port_for_web() -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", WEB_PORT))
        except OSError:
            probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _show(command: list[str]) -> None:
    print(f"$ {shlex.join(command)}", flush=True)


def _do(command: list[str]) -> None:
    _show(command)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise CannotRunDemo(f"{shlex.join(command)}: {_ended(done.returncode)}")


def _ended(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"


def _wait_for_web(port: int, supervisor: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + ANSWER_WITHIN_S
    while time.monotonic() < give_up:
        if supervisor.poll() is not None:
            raise CannotRunDemo(f"the supervisor ended, {_ended(supervisor.returncode)}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                answer.read()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise CannotRunDemo(f"nothing answered on port {port} within {ANSWER_WITHIN_S} seconds")


def _say_what_next(ctl: list[str], directory: str, port: int, seconds: float | None) -> None:
    end = "CTRL-C stops everything." if seconds is None else f"It stops by itself in {seconds:g} seconds."
    text = shlex.join(ctl)
    print(
        f"""
The colony runs. web answers on http://127.0.0.1:{port}/ and echo says hello every 10 seconds, below.
Its two directories are in {directory}: one file per process in conf/, requests in messages/.
Try, in another terminal (after `. .venv/bin/activate`):

  {text} status
  {text} restart --name=web
  {text} stop web
  {text} start web
  {text} add ticks -- sh -c 'while :; do date; sleep 2; done'
  {text} remove ticks
  kill -9 the process of web (`status` has its pid) and look again

{end}
""",
        flush=True,
    )


def _end(supervisor: subprocess.Popen[bytes], conf: str, messages: str) -> int:
    """Stop the supervisor as CTRL-C does; its exit status 0 is ours."""
    # From here on another CTRL-C is passed on: the supervisor then kills what it was still waiting for.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: supervisor.send_signal(signal.SIGINT))
    if supervisor.poll() is None:
        supervisor.send_signal(signal.SIGINT)
    try:
        code = supervisor.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        print(f"the supervisor (pid {supervisor.pid}) did not end within {STOP_WITHIN_S} seconds", file=sys.stderr)
        return 1
    if code:
        print(f"the supervisor ended with {_ended(code)}", file=sys.stderr)
        return 1
    from ncolony.system.places import state_directory

    # The directories are temporary, so nobody can come back for what the colony remembered of them.
    shutil.rmtree(state_directory(conf, messages), ignore_errors=True)
    print("Everything is stopped.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
