"""From paths to drafts, and from drafts to files: what `ncolony import` does, without its options and its words."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, NamedTuple

from ncolony import ctllib
from ncolony.model import config as config_model
from ncolony.model import names
from ncolony.system import files

from . import crontab, words
from .report import ERROR, NOTE, Draft, Refused, Source

if TYPE_CHECKING:
    from collections.abc import Iterable

KINDS = ("supervisord", "procfile", "crontab", "system-crontab", "systemd", "pm2")
WRITTEN, UNCHANGED, DIFFERENT = "written", "unchanged", "different"
_FIELDS = {name: place for place, name in enumerate(config_model.ProcessConfig.__struct_fields__)}
_MOST_OF_A_NAME = 1000
_MEAN_NOTHING_EMPTY = frozenset({"env", "env_inherit", "env_file", "group", "log", "after", "sockets"})


class Written(NamedTuple):
    """One config file: its name and bytes, and what became of it. `result`: written, unchanged or different."""

    name: str
    data: bytes
    result: str


def load(path: str, kind: str = "", environment: str = "") -> Source:
    """What is in the file at `path`. Whatever is wrong with it is in the findings; nothing is raised.

    :param kind: one of KINDS, or "" to tell it by name and content.
    """
    source = Source(path, kind)
    try:
        text = files.read_small(path).decode()
    except UnicodeDecodeError as error:
        source.add(ERROR, f"cannot read it: not UTF-8 at byte {error.start}")
        return source
    except (OSError, files.Unreadable, ValueError) as error:
        source.add(ERROR, f"cannot read it: {getattr(error, 'strerror', None) or error}")
        return source
    try:
        if "\0" in text:
            raise Refused("cannot read it: it holds a NUL")
        source.kind = kind or kind_of(path, text)
        _read(path, text, source, environment)
    except Refused as refused:
        source.refuse(refused)
        source.drafts.clear()
    except RecursionError:
        source.add(ERROR, "nested too deeply")
        source.drafts.clear()
    return source


def _read(path: str, text: str, source: Source, environment: str) -> None:
    """Each reader is imported when it is needed."""
    if source.kind == "supervisord":
        from . import supervisord

        supervisord.read(path, text, source)
    elif source.kind == "procfile":
        from . import procfile

        procfile.read(path, text, source)
    elif source.kind == "systemd":
        from . import systemd

        systemd.read(path, text, source)
    elif source.kind == "pm2":
        from . import pm2

        pm2.read(path, text, source, environment)
    else:
        crontab.read(path, text, source, with_user=source.kind == "system-crontab")


def kind_of(path: str, text: str) -> str:
    """What kind of file it is, by its name, else by its content.

    :raises Refused: when that cannot be told.
    """
    name = os.path.basename(path).lower()
    if name.endswith((".service", ".socket", ".timer")):
        return "systemd"
    if re.match(r"procfile(\.|$)", name) or name.endswith(".procfile"):
        return "procfile"
    if re.search(r"(ecosystem|\.config|process(es)?)\.([cm]?js|json5?|ya?ml)$", name) or name.endswith(".json"):
        if name.endswith(("yml", "yaml")):
            raise Refused("YAML is not read: convert it to JSON, for example with yq -o json")
        return "pm2"
    if re.search(r"(?m)^\[(program:|supervisord\]|eventlistener:|fcgi-program:|group:)", text):
        return "supervisord"
    if re.search(r"(?m)^\[(Service|Socket|Timer)\]", text):
        return "systemd"
    if (
        name.startswith("crontab")
        or os.path.basename(os.path.dirname(os.path.abspath(path))) == "cron.d"
        or (crontab.looks_like_one(text))
    ):
        in_system = os.path.abspath(path) == "/etc/crontab" or "/cron.d/" in os.path.abspath(path)
        return "system-crontab" if in_system or crontab.has_users(text) else "crontab"
    if re.search(r"(?m)^\[include\]", text) or name == "supervisord.conf":
        return "supervisord"
    raise Refused(f"cannot tell what kind of file this is: say it with --kind {'|'.join(KINDS)}")


def settle(sources: list[Source]) -> None:
    """When all were read: a legal name of its own for every draft, and what the files say of each other."""
    _settle_names(sources)
    if found := [unit for source in sources for unit in source.units]:
        from . import systemd

        systemd.finish(found)


def _settle_names(sources: list[Source]) -> None:
    """Give every draft a legal name of its own; what had to change is noted."""
    taken: set[str] = set()
    for source in sources:
        for draft in source.drafts:
            wanted = draft.name
            name = words.legal_name(wanted)
            number = 2
            while name in taken and number < _MOST_OF_A_NAME:
                name = words.legal_name(f"{words.legal_name(wanted)[: names.LONGEST // 4]}-{number}")
                number += 1
            if name in taken:
                source.add(ERROR, "too many processes of this name", draft.line, process=wanted)
                draft.name = ""
                continue
            if name != wanted:
                why = "the name is taken" if words.legal_name(wanted) == wanted else "not a name for a file here"
                source.add(NOTE, f"called {name}: {why}", draft.line, "name", wanted, wanted)
            taken.add(name)
            draft.name = name
        source.drafts = [draft for draft in source.drafts if draft.name]


def encode(draft: Draft) -> bytes:
    """The bytes of a draft's config file: keys in the order of the documentation, empty ones left out.

    :raises Refused: when it would be a problem, or get a warning, in a colony.
    """
    kept = {key: value for key, value in draft.config.items() if value or key not in _MEAN_NOTHING_EMPTY}
    ordered = {key: kept[key] for key in sorted(kept, key=lambda key: _FIELDS.get(key, len(_FIELDS)))}
    try:
        data = (json.dumps(ordered, indent=4, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:
        raise Refused("it holds a character that is not text", draft.line) from None
    found = config_model.define(draft.name, data)
    if isinstance(found, config_model.Problem):
        raise Refused(str(found), draft.line)
    if found.warnings:
        raise Refused(f"cannot use {draft.name}: {found.warnings[0]}", draft.line)
    if len(data) > files.LARGEST:
        raise Refused(f"cannot use {draft.name}: larger than {files.LARGEST} bytes", draft.line)
    return data


def compare(directory: str, name: str, data: bytes) -> str:
    """How the file `name` in the directory relates to `data`: WRITTEN (it is not there), UNCHANGED or DIFFERENT."""
    try:
        there = files.read_small(os.path.join(directory, name))
    except FileNotFoundError:
        return WRITTEN
    except (OSError, files.Unreadable):
        return DIFFERENT
    if there == data:
        return UNCHANGED
    old, new = config_model.define(name, there), config_model.define(name, data)
    same = (
        isinstance(old, config_model.Definition)
        and isinstance(new, config_model.Definition)
        and old.digest == new.digest
    )
    return UNCHANGED if same else DIFFERENT


def write(sources: Iterable[Source], directory: str, force: bool, dry: bool) -> list[Written]:
    """Write what the drafts say; what cannot be written is an error of its source.

    :raises ctllib.CannotAccess: when the directory cannot be made.
    """
    if not dry:
        try:
            os.makedirs(directory, exist_ok=True)
        except OSError as error:
            raise ctllib.CannotAccess(f"cannot make {directory}: {error.strerror}") from error
    done = []
    for source in sources:
        for draft in source.drafts:
            try:
                data = encode(draft)
                result = compare(directory, draft.name, data)
                if result == DIFFERENT and not force:
                    raise Refused(f"{os.path.join(directory, draft.name)} is there and differs: --force replaces it")
                if result != UNCHANGED and not dry:
                    files.write_whole(os.path.join(directory, draft.name), data)
            except Refused as refused:
                source.refuse(refused, draft.name)
                continue
            except OSError as error:
                source.add(ERROR, f"cannot write it: {error.strerror}", draft.line, process=draft.name)
                continue
            done.append(Written(draft.name, data, UNCHANGED if result == UNCHANGED else WRITTEN))
    return done
