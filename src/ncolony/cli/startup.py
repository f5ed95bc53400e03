"""`startup`: a systemd unit for a supervisor, from this very Python."""

from __future__ import annotations

import argparse
import glob
import os
import re
import subprocess
import sys

from ncolony import ctllib
from ncolony.cli import say

TYPE_CHECKING = False  # see ctllib
if TYPE_CHECKING:
    from collections.abc import Sequence

_SYSTEM_UNITS = "/etc/systemd/system"
# Files that begin like this were written here, and may be replaced and removed.
_OURS = "# Written by `ncolony startup`."
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,199}")
# What needs no quotes in a unit's command lines.
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./$-]+")
# The supervisor and Twisted are loaded within this, also on a slow machine.
_TRIAL_S = 60.0

_TEMPLATE = """\
{ours} To have it anew, run that again; to add to it, use `systemctl {user}edit {name}`.
[Unit]
Description=NColony process supervisor{after}
# A supervisor is worth another try, always.
StartLimitIntervalSec=0

[Service]
# Started when everything that should run was started; see `systemctl {user}status {name}` for how many do.
Type=notify
NotifyAccess=main
ExecStart={start}
TimeoutStartSec=infinity
# Upgrade in place: go on as the version that is installed now. No process notices. (Files are read when they change.)
ExecReload=/bin/kill -USR2 $MAINPID
# Not after an orderly end, so that `ncolony ctl shutdown` is one.
Restart=on-failure
RestartSec=1
# A supervisor that hangs is replaced.
WatchdogSec=30

# Only the supervisor gets systemd's signals. It stops the processes itself; and if it crashes they run on, held by the
# keeper, and the next supervisor takes them over. "mixed" and "control-group" would kill them all with it.
KillMode=process
# From its last sign of life: while a long stop goes on the supervisor asks for more time.
TimeoutStopSec=90
# A stop that found the supervisor dead, starting or too slow: the keeper ends what still runs. Not after a crash.
ExecStopPost={stop_post}
# One process killed for its memory is that process's affair, not the end of the unit.
OOMPolicy=continue
# The control groups below the unit are ours to divide.
Delegate=yes
TasksMax=infinity
# Two descriptors per process, and then some; what runs gets the smaller limit, as it is used to.
LimitNOFILE=1024:1048576
UMask=0022
# Variables for the supervisor, and so for those that name them in `env_inherit`.
EnvironmentFile=-{environment}
{other_user}
[Install]
WantedBy={target}
"""
_OTHER_USER = """
# To run as another user, who then keeps the state across restarts in /run/{name}:
# User=colony
# RuntimeDirectory={name}
# RuntimeDirectoryPreserve=yes
# and run `ncolony startup` with --state /run/{name}/state
"""
_WHEN_LEFT = 'case "$SERVICE_RESULT $EXIT_CODE" in "success killed"|timeout*) exec "$@";; esac'


def main(words: list[str]) -> int:
    """Write, show or remove a unit; returns the exit status."""
    options = _options(words)
    directory = options.directory or (_user_directory("XDG_CONFIG_HOME", ".config", "systemd/user"))
    if not options.user and not options.directory:
        directory = _SYSTEM_UNITS
    path = os.path.join(os.path.abspath(directory), f"{options.name}.service")
    if options.remove:
        return _remove(path, options)
    if options.more:
        _try_out(options)
    text = unit(
        name=options.name, user=options.user, python=sys.executable, config=options.config, messages=options.messages,
        state=options.state, more=options.more,
    )  # fmt: skip
    if options.print:
        say(text)
        return 0
    _check_ours(path, "write")
    try:
        if options.user:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        _write(path, text)
    except OSError as error:
        raise _refused("write", path, options, error) from error
    systemctl = f"systemctl{' --user' if options.user else ''}"
    lines = [
        f"{path}: written",
        "now run:",
        f"  {systemctl} daemon-reload",
        f"  {systemctl} enable --now {options.name}",
    ]
    if options.user:
        lines.append("  loginctl enable-linger  # so that it runs from boot on, and after you log out")
    say("\n".join([*lines, ""]))
    return 0


def build() -> argparse.ArgumentParser:
    """The parser of `ncolony startup`, for what stands before --."""
    parser = argparse.ArgumentParser(
        prog="ncolony startup",
        usage="ncolony startup [--user] [--config DIR] [--messages DIR] [options] [--print | --remove] [-- OPTION …]",
        description="Have systemd run a supervisor from boot on. What follows -- are options of the supervisor.",
        allow_abbrev=False,
    )
    option = parser.add_argument
    option("--user", action="store_true", help="for your own systemd, without root")
    option("--config", metavar="DIR", help="directory of definitions [default: /etc/NAME/conf, or in ~/.config]")
    option("--messages", metavar="DIR", help="of messages [default: /var/lib/NAME/messages, or in ~/.local/state]")
    option("--state", metavar="DIR", help="of what the supervisor must remember, where not the default")
    option("--name", metavar="NAME", default="ncolony", help="of the unit [default: ncolony]")
    option("--directory", metavar="DIR", help=f"where units are [default: {_SYSTEM_UNITS}, or ~/.config/systemd/user]")
    option("--print", action="store_true", help="show the unit and write nothing")
    option("--remove", action="store_true", help="remove the unit")
    return parser


def _options(words: list[str]) -> argparse.Namespace:
    parser, more = build(), []
    if "--" in words:
        place = words.index("--")
        words, more = words[:place], words[place + 1 :]
    found = parser.parse_args(words)
    if not _NAME.fullmatch(found.name):
        raise ctllib.BadValue(f"cannot write a unit: {found.name!r} is no name for one")
    config, messages = f"/etc/{found.name}/conf", f"/var/lib/{found.name}/messages"
    if found.user:
        config = _user_directory("XDG_CONFIG_HOME", ".config", f"{found.name}/conf")
        messages = _user_directory("XDG_STATE_HOME", ".local/state", f"{found.name}/messages")
    found.config, found.messages = os.path.abspath(found.config or config), os.path.abspath(found.messages or messages)
    if found.state is not None:
        found.state = os.path.abspath(found.state)
    if any(word == "--state" or word.startswith("--state=") for word in more):
        parser.error("give --state before --, so that ExecStopPost gets it too")
    found.more = more
    return found


def _user_directory(variable: str, usual: str, path: str) -> str:
    """A path in the user's own directories, by the XDG rules."""
    base = os.environ.get(variable, "")
    return os.path.join(base if os.path.isabs(base) else os.path.join(os.path.expanduser("~"), usual), path)


def unit(
    *, name: str, user: bool, python: str, config: str, messages: str, state: str | None, more: Sequence[str]
) -> str:
    """The text of the unit: the supervisor of these absolute paths, run by `python`, with `more` options.

    :raises ctllib.BadValue: when a word cannot be written in a unit.
    """
    places = ["--messages", messages, "--config", config, *(["--state", state] if state else [])]
    start = [python, "-P", "-m", "twisted", "--log-format=text", "ncolony", *places, *more]
    end = [python, "-P", "-m", "ncolony", "ctl", *places, "shutdown", "--wait", "60"]
    return _TEMPLATE.format(
        ours=_OURS,
        name=name,
        user="--user " if user else "",
        after="" if user else "\nAfter=network.target",
        start=command_line(start),
        stop_post=command_line(["/bin/sh", "-c", _WHEN_LEFT, "sh", *end], prefix="-"),
        environment=f"%E/{name}/environment" if user else f"/etc/default/{name}",
        other_user="" if user else _OTHER_USER.format(name=name),
        target="default.target" if user else "multi-user.target",
    )


def command_line(words: Sequence[str], prefix: str = "") -> str:
    """The words as a unit's ExecStart= and its kin take them (systemd.service(5), "Command lines").

    :raises ctllib.BadValue: for a word that no unit can hold.
    """
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise ctllib.BadValue(f"cannot write a unit: {word!r} is not UTF-8") from None
        if "\0" in word:
            raise ctllib.BadValue(f"cannot write a unit: {word!r} contains NUL")
    if not words[0].isprintable() or any(char in words[0] for char in "\"'\\"):
        raise ctllib.BadValue(f"cannot write a unit: systemd runs no program with such a path: {words[0]!r}")
    if "$" in words[0]:
        prefix += ":"  # systemd 244: a dollar is just that; older ones cannot run such a path at all
    else:
        words = [word.replace("$", "$$") for word in words]
    return prefix + " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    word = word.replace("%", "%%")
    if _PLAIN.fullmatch(word):
        return word
    mark = "'" if '"' in word and "'" not in word else '"'
    escaped = word.replace("\\", "\\\\").replace(mark, f"\\{mark}")
    return mark + "".join(char if char.isprintable() else _escape(char) for char in escaped) + mark


def _escape(char: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in char.encode())


def _try_out(options: argparse.Namespace) -> None:
    """See that the supervisor takes its options, rather than at the next boot.

    :raises ctllib.BadValue: when it does not.
    """
    from ncolony.system.upgrade import TRIAL, VARIABLE

    command = [sys.executable, "-P", "-m", "twisted", "ncolony", "--messages", options.messages]
    done = subprocess.run(
        [*command, "--config", options.config, *options.more],
        env={**os.environ, VARIABLE: TRIAL},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="backslashreplace",
        timeout=_TRIAL_S,
        check=False,
    )
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).strip().splitlines()
        said = next((line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")), lines[-1])
        raise ctllib.BadValue(f"cannot write a unit: the supervisor refuses its options: {said}")


def _check_ours(path: str, verb: str) -> None:
    """See that the file is one that was written here, if it is there at all."""
    try:
        with open(path, "rb") as file:
            ours = file.read(len(_OURS)) == _OURS.encode()
    except FileNotFoundError:
        return
    except OSError as error:
        raise ctllib.CannotAccess(f"cannot read {path}: {error.strerror}") from error
    if not ours:
        raise ctllib.Error(f"cannot {verb} {path}: it was not written by `ncolony startup`")


def _write(path: str, text: str) -> None:
    from ncolony.system.files import write_whole

    write_whole(path, text.encode(), 0o644)


def _remove(path: str, options: argparse.Namespace) -> int:
    """Remove the unit, and the links that have it started at boot."""
    if not os.path.exists(path):
        raise ctllib.NotThere(f"cannot remove {path}: there is no such unit")
    _check_ours(path, "remove")
    links = glob.glob(f"{glob.escape(os.path.dirname(path))}/*.wants/{glob.escape(os.path.basename(path))}")
    for victim in [*links, path]:
        try:
            if not options.print:
                os.unlink(victim)
        except OSError as error:
            raise _refused("remove", victim, options, error) from error
        say(f"{victim}: {'would be ' if options.print else ''}removed\n")
    systemctl = f"systemctl{' --user' if options.user else ''}"
    say(f"now run:\n  {systemctl} stop {options.name}\n  {systemctl} daemon-reload\n")
    return 0


def _refused(verb: str, path: str, options: argparse.Namespace, error: OSError) -> ctllib.CannotAccess:
    hint = "; only root may (or use --user)" if isinstance(error, PermissionError) and not options.user else ""
    return ctllib.CannotAccess(f"cannot {verb} {path}: {error.strerror}{hint}")
