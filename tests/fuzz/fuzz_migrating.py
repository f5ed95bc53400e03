"""Files of other supervisors, imported and exported again: config files that can be used, and reports to be read."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

from fuzzing import Scratch, files_in, import_all, is_one_line, is_plain, lay_out

from ncolony import cli
from ncolony.cli import export, migrate
from ncolony.cli.migrate import sources
from ncolony.model.config import Definition, define

import_all(migrate)
_EXPORTS = ("systemd", "kubernetes", "nomad")


def one(data: bytes) -> None:
    """A file in a folder with the name of a kind is of that kind; in any other, its name and content tell."""
    files = files_in(data)
    with Scratch() as root:
        lay_out(root, files)
        paths = [root / name for name, _ in files if "\0" not in name and ".." not in name]
        _check_import(root, [path for path in paths if path.is_file()])
        _check_export(root)


def _check_import(root: Path, paths: list[Path]) -> None:
    kinds = {str(path): path.parent.name if path.parent.name in sources.KINDS else "" for path in paths}
    found = [sources.load(path, kind, "production") for path, kind in kinds.items()]
    sources.settle(found)
    written = sources.write(found, str(root / "conf"), force=True, dry=False)
    for source in found:
        assert is_one_line(source.summary()), source.summary()
        assert all(is_one_line(str(finding)) for finding in source.findings), source.findings
    for file in written:
        made = define(file.name, (root / "conf" / file.name).read_bytes())
        assert isinstance(made, Definition), made
        assert not made.warnings, made.warnings
    names = [file.name for file in written]
    assert len(names) == len(set(names)), names
    again = sources.write(found, str(root / "conf"), force=False, dry=False)
    assert [file.result for file in again] == [sources.UNCHANGED] * len(written)


def _check_export(root: Path) -> None:
    if not (root / "conf").is_dir():
        return
    for kind in _EXPORTS:
        words = [kind, str(root / f"to-{kind}"), "--config", str(root / "conf"), "--json", "--image", "x"]
        out, said = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
            status = cli._guarded(export.main, words)
        assert status in (0, 1), said.getvalue()
        assert is_plain(said.getvalue()), said.getvalue()
        if out.getvalue():
            told = json.loads(out.getvalue())
            assert all(isinstance(error, str) and is_one_line(error) for error in told["errors"]), told["errors"]
    units = sorted((root / "to-systemd").glob("*.service")) if (root / "to-systemd").is_dir() else []
    for source in (sources.load(str(unit), "systemd") for unit in units):
        assert not any("not UTF-8" in str(finding) for finding in source.findings)
