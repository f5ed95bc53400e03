"""Values that are what they are said to be, of JSON files that may hold anything."""

from __future__ import annotations

TYPE_CHECKING = False  # see ncolony.ctllib
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_TOO_LARGE = 1e12  # seconds, KiB, or whatever else is counted
_NOTHING: dict[str, None] = {}


def fitting(
    record: Mapping[str, Any], kinds: Mapping[str, type], empty: Mapping[str, Any] = _NOTHING
) -> Mapping[str, Any]:
    """`record`, with what `empty` says, or None, for each value that is not of the type that `kinds` says.

    `float` is a number that one can reckon with, `list` a list of texts. What is None in `empty` may be None.
    """
    wrong = []
    for key, value in record.items():
        # In the order in which most are found to be right: a thousand records are read for one table.
        kind = kinds.get(key)
        if kind is None or value is empty.get(key):
            continue
        found = type(value)
        if kind is float:
            if (found is float or found is int) and -_TOO_LARGE < value < _TOO_LARGE:
                continue
        elif found is kind and (found is not list or all(type(one) is str for one in value)):
            continue
        wrong.append(key)
    return record if not wrong else {**record, **{key: empty.get(key) for key in wrong}}
