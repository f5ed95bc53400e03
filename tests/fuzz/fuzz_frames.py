"""The stream between supervisor and keeper: messages however they are cut up, or an error of one kind."""

from __future__ import annotations

from random import Random
from typing import Any

from ncolony.keeper.wire import Unpacker, pack


def one(data: bytes) -> None:
    """The same bytes give the same messages in whatever pieces they come, and each of them is an object."""
    messages, is_broken = _fed([data[at : at + 1] for at in range(len(data))])
    random = Random(data)
    for count in (0, 1, 2, 5):
        cuts = sorted(random.randrange(len(data) + 1) for _ in range(count))
        pieces = [data[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        found, was_broken = _fed(pieces)
        # What came in the same piece as the break is lost with it.
        assert was_broken == is_broken
        assert found == messages if not is_broken else found == messages[: len(found)]
    assert all(isinstance(message, dict) for message in messages), messages
    assert repr(_fed([b"".join(map(pack, messages))])) == repr((messages, False))


def _fed(pieces: list[bytes]) -> tuple[list[dict[str, Any]], bool]:
    """The messages in these pieces, and whether the stream broke, after which nothing follows."""
    unpacker, found = Unpacker(), []
    for piece in pieces:
        try:
            found += unpacker.feed(piece)
        except ValueError:
            return found, True
    return found, False
