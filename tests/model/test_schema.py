"""The JSON Schema says of a file what the model says of it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ncolony.model import config, message

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import schema as tool  # noqa: E402

CONFIG, MESSAGE = (json.loads((tool.SHIPPED / f"{name}.json").read_bytes()) for name in ("config", "message"))
of_config, of_message = jsonschema.Draft202012Validator(CONFIG), jsonschema.Draft202012Validator(MESSAGE)
# What no schema can say: it compares two values, or reckons with a size that is written as text.
BEYOND = re.compile(
    r"is larger than max_restart_delay|the soft limit is above|expected (a size such as|4096 bytes|1 bytes).*found \""
)


@pytest.mark.parametrize("name", ["config.json", "message.json"])
def test_the_shipped_schema_is_what_the_model_generates(name: str) -> None:
    """Nobody has to remember `make schema`: a file that it would change fails here."""
    assert (tool.SHIPPED / name).read_text("utf-8") == tool.generated()[name]


@pytest.mark.parametrize("schema", [CONFIG, MESSAGE], ids=["config", "message"])
def test_the_schema_is_one(schema: dict[str, Any]) -> None:
    """Both are good schemas of the draft that they name."""
    assert jsonschema.validators.validator_for(schema) is jsonschema.Draft202012Validator
    jsonschema.Draft202012Validator.check_schema(schema)


def test_every_key_is_described() -> None:
    """Each key of a config file, and of `log` and `give_up` in it, has words that an editor can show."""
    assert set(CONFIG["properties"]) == config.KNOWN_KEYS | {"$schema"}
    for keys in (CONFIG, *CONFIG["$defs"].values()):
        assert [name for name, value in keys["properties"].items() if not value.get("description")] == []


def examples() -> Iterator[tuple[str, dict[str, Any]]]:
    """The JSON objects in the documentation that are config files or messages, with where they stand."""
    for page in sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]):
        text = page.read_text("utf-8")
        for found in re.findall(r"```json\n(.*?)```", text, re.DOTALL) + re.findall(r"echo '(\{.*?\})'", text):
            content = json.loads(found)
            if content.keys() & {"args", "type"}:
                yield f"{page.name}:{found[:30]!r}", content


def test_there_are_examples() -> None:
    """The documentation shows config files and messages."""
    assert {"args", "type"} <= {key for _, content in examples() for key in content}


@pytest.mark.parametrize("content", [pytest.param(content, id=where) for where, content in examples()])
def test_documented_examples_are_valid(content: dict[str, Any]) -> None:
    """Each documented file is good to the schema and to the model."""
    is_config = "args" in content
    (of_config if is_config else of_message).validate(content)
    found = (config.define if is_config else message.decode)("x", json.dumps(content).encode())
    assert not isinstance(found, config.Problem), str(found)


NUMBERS = [-1001, -1000, -21, -20, -1, 0, 1, 2, 19, 20, 32, 64, 65, 255, 256, 511, 512, 1000, 1001, 4095, 4096]
NUMBERS += [10_000, 10_001, 10**10, 100_000, 100_001, 2**32 - 2, 2**32 - 1, 2**63 - 1, 2**63, 10**30]
TEXTS = ["", "\0", "a\0b", "a", "a/", "/", "always", "never", "on-failure", "tree", "process", "restart", "shutdown"]
TEXTS += ["raw", "json", "block", "drop", "unlimited", "TERM", "sigterm", "SIGSIGTERM", "SIG", "RTMIN", "15", "nofile"]
TEXTS += [
    "022",
    "0o22",
    "0777",
    "1777",
    "9",
    "64M",
    " 64 mib ",
    "64X",
    "64iB",
    "9" * 20,
    "\u017figterm",
    "memloc\u212a",
    "A=B",
]
scalars = (
    st.sampled_from([*NUMBERS, *TEXTS, None, True, False, 0.5, 1e10 + 0.5, -0.5, 1e-300])
    | st.integers()
    # The schema takes 5.0 for an integer; the model does not, so that one value has one spelling.
    | st.floats(allow_nan=False, allow_infinity=False).filter(lambda value: value != int(value))
    | st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=9)
)
names = st.sampled_from(["nofile", "RLIMIT_CORE", "memloc\u212a", "A", "A=B", "", "failures", "within", "retry_after"])
names |= st.sampled_from(sorted(config.LogConfig.__struct_fields__)) | st.sampled_from(TEXTS)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=6
)
steps = st.lists(st.tuples(scalars, scalars), max_size=2)
limits = st.dictionaries(st.sampled_from(sorted(config.LIMITS)), scalars | st.tuples(scalars, scalars), max_size=2)
give_up = st.fixed_dictionaries({"failures": scalars, "within": scalars}, optional={"retry_after": scalars})
log = st.dictionaries(st.sampled_from(sorted(config.LogConfig.__struct_fields__)), scalars, max_size=2)
contents = st.dictionaries(
    st.sampled_from([*sorted(config.KNOWN_KEYS), "$schema", "a.b", "extra"]),
    values | st.lists(scalars, max_size=3) | steps | limits | give_up | log,
    max_size=2,
).map(lambda content: {"args": ["a"], **content})


def agree(content: dict[str, Any]) -> None:
    found = config.define("web", json.dumps(content).encode())
    if isinstance(found, config.Problem):
        assume(not BEYOND.search(str(found)))
    errors = list(of_config.iter_errors(content))
    assert bool(errors) == isinstance(found, config.Problem), (content, found, errors)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(contents)
def test_the_schema_and_the_model_agree(content: dict[str, Any]) -> None:
    """A file is valid by the schema exactly when the model takes it."""
    agree(content)


def shapes(key: str, value: Any) -> Iterator[Any]:
    """The value by itself, and where it may stand inside of others."""
    yield value
    yield [value]
    if key == "stop":
        yield from ([[value, 1]], [["TERM", value]], [["TERM", 1, value]])
    elif key in ("env", "env_secret"):
        yield from ({"A": value}, {str(value): "a"})
    elif key == "limits":
        yield from ({"nofile": value}, {"nofile": [value, "unlimited"]}, {"nofile": [0, value]}, {str(value): 1})
    elif key == "log":
        yield from ({field: value} for field in (*config.LogConfig.__struct_fields__, str(value)))
    elif key == "give_up":
        good = {"failures": 1, "within": 1}
        yield from ({**good, field: value} for field in (*config.GiveUp.__struct_fields__, str(value)))


@pytest.mark.parametrize("key", sorted(config.KNOWN_KEYS))
def test_they_agree_on_every_key_at_its_bounds(key: str) -> None:
    """Each key is valid by the schema with exactly the values that the model takes: at, above and below each bound."""
    for value in [*NUMBERS, *TEXTS, None, True, 0.5, 1e10 + 0.5]:
        for shape in shapes(key, value):
            content = {"args": ["a"], key: shape}
            found = config.define("web", json.dumps(content).encode())
            if not BEYOND.search(str(found)):
                assert of_config.is_valid(content) is isinstance(found, config.Definition), (content, found)


messages = st.dictionaries(
    st.sampled_from(["type", "name", "group", "signal", "scope", "extra"]),
    st.sampled_from([*message.TYPES, "web", "HUP", "SIGHUP", "", "x", 1, 33, 65, -1, None, True, "tree", [], 0.5]),
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(messages, st.sampled_from([*message.TYPES, "OTHER"]))
def test_the_schema_and_the_model_agree_on_messages(content: dict[str, Any], kind: str) -> None:
    """A message is valid by the schema exactly when the model takes it."""
    content = {"type": kind, **content}
    found = message.decode("m", json.dumps(content).encode())
    assert of_message.is_valid(content) is not isinstance(found, config.Problem), (content, found)
