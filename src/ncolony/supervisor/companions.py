"""Programs that the supervisor runs beside the others, as processes like them, while a config file needs them.

A config file of the same name takes their place.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator

from .. import __version__
from ..model.config import ProcessConfig
from .known import Settings


def _needs_checks(config: ProcessConfig) -> bool:
    return bool(config.check) or (config.ready is not None and config.ready.is_probed)


def _needs_jobs(config: ProcessConfig) -> bool:
    return config.schedule is not None


# Each is a plugin of `python -m twisted`.
_COMPANIONS: dict[str, Callable[[ProcessConfig], bool]] = {"ncolony-check": _needs_checks, "ncolony-jobs": _needs_jobs}
NAMES = tuple(_COMPANIONS)


def companions(settings: Settings) -> Iterator[tuple[str, bytes, Callable[[ProcessConfig], bool]]]:
    """Each companion: its name, its definition as the text of a config file, and which definitions need it.

    :raises UnicodeEncodeError: when a directory's name is not UTF-8, so that no config file can name it.
    """
    places = {"messages": settings.messages, "config": settings.config, "state": settings.state}
    options = [word for key, path in places.items() for word in (f"--{key}", os.path.abspath(path))]
    for name, is_needed_by in _COMPANIONS.items():
        definition = {
            "args": [sys.executable, "-m", "twisted", "--log-format=text", name, *options],
            "env_inherit": ["*"],
            "max_restart_delay": 60,
            # An upgrade of us is one of them.
            "ncolony.version": __version__,
        }
        yield name, json.dumps(definition, ensure_ascii=False).encode(), is_needed_by
