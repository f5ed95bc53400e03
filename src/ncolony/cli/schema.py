"""`schema`: the JSON Schema of config files or of messages, for editors and other programs."""

from __future__ import annotations

import argparse
import os

from ncolony.cli import say

TYPE_CHECKING = False  # see ctllib
if TYPE_CHECKING:
    from collections.abc import Sequence

KINDS = ("config", "message")
_SHIPPED = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "schema")


def build() -> argparse.ArgumentParser:
    """The parser of `ncolony schema`."""
    parser = argparse.ArgumentParser(
        prog="ncolony schema",
        description="Print the JSON Schema (draft 2020-12) of config files or of messages.",
    )
    parser.add_argument("kind", choices=KINDS, help="which files it is for")
    return parser


def main(words: Sequence[str]) -> int:
    """Print the schema; returns the exit status."""
    found = build().parse_args(words)
    with open(os.path.join(_SHIPPED, f"{found.kind}.json"), encoding="utf-8") as file:
        say(file.read())
    return 0
