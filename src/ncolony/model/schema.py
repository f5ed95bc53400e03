"""JSON Schema (draft 2020-12) of config files and of messages: the model's types, and what types cannot say.

The schema is as exact as the language allows. Only what compares two values (a soft limit with the hard one, the
smallest delay with the largest) or reckons with a size written as text is left to `config.define`.
"""

from __future__ import annotations

import copy
import re
import signal
from typing import Any

import msgspec

from . import conditions, config
from .message import Message

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_ANY_TEXT = {"pattern": r"^[^\u0000]*$"}
_TEXT = {"minLength": 1, **_ANY_TEXT}
_FILE = {"minLength": 1, "pattern": r"^[^\u0000]*[^/\u0000]$"}
_SECONDS = {"minimum": 0, "maximum": 1e10}
_ID = {"minimum": 0, "maximum": config.LARGEST_ID}
_SIZE_TEXT = {"pattern": r"^\s*[0-9]{1,19}\s*[KkMmGgTt]?([Ii]?[Bb])?\s*$", "examples": ["512M", "64MiB"]}
_HOST_PORT = {"pattern": r"^((\[[0-9A-Fa-f:.%\w]+\]|[^\[\]:\s]*):)?[0-9]{1,5}$"}
_URL = {"pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[!-~]+$"}
_COMMAND = {"array": {"minItems": 1, "prefixItems": [{"type": "string", **_TEXT}]}, "item": {"string": _ANY_TEXT}}
_ADDRESS = {"pattern": r"^((tcp|udp):((\[[0-9A-Fa-f:.%\w]+\]|[^\[\]:\s]*):)?[0-9]{1,5}|unix:/[^\u0000]*)$"}
_PERIOD = {"minimum": conditions.SHORTEST_S, "maximum": conditions.LONGEST_S}
_PERIOD_OR_NONE = {"minimum": 0, "maximum": conditions.LONGEST_S}
_VARIABLES = {"propertyNames": {"pattern": r"^[^=\u0000]+$"}}
_LIMIT_NUMBER = {"minimum": 0, "maximum": config.LARGEST_LIMIT}
# What holds for a value beside its type: key -> {type: constraints}. "item" is each element of a list, or value of an
# object, whose own types stand below it.
_BOUNDS: dict[str, dict[str, Any]] = {
    "args": {"array": {"minItems": 1, "prefixItems": [{"type": "string", **_TEXT}]}, "item": {"string": _ANY_TEXT}},
    "env": {"object": _VARIABLES, "item": {"string": _ANY_TEXT}},
    "env_inherit": {"item": {"string": _TEXT}},
    "uid": {"integer": _ID, "string": _TEXT},
    "gid": {"integer": _ID, "string": _TEXT},
    "group": {"string": _TEXT, "item": {"string": _TEXT}},
    "cwd": {"string": _TEXT},
    "umask": {"integer": {"minimum": 0, "maximum": 0o777}, "string": {"pattern": "^(0o)?0?[0-7]{1,3}$"}},
    "success_codes": {"item": {"integer": {"minimum": 0, "maximum": 255}}},
    "threshold": {"number": _SECONDS},
    "kill_time": {"number": _SECONDS},
    "min_restart_delay": {"number": _SECONDS},
    "max_restart_delay": {"number": _SECONDS},
    "jitter": {"number": {"minimum": 0, "maximum": 1}},
    "nice": {"integer": {"minimum": -20, "maximum": 19}},
    "oom_score_adj": {"integer": {"minimum": -1000, "maximum": 1000}},
    "instances": {"integer": {"minimum": 0, "maximum": config.MOST_INSTANCES}},
    "memory_max": {"integer": {"minimum": 1, "maximum": config.LARGEST_LIMIT}, "string": _SIZE_TEXT},
    "env_file": {"string": _TEXT, "item": {"string": _TEXT}},
    "env_secret": {"object": _VARIABLES, "item": {"string": _TEXT}},
    "rollback_if_not_ready": {"number": _SECONDS},
    "watchdog": {"number": {"minimum": 0.05, "maximum": 1e10}},
    "after": {"object": {"propertyNames": {"minLength": 1}}},
    "ready.fd": {"integer": {"minimum": 3, "maximum": 255}},
    "ready.tcp": {"string": _HOST_PORT},
    "ready.http": {"string": _URL},
    "ready.exec": _COMMAND,
    "ready.log": {"string": {"minLength": 1, "format": "regex"}},
    "ready.timeout": {"number": _PERIOD},
    "ready.period": {"number": _PERIOD},
    "check.http": {"string": _URL},
    "check.tcp": {"string": _HOST_PORT},
    "check.exec": _COMMAND,
    "check.heartbeat": {"string": _TEXT},
    "check.period": {"number": _PERIOD},
    "check.timeout": {"number": _PERIOD},
    "check.failure_threshold": {"integer": {"minimum": 1, "maximum": 1000}},
    "check.success_threshold": {"integer": {"minimum": 1, "maximum": 1000}},
    "check.grace": {"number": _PERIOD_OR_NONE},
    "sockets": {"object": {"propertyNames": {"pattern": "^[!-9;-~]{1,255}$"}}, "item": {"string": _ADDRESS}},
    "sockets.address": {"string": _ADDRESS},
    "sockets.backlog": {"integer": {"minimum": 1, "maximum": 1 << 16}},
    "sockets.mode": {"string": {"pattern": "^0?[0-7]{3}$"}},
    "schedule.every": {"number": _PERIOD},
    "schedule.jitter": {"number": _PERIOD_OR_NONE},
    "schedule.timeout": {"number": _PERIOD},
    "schedule.grace": {"number": _PERIOD_OR_NONE},
    "schedule.retries": {"integer": {"minimum": 0, "maximum": 1000}},
    "schedule.retry_delay": {"number": _PERIOD},
    "schedule.late_after": {"number": _PERIOD_OR_NONE},
    "log.max_bytes": {"integer": {"minimum": 4096, "maximum": config.LARGEST_LIMIT}, "string": _SIZE_TEXT},
    "log.keep": {"integer": {"minimum": 0, "maximum": 100_000}},
    "log.stdout": {"string": _FILE},
    "log.stderr": {"string": _FILE},
    "give_up.failures": {"integer": {"minimum": 1, "maximum": 1000}},
    "give_up.within": {"number": {"exclusiveMinimum": 0, "maximum": 1e10}},
    "give_up.retry_after": {"number": _SECONDS},
}  # fmt: skip
_STRUCTS = {
    "ProcessConfig": "", "LogConfig": "log.", "GiveUp": "give_up.", "Ready": "ready.", "After": "after.",
    "Check": "check.", "Socket": "sockets.", "Schedule": "schedule.",
}  # fmt: skip
# Of which keys there must be exactly one.
_ONE_OF = {
    "Ready": ("notify", "fd", "tcp", "http", "exec", "log"),
    "Check": ("http", "tcp", "exec", "heartbeat"),
    "Schedule": ("every", "cron"),
}
# The parts of the documentation's page that explain the keys of an object.
_SECTIONS = ("ready", "after", "check", "sockets", "schedule", "log")
# Keys that the documentation explains by an example, not in a table.
_BY_EXAMPLE = {
    "give_up": "When to give up: after so many failures within so many seconds. Without it, never.",
    "give_up.failures": "How many failures are too many.",
    "give_up.within": "In how many seconds they count.",
    "give_up.retry_after": "After how many seconds it is tried again; without it, not by itself.",
}


def config_schema(page: str) -> dict[str, Any]:
    """The schema of a config file. `page` is the text of the configuration reference, where the keys are explained."""
    keys = page.partition("\n## Keys")[2]
    descriptions = _table(keys.partition("\n### ")[0]) | _BY_EXAMPLE
    for section in _SECTIONS:
        words = keys.partition(f"\n### `{section}`")[2].partition("\n### ")[0]
        descriptions |= {f"{section}.{name}": text for name, text in _table(words).items()}
    found = msgspec.json.schema(config.ProcessConfig)
    for struct, prefix in _STRUCTS.items():
        properties = found["$defs"][struct]["properties"]
        for name, value in properties.items():
            _narrow(value, _BOUNDS.get(prefix + name, {}))
            properties[name] = _described(value, descriptions.get(prefix + name, ""))
    top = found["$defs"].pop("ProcessConfig")
    properties = top["properties"]
    _narrow_limits(properties["limits"])
    _narrow_stop(properties["stop"])
    for struct, ways in _ONE_OF.items():
        # Given and not null, or not false for `notify`.
        found["$defs"][struct]["oneOf"] = [
            {"required": [way], "properties": {way: {"not": {"enum": [None, False]}}}} for way in ways
        ]
    for struct in found["$defs"].values():
        del struct["title"], struct["description"]
    return {
        "$schema": DRAFT,
        "title": "A process of NColony",
        "description": "One file in the config directory. The file's name is the process's name.",
        "type": "object",
        "properties": {"$schema": {"description": "For editors; no part of the process."}} | properties,
        "patternProperties": {r"\.": {"description": "A key with a dot belongs to somebody else and is passed on."}},
        "required": top["required"],
        "additionalProperties": True,
        "$defs": found["$defs"],
    }


def message_schema() -> dict[str, Any]:
    """The schema of a message."""
    found = msgspec.json.schema(Message)
    for struct in found["$defs"].values():
        [tag] = struct["properties"]["type"].pop("enum")
        struct["properties"]["type"] = {"const": tag}
        struct["title"] = tag
        for name, value in struct["properties"].items():
            if name == "signal":
                value["anyOf"] = _signals()
    kinds = [struct["$ref"] for struct in found["anyOf"]]
    return {
        "$schema": DRAFT,
        "title": "A message to NColony",
        "description": "One file in the messages directory.",
        "type": "object",
        "properties": {"type": {"enum": list(found["discriminator"]["mapping"])}},
        "required": ["type"],
        "oneOf": [{"$ref": kind} for kind in kinds],
        "$defs": found["$defs"],
    }


def _table(page: str) -> dict[str, str]:
    """What the rows of a page's tables say: the words of the first column -> the last column, as plain text."""
    found: dict[str, str] = {}
    for line in page.splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
            for word in re.findall(r"`([^`]+)`", cells[0]):
                found.setdefault(word, _plain(cells[-1]))
    return found


def _plain(text: str) -> str:
    """Markdown without what leads to other places of the page, as a sentence."""
    text = re.sub(r"[;,] see (below|\[[^\]]*\]\([^)]*\))", "", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _described(value: dict[str, Any], text: str) -> dict[str, Any]:
    """`value` with its description first, where people look."""
    shown = {"description": text} if text else {}
    return {**shown, **value}


def _alternatives(value: dict[str, Any]) -> list[dict[str, Any]]:
    """The schemas of each type that a value may have."""
    found: list[dict[str, Any]] = value.get("anyOf", [value])
    return found


def _narrow(value: dict[str, Any], bounds: dict[str, Any]) -> None:
    """Add to each alternative what holds for its type."""
    for one in _alternatives(value):
        one |= copy.deepcopy(bounds.get(one.get("type", ""), {}))
        for inner in ("items", "additionalProperties"):
            if "item" in bounds and isinstance(one.get(inner), dict):
                _narrow(one[inner], bounds["item"])


def _narrow_limits(value: dict[str, Any]) -> None:
    names = "|".join(_in_any_case(name) for name in sorted(config.LIMITS))
    value["propertyNames"] = {"pattern": f"^({_in_any_case('RLIMIT_')})?({names})$"}
    for one in _alternatives(value["additionalProperties"]):
        for bound in (one, *(inner for item in one.get("prefixItems", ()) for inner in _alternatives(item))):
            if bound.get("type") == "integer":
                bound |= _LIMIT_NUMBER


def _narrow_stop(value: dict[str, Any]) -> None:
    [steps] = [one for one in _alternatives(value) if one.get("type") == "array"]
    steps["items"]["prefixItems"] = [{"anyOf": _signals()}, {"type": "number", **_SECONDS}]


def _signals() -> list[dict[str, Any]]:
    """A signal as it may be written: by a name, which editors offer, in other letters, or by number."""
    names = sorted(name.removeprefix("SIG") for name in signal.Signals.__members__)
    other = "|".join(_in_any_case(name) for name in names)
    return [
        {"enum": names},
        {"type": "string", "pattern": f"^({_in_any_case('SIG')})?({other})$"},
        # The C library keeps the first two real-time signals to itself.
        {"type": "integer", "minimum": 1, "maximum": 64, "not": {"enum": [32, 33]}},
    ]


def _in_any_case(word: str) -> str:
    """A pattern for a word in capitals or small letters: the language has no flag for it."""
    return "".join(f"[{letter.upper()}{letter.lower()}]" if letter.isalpha() else letter for letter in word)
