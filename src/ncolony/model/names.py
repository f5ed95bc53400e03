"""Names of processes and of files: which are ours, which are somebody's leftovers."""

from __future__ import annotations

# NAME_MAX on every Linux filesystem is 255 bytes; ".new" is appended while a file is being written.
LONGEST = 250
# Line and paragraph separators, and what turns the direction of writing around: a line with one of them may be shown as
# two, or as another one.
DECEPTIVE = "\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
# The copies of one process, NAME:0 and so on.
MOST_INSTANCES = 10_000
_IGNORED_ENDINGS = (".new", "~", ".swp", ".tmp", ".bak")


def is_ignored(filename: str) -> bool:
    """True for names in the config and messages directories that are never a process or a message."""
    return (
        filename.startswith(".")
        or filename.endswith(_IGNORED_ENDINGS)
        or (filename.startswith("#") and filename.endswith("#"))
    )


def problem_with_name(name: str) -> str | None:
    """Why `name` cannot name a process, or None when it can."""
    if name.isascii() and name.isprintable() and 0 < len(name) <= LONGEST and "/" not in name and not is_ignored(name):
        return None  # as nearly all are
    if not name:
        return "the name is empty"
    if "/" in name:
        return "the name contains '/'"
    if any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 or character in DECEPTIVE for character in name):
        return "the name contains a control character"
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        return "the name is not valid UTF-8"
    if len(encoded) > LONGEST:
        return f"the name is longer than {LONGEST} bytes"
    if is_ignored(name):
        return "names that begin with '.', end in .new, ~, .swp, .tmp or .bak, or stand between # and # are ignored"
    return None


def copies_of(name: str, instances: int | None) -> list[str]:
    """The processes that the config file `name` stands for, by its key `instances`."""
    return [name] if instances is None else [f"{name}:{number}" for number in range(instances)]


def printable(name: str) -> str:
    """`name` as it can be shown to people and put into JSON: what is not text is escaped."""
    return name if name.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in name)


def _escaped(character: str) -> str:
    # os.fsdecode makes such a character of a byte that is not UTF-8.
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
