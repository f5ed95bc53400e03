"""Procfile: one shell command per line, with the .env file beside it."""

from __future__ import annotations

import os
import re
from typing import Any

from ncolony.model.variables import parse_variables
from ncolony.system import files

from . import words
from .report import ERROR, MAPPED, NOTE, Draft, Key, Notes, Refused, Source

KEYS: dict[str, Key] = {
    "NAME: COMMAND": Key(MAPPED, "a file `NAME` that runs `/bin/sh -c COMMAND` in the Procfile's directory"),
    "PORT": Key(MAPPED, "`env.PORT`: 5000, or what .env says, and 100 more for each further line"),
    ".env": Key(MAPPED, "`env_file` where its lines are plain NAME=VALUE; else `env`, with quotes taken away"),
    "other processes end when one ends": Key(NOTE, "each is restarted by itself; `on_exit` can end the colony"),
}
_FIRST_PORT, _PORTS_APART = 5000, 100
# What foreman and honcho give a process between SIGTERM and SIGKILL.
_GRACE_S = 5
_PLAIN = re.compile(r"""[A-Za-z_][A-Za-z0-9_]*=[^\s"'\\#$`]*|\s*#.*|\s*""", re.ASCII)


def read(path: str, text: str, source: Source) -> None:
    """Fill `source` with a process for each line NAME: COMMAND."""
    here = os.path.dirname(os.path.abspath(path))
    lines = []
    for number, line in enumerate(words.lines(text), 1):
        found = re.match(r"([A-Za-z0-9_-]+):\s*(.+)$", line)
        if found:
            lines.append((number, found[1], found[2].strip()))
        elif line.strip() and not line.lstrip().startswith("#"):
            source.add(ERROR, "expected NAME: COMMAND", number, value=line)
    env = _dot_env(os.path.join(here, ".env"), source, len(lines) > 1)
    seen: set[str] = set()
    port = _first_port(env, source)
    for place, (number, name, command) in enumerate(lines):
        if name in seen:
            source.add(ERROR, "the name was used above", number, name, command, name)
            continue
        seen.add(name)
        config: dict[str, Any] = {
            "args": ["/bin/sh", "-c", command],
            "env_inherit": ["*"],
            "cwd": here,
            "kill_time": _GRACE_S,
        }
        if isinstance(env, str):
            config["env_file"] = env
            own: dict[str, str] = {}
        else:
            own = dict(env)
        if port is not None:
            own["PORT"] = str(port + place * _PORTS_APART)
        config["env"] = own
        source.drafts.append(Draft(name, config, number))
        Notes(source, name).mapped(number, name, command)
    if lines:
        source.add(NOTE, KEYS["other processes end when one ends"].text, key="the end of one process")


def _first_port(env: str | dict[str, str], source: Source) -> int | None:
    if isinstance(env, str) or "PORT" not in env:
        return _FIRST_PORT
    try:
        return words.whole(env["PORT"], 0, 65535)
    except Refused as refused:
        source.add(ERROR, refused.why, key="PORT", value=env["PORT"], file=".env")
        return None


def _dot_env(path: str, source: Source, several: bool) -> str | dict[str, str]:
    """The path of a .env file that can be read at each start as it is, else what it says."""
    try:
        text = files.read_small(path).decode()
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        source.add(ERROR, "cannot read it: not UTF-8", file=path)
        return {}
    except (OSError, files.Unreadable) as error:
        source.add(ERROR, f"cannot read it: {getattr(error, 'strerror', None) or error}", file=path)
        return {}
    try:
        values = parse_variables(text)
    except ValueError as error:
        source.add(ERROR, str(error), file=path)
        return {}
    if "PORT" in values or not all(_PLAIN.fullmatch(line) for line in words.lines(text)):
        why = "its values are copied into env, because it sets PORT" if "PORT" in values else ""
        why = why or "its values are copied into env, because it has quotes or other characters with a meaning"
        source.add(NOTE, why + "; change them there", key="env", file=path)
        return values
    source.add(MAPPED, "", key="env_file", value=path, file=path)
    return path
