"""Lines of output: how long one may be, where a longer one is cut, and how it is shown."""

from __future__ import annotations

import re

from ..model.names import DECEPTIVE

# A longer line is cut into pieces of this size, each but the last marked.
LONGEST_LINE = 1 << 16
# Shown escaped: everything below space but the tab, DEL, the C1 controls that terminals act on, and what deceives.
_ASCII_CONTROL = bytes([*range(9), *range(11, 32), 127])
_CONTROL = re.compile(f"[\x00-\x08\x0a-\x1f\x7f-\x9f{DECEPTIVE}]")


def escaped(line: str) -> str:
    """The line as it can be shown: control characters as \\x1b and the like."""
    return _CONTROL.sub(
        lambda found: f"\\x{ord(found[0]):02x}" if found[0] < "\u0100" else f"\\u{ord(found[0]):04x}", line
    )


def is_plain(lines: bytes) -> bool:
    """Whether lines can be shown as they are: `escaped` would change none of them."""
    if lines.isascii():
        return len(lines.translate(None, _ASCII_CONTROL)) == len(lines)
    text = lines.decode("utf-8", "backslashreplace")
    return len(_CONTROL.findall(text)) == lines.count(b"\n")


def whole_characters(piece: bytes) -> bytes:
    """The piece without the beginning of a UTF-8 character at its end."""
    for back in range(1, min(4, len(piece))):
        first = piece[-back]
        if first >= 0xC0:
            length = 2 if first < 0xE0 else 3 if first < 0xF0 else 4
            return piece if length <= back else piece[:-back]
    return piece


def pieces(line: bytes, longest: int = LONGEST_LINE) -> list[bytes]:
    """The line in pieces of at most `longest` bytes, which is at least 4; no character is torn apart."""
    found = []
    while len(line) > longest:
        found.append(whole_characters(line[:longest]))
        line = line[len(found[-1]) :]
    return [*found, line]
