"""`ncolony import`: files of other supervisors become config files, and every key's fate is told."""

from __future__ import annotations

import argparse
import dataclasses
import json

from ncolony.cli import complain, say
from ncolony.cli.migrate import report, sources
from ncolony.model.names import printable

TYPE_CHECKING = False  # see ctllib
if TYPE_CHECKING:
    from ncolony.cli.migrate.report import Source
    from ncolony.cli.migrate.sources import Written


def build() -> argparse.ArgumentParser:
    """The options of the command."""
    found = argparse.ArgumentParser(
        prog="ncolony import",
        description="Make config files from the files of supervisord, foreman, cron, systemd and pm2.",
        epilog="Exit status: 0 fine, 1 error (with --strict also: something is not mapped), 2 usage.",
    )
    option = found.add_argument
    option("sources", nargs="+", metavar="SOURCE", help="supervisord.conf, Procfile, crontab, NAME.service, …")
    option("directory", metavar="DIR", help="directory of config files to write into; made if missing")
    option("--kind", choices=sources.KINDS, default="", help="what the sources are, if name and content do not tell")
    option("--env", metavar="NAME", default="", help="pm2: the env_NAME whose variables count too")
    option("--dry-run", action="store_true", help="write nothing; show what would be written")
    option("--force", action="store_true", help="replace files that are there and differ")
    option("--strict", action="store_true", help="exit with 1 when something is not mapped")
    option("--json", action="store_true", help="one JSON object instead of lines")
    return found


def main(words: list[str]) -> int:
    """Import what the words name; returns the exit status."""
    options = build().parse_args(words)
    found = [sources.load(path, options.kind, options.env) for path in options.sources]
    sources.settle(found)
    written = sources.write(found, options.directory, options.force, options.dry_run)
    if options.json:
        say(_as_json(found, written, options.dry_run))
    else:
        _tell(found, written, options.dry_run)
    if any(source.count(report.ERROR) for source in found):
        return 1
    return 1 if options.strict and any(source.count(report.NOT_MAPPED) for source in found) else 0


def _tell(found: list[Source], written: list[Written], dry: bool) -> None:
    """The summary of each source and the lines that need a reader; errors go to standard error."""
    for source in found:
        lines = [f"  {one}" for one in source.findings if one.result in (report.NOTE, report.NOT_MAPPED)]
        say("\n".join([source.summary(), *lines]) + "\n")
        for one in source.findings:
            if one.result == report.ERROR:
                complain(f"cannot import {one}".replace(": error:", ":", 1))
    for file in written:
        result = f"would be {file.result}" if dry and file.result == sources.WRITTEN else file.result
        say(f"{printable(file.name)}: {result}\n")
        if dry:
            say(file.data.decode())


def _as_json(found: list[Source], written: list[Written], dry: bool) -> str:
    def clean(finding: report.Finding) -> dict[str, object]:
        record = dataclasses.asdict(finding)
        return {key: printable(value) if isinstance(value, str) else value for key, value in record.items()}

    record = {
        "sources": [
            {
                "file": printable(source.path),
                "kind": source.kind,
                "mapped": source.count(report.MAPPED),
                "notes": source.count(report.NOTE),
                "not_mapped": source.count(report.NOT_MAPPED),
                "errors": source.count(report.ERROR),
                "findings": [clean(finding) for finding in source.findings],
            }
            for source in found
        ],
        "files": [{"name": file.name, "result": file.result, "config": json.loads(file.data)} for file in written],
        "dry_run": dry,
    }
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"
