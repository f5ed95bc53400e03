"""The language of systemd's unit files: lines, quoting, specifiers, command lines. Read here, and written here."""

from __future__ import annotations

import math
import os
import platform
import re
import shlex
from typing import NamedTuple

from . import words
from .report import Refused


class Line(NamedTuple):
    """One assignment."""

    section: str
    key: str
    value: str
    line: int


class Command(NamedTuple):
    """One command line: its prefixes and its words, specifiers resolved, `$` still as written."""

    prefixes: str
    words: list[str]

    @property
    def has_variables(self) -> bool:
        """Whether `$` means anything in it."""
        return ":" not in self.prefixes and any(
            one[2] or one[3] for word in self.words[1:] for one in _VARIABLE.finditer(word)
        )


_ESCAPES = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92, '"': 34, "'": 39, "s": 32}
_NUMERIC = re.compile(r"x([0-9a-fA-F]{2})|([0-7]{3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})", re.ASCII)
_VARIABLE = re.compile(r"\$(?:(\$)|\{([A-Za-z_][A-Za-z0-9_]*)\})|^\$([A-Za-z_][A-Za-z0-9_]*)$", re.ASCII)
# Known to systemd, but known only on the machine that runs the unit.
_OF_THE_MACHINE = frozenset("aAbBdDmMovqwWyY")


def parse(text: str) -> list[Line]:
    """The assignments of a unit file.

    :raises Refused: for a line that is neither assignment, section nor comment.
    """
    found: list[Line] = []
    section, joined, began = "", "", 0
    for number, raw in enumerate(words.lines(text), 1):
        line = raw.strip(" \t\r")
        if line.startswith(("#", ";")) or (not line and not joined):
            continue
        if not joined:
            began = number
        if (len(line) - len(line.rstrip("\\"))) % 2:
            joined += line[:-1] + " "
            continue
        line, joined = joined + line, ""
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
            continue
        key, equals, value = line.partition("=")
        if not equals or not section:
            raise Refused("expected [SECTION] or KEY=VALUE", began, value=line)
        found.append(Line(section, key.strip(), value.strip(), began))
    if joined:
        raise Refused("the last line ends in a backslash", began)
    return found


def split(text: str) -> list[str]:
    """The words of a value, unquoted, escapes resolved.

    :raises Refused: when a quote does not end or the text is none.
    """
    return [word for _, word in _words(text)]


def _words(text: str) -> list[tuple[str, str]]:
    """Each word as it is written, and what it means."""
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        if text[at] in " \t\n\r":
            at += 1
            continue
        word, end = _word(text, at)
        found.append((text[at:end], word))
        at = end
    return found


def _word(text: str, at: int) -> tuple[str, int]:
    word, quote = bytearray(), ""
    while at < len(text) and (quote or text[at] not in " \t\n\r"):
        one = text[at]
        at += 1
        if one == quote:
            quote = ""
        elif not quote and one in "\"'":
            quote = one
        elif one == "\\" and at < len(text):
            at = _escape(text, at, word)
        else:
            word += one.encode("utf-8", "surrogateescape")
    if quote:
        raise Refused(f"a quote {quote} has no end")
    try:
        found = word.decode()
    except UnicodeDecodeError:
        raise Refused("the escapes in it make no UTF-8") from None
    if "\0" in found:
        raise Refused("it holds a NUL")
    return found, at


def _escape(text: str, at: int, word: bytearray) -> int:
    """Add what the escape whose backslash stands before `at` means; returns where it ends."""
    if text[at] in _ESCAPES:
        word.append(_ESCAPES[text[at]])
        return at + 1
    number = _NUMERIC.match(text, at)
    if number is None:  # systemd warns and keeps it
        word += ("\\" + text[at]).encode("utf-8", "surrogateescape")
        return at + 1
    value = int(number[2], 8) if number[2] else int(number[1] or number[3] or number[4], 16)
    if number[3] or number[4]:
        if value > 0x10FFFF or 0xD800 <= value < 0xE000:
            raise Refused(f"\\{number[0]} is no character")
        word += chr(value).encode()
    elif value > 255:
        raise Refused(f"\\{number[0]} is no byte")
    else:
        word.append(value)
    return number.end()


def quote(text: str) -> str:
    """`text` as one word of a value, in quotes where it needs them. Specifiers are not seen to."""
    if text and re.fullmatch(r"[A-Za-z0-9_@%+=:,./$~^!|&<>(){}\[\]#*?-]+", text, re.ASCII) and text[0] not in "#;":
        return text
    return '"' + "".join(_quoted(one) for one in text) + '"'


def _quoted(one: str) -> str:
    if one in '\\"':
        return "\\" + one
    if one in "\n\t\r":
        return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}[one]
    if one.isprintable():
        return one
    return f"\\x{ord(one):02x}" if ord(one) < 128 else f"\\U{ord(one):08x}"


def escaped(text: str) -> str:
    """`text` in which no % begins a specifier."""
    return text.replace("%", "%%")


def path(text: str, directory: str | None) -> str | None:
    """A path, relative to a directory, made absolute, if a unit can hold it without quotes; else None."""
    whole = text if text.startswith("/") else f"{directory or ''}/{text}"
    if not whole.startswith("/") or (not text.startswith("/") and not directory):
        return None
    whole = os.path.normpath(whole).replace("//", "/")
    fine = whole.isprintable() and whole.strip() == whole and not whole.endswith("\\")
    return whole if fine else None


def seconds(value: float) -> str:
    """A time span to the microsecond, which is what systemd counts in."""
    if value == 0:
        return "0"
    return f"{math.ceil(value * 1e6)}us" if value != int(value) else str(int(value))


def unit_name(name: str) -> str:
    """A process's name as the name of a unit, without ".service"; what a unit cannot be called is escaped."""
    safe = "".join(
        chr(byte) if re.match(rb"[A-Za-z0-9:_.-]", bytes([byte])) else f"\\x{byte:02x}" for byte in name.encode()
    )
    return safe if not safe.startswith(".") else "\\x2e" + safe[1:]


def unescaped(name: str) -> str:
    """What `unit_name` made of a name, undone."""
    raw = re.sub(
        rb"\\x([0-9a-f]{2})", lambda found: bytes([int(found[1], 16)]), name.encode("utf-8", "surrogateescape")
    )
    return raw.decode("utf-8", "replace")


def specifiers(path: str) -> dict[str, str]:
    """What each specifier means in the unit of this path, where that can be known here."""
    full = os.path.basename(path)
    stem = re.sub(r"\.(service|socket|timer)$", "", full)
    prefix, at, instance = stem.partition("@")
    of_user = "/systemd/user/" in os.path.abspath(path)
    home = os.path.expanduser("~") if of_user else "/root"
    host = platform.node()
    last = prefix.rpartition("-")[2]
    found = {
        "n": full,
        "N": stem,
        "p": prefix,
        "P": unescaped(prefix.replace("-", "/")),
        "j": last,
        "J": unescaped(last.replace("-", "/")),
        "H": host,
        "l": host.partition(".")[0],
        "h": home,
        "T": "/tmp",
        "V": "/var/tmp",
        "%": "%",
    }
    if at and not instance:
        found.pop("n")
        found.pop("N")
    elif at:
        found.update(i=instance, I=unescaped(instance.replace("-", "/")))
        found["f"] = "/" + found["I"].lstrip("/")
    else:
        found.update(i="", I="", f="/" + found["P"].lstrip("/"))
    if not of_user:
        found.update(u="root", U="0", g="root", G="0", s="/bin/sh", t="/run", S="/var/lib", C="/var/cache")
        found.update(L="/var/log", E="/etc")
    return found


def resolve(text: str, known: dict[str, str]) -> str:
    """`text` with its specifiers replaced.

    :raises Refused: for one that is known only on the machine, or in the instance, that runs the unit.
    """

    def replaced(found: re.Match[str]) -> str:
        if found[1] in known:
            return known[found[1]]
        if found[1] in ("i", "I", "f", "n", "N"):
            raise Refused(f"{found[0]}: a template has no instance; import it under a name such as NAME@1.service")
        if found[1] in _OF_THE_MACHINE or found[1] in "uUgGstSCLE":
            raise Refused(f"{found[0]} is not known here: write out what it stands for")
        return found[0]

    return re.sub(r"%(.)", replaced, text)


def commands(text: str, known: dict[str, str]) -> list[Command]:
    """The command lines in the value of ExecStart= and its kin.

    :raises Refused: when it cannot be split, or one is empty.
    """
    parts: list[list[str]] = [[]]
    for written, word in _words(text):
        if written == ";":
            parts.append([])
        else:
            parts[-1].append(";" if written == "\\;" else word)
    return [_command(part, known) for part in parts if part]


def _command(parts: list[str], known: dict[str, str]) -> Command:
    bare = parts[0].lstrip("-@:+!|")
    first = resolve(bare, known)
    if not first:
        raise Refused("the command is empty")
    return Command(parts[0][: len(parts[0]) - len(bare)], [first, *(resolve(word, known) for word in parts[1:])])


def expand(command: Command, env: dict[str, str]) -> list[str] | None:
    """The words with variables replaced from `env`; None when one is not in it."""
    if ":" in command.prefixes:
        return command.words
    found = command.words[:1]
    for word in command.words[1:]:
        names = [name[1] or name[2] for name in _VARIABLE.findall(word) if name[1] or name[2]]
        if any(name not in env for name in names):
            return None
        whole = _VARIABLE.fullmatch(word)
        if whole and whole[3]:
            found.extend(split(env[whole[3]]))
        else:
            found.append(_VARIABLE.sub(lambda one: "$" if one[1] else env[one[2]], word))
    return found


def for_shell(command: Command) -> str:
    """The command line for a POSIX shell, which does what systemd does with variables."""
    if ":" in command.prefixes:
        return shlex.join(command.words)
    found = [shlex.quote(command.words[0])]
    for word in command.words[1:]:
        whole = _VARIABLE.fullmatch(word)
        if whole and whole[3]:
            found.append(f"${whole[3]}")
            continue
        parts, at = [], 0
        for one in _VARIABLE.finditer(word):
            parts.append(shlex.quote(word[at : one.start()]) if one.start() > at else "")
            parts.append("'$'" if one[1] else f'"${{{one[2]}}}"')
            at = one.end()
        parts.append(shlex.quote(word[at:]) if at < len(word) or not parts else "")
        found.append("".join(parts))
    return " ".join(found)


def limit(text: str, convert_name: str) -> int | str:
    """One side of a LimitNAME= value: a number in the unit of getrlimit(2), or "unlimited".

    :raises Refused: when it is none.
    """
    if text == "infinity":
        return "unlimited"
    if convert_name in ("cpu", "rttime") and text.isascii() and text.isdigit():
        return words.whole(text)
    if convert_name == "cpu":
        return max(1, int(-(-words.span(text) // 1)))
    if convert_name == "rttime":
        return round(words.span(text, 1e-6) * 1e6)
    if convert_name == "nice" and text[:1] in ("+", "-"):
        return 20 - words.whole(text, -20, 19)
    return words.size(text)
