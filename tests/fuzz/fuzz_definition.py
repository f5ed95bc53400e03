"""Config files: `define` says what they mean or what is wrong with them, and never anything else."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from fuzzing import Scratch, is_one_line

from ncolony import ctllib
from ncolony.decide.restart import Policy
from ncolony.keeper.wire import pack
from ncolony.model.config import Definition, define
from ncolony.supervisor.known import policy_of, while_running
from ncolony.system import launch

_DEFAULTS = Policy(1.0, 1.0, 3600.0, 0.1, "always", (0,), ((15, 5.0),), "tree")
_SURROUNDINGS = launch.Surroundings({"PATH": "/bin", "LC_ALL": "C"}, "/", 0o22, None)


def one(data: bytes) -> None:
    """A file is a definition that everything that follows can work with, or a problem told in one line."""
    found = define("web", data)
    if isinstance(found, Definition):
        _check_definition(found, data)
    else:
        assert is_one_line(str(found)), str(found)
        str(found).encode()
    _check_enabling(data)


def _check_definition(found: Definition, data: bytes) -> None:
    assert all(is_one_line(warning) for warning in found.warnings), found.warnings
    content = msgspec.json.decode(data) if b"e" not in data.lower() else json.loads(data)
    for same in (msgspec.json.encode(content, order="sorted"), msgspec.json.format(data, indent=3)):
        again = define("web", same)
        assert isinstance(again, Definition), again
        assert (again.digest, again.generation, again.config) == (found.digest, found.generation, found.config)
    config = found.config
    every: list[Any] = [config.groups, config.env_files, config.most_memory, config.rlimits, config.umask_bits]
    every += [config.log.most_bytes, config.log.is_split]
    policy = policy_of(found, _DEFAULTS)
    msgspec.json.encode([every, policy, while_running(found, policy)])
    assert msgspec.convert(msgspec.to_builtins(policy), Policy) == policy
    found.text.decode()
    try:
        pack(launch.order(found.config, _SURROUNDINGS, {}))
    except launch.Impossible as impossible:
        assert is_one_line(str(impossible)), str(impossible)


def _check_enabling(data: bytes) -> None:
    """What is disabled and enabled again means the same as before, except that it says so."""
    with Scratch() as root:
        places = ctllib.Places(root, root)
        path = root / "web"
        path.write_bytes(data)
        try:
            ctllib.disable(places, "web")
            off = define("web", path.read_bytes())
            ctllib.enable(places, "web")
        except ctllib.Error as error:
            assert is_one_line(str(error)), str(error)
            return
    before = define("web", data)
    if isinstance(before, Definition):
        assert isinstance(off, Definition), off
        assert not off.config.enabled
