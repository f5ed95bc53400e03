"""`run`: a supervisor in the foreground, as a container wants it; `ctl` finds it by --config alone."""

from __future__ import annotations

import argparse
import os
import sys

from ncolony import ctllib

TYPE_CHECKING = False  # see ctllib
if TYPE_CHECKING:
    from typing import NoReturn


def main(words: list[str]) -> NoReturn:
    """Become the supervisor.

    :raises ctllib.CannotAccess: when that cannot be.
    """
    options, more = _options(words)
    command = _command(options, more)
    try:
        os.execv(command[0], command)
    except OSError as error:
        raise ctllib.CannotAccess(f"cannot start: cannot execute {command[0]}: {error.strerror}") from error


def build() -> argparse.ArgumentParser:
    """The parser of `ncolony run`, which leaves the supervisor's options alone."""
    parser = argparse.ArgumentParser(
        prog="ncolony run",
        usage="ncolony run --config DIR [--messages DIR] [--state DIR] [options of the supervisor]",
        description="Run a supervisor here, in place of this command: as the first process of a container, say.",
        epilog="All other options are the supervisor's: see `python -m twisted ncolony --help`.",
        allow_abbrev=False,
    )
    option = parser.add_argument
    option("--config", metavar="DIR", help=f"directory of definitions; or {ctllib.CONFIG_VARIABLE}")
    option("--messages", metavar="DIR", help=f"of messages; or {ctllib.MESSAGES_VARIABLE} [default: a private one]")
    option("--state", metavar="DIR", help="of what the supervisor must remember")
    option("--log-format", choices=("text", "json"), default="text", help="of the log [default: text]")
    option("--log-file", metavar="FILE", help="where the log goes [default: standard output]")
    option("--log-level", metavar="LEVEL", help="what is logged [default: info]")
    return parser


def _options(words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our options, and those that are the supervisor's."""
    parser = build()
    place = words.index("--") if "--" in words else len(words)
    found, more = parser.parse_known_args(words[:place])
    more += words[place + 1 :]
    found.config = found.config or os.environ.get(ctllib.CONFIG_VARIABLE)
    if not found.config:
        parser.error(f"the directory of config is missing: give --config DIR or set {ctllib.CONFIG_VARIABLE}")
    found.messages = found.messages or os.environ.get(ctllib.MESSAGES_VARIABLE)
    return found, more


def _command(options: argparse.Namespace, more: list[str]) -> list[str]:
    # -P: what lies in the working directory of a container is no module of ours.
    command = [sys.executable, "-P", "-m", "twisted", f"--log-format={options.log_format}"]
    command += [f"--log-file={options.log_file}"] if options.log_file else []
    command += [f"--log-level={options.log_level}"] if options.log_level else []
    messages = options.messages or _private_messages(options.config, options.state)
    command += ["ncolony", "--config", options.config, "--messages", messages]
    return [*command, *(["--state", options.state] if options.state else []), *more]


def _private_messages(config: str, state: str | None) -> str:
    """The messages directory, made for our user alone: whoever may write there commands the colony.

    :raises ctllib.CannotAccess: when it cannot be made, or is not safe.
    """
    from ncolony.system.places import UnsafeState, make_private, messages_directory

    path = messages_directory(config, state)
    try:
        if state is not None:
            make_private(os.path.dirname(path))
        make_private(path, 0o700)
    except UnsafeState as unsafe:
        raise ctllib.CannotAccess(f"cannot start: {unsafe}") from unsafe
    except OSError as error:
        hint = "" if state is not None else "; give --state DIR, a directory that may be written"
        raise ctllib.CannotAccess(f"cannot start: cannot make {error.filename}: {error.strerror}{hint}") from error
    return path
