"""`ncolony export`: config files become units, manifests or jobs for those who outgrow a colony."""

from __future__ import annotations

import argparse
import json
import os

from ncolony import ctllib
from ncolony.cli import complain, say
from ncolony.cli.migrate import leaving
from ncolony.cli.migrate.report import Refused
from ncolony.model.names import printable
from ncolony.system import files

TYPE_CHECKING = False  # see ctllib
if TYPE_CHECKING:
    from ncolony.cli.migrate.leaving import Output, Process

_WRITTEN, _UNCHANGED = "written", "unchanged"


def build() -> argparse.ArgumentParser:
    """The options of the command."""
    found = argparse.ArgumentParser(
        prog="ncolony export",
        description="Write config files down for systemd, Kubernetes or Nomad.",
        epilog="Exit status: 0 fine, 1 error (with --strict also: something is not expressed), 2 usage.",
    )
    option = found.add_argument
    option("kind", choices=("systemd", "kubernetes", "nomad"), metavar="KIND", help="systemd, kubernetes or nomad")
    option("directory", metavar="DIR", help="directory to write into; made if missing")
    option("names", nargs="*", metavar="NAME", help="these processes only")
    option("--config", metavar="DIR", help=f"directory of definitions; or {ctllib.CONFIG_VARIABLE}")
    option(
        "--image", action="append", default=[], metavar="[NAME=]IMAGE", help="kubernetes: the image, of all or of one"
    )
    option("--driver", choices=("raw_exec", "exec"), default="raw_exec", help="nomad: the driver of the tasks")
    option("--dry-run", action="store_true", help="write nothing; show what would be written")
    option("--force", action="store_true", help="replace files that are there and differ")
    option("--strict", action="store_true", help="exit with 1 when something is not expressed")
    option("--json", action="store_true", help="one JSON object instead of lines")
    return found


def main(words: list[str]) -> int:
    """Export what the words name; returns the exit status."""
    command = build()
    options = command.parse_intermixed_args(words)
    config = options.config or os.environ.get(ctllib.CONFIG_VARIABLE)
    if not config:
        command.error(f"the directory of config is missing: give --config DIR or set {ctllib.CONFIG_VARIABLE}")
    try:
        processes, problems = leaving.load(config, options.names)
    except Refused as refused:
        raise ctllib.CannotAccess(str(refused)) from None
    if options.kind != "nomad" and not processes and not problems:
        problems.append(f"cannot export {config}: there is no process in it")
    outputs = _export(options, processes, problems) if processes else []
    written = _write(outputs, options.directory, options.force, options.dry_run, problems)
    leftovers = [one for process in processes for one in process.leftovers]
    if options.json:
        record = {
            "files": [{"name": one.name, "result": result} for one, result in written],
            "not_expressed": [{key: printable(value) for key, value in one._asdict().items()} for one in leftovers],
            "errors": problems,
            "dry_run": options.dry_run,
        }
        say(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    else:
        _tell(written, leftovers, options.dry_run)
        for problem in problems:
            complain(problem)
    return 1 if problems or (options.strict and leftovers) else 0


def _export(options: argparse.Namespace, processes: list[Process], problems: list[str]) -> list[Output]:
    """Each exporter is imported when it is needed."""
    if options.kind == "systemd":
        from ncolony.cli.migrate import to_systemd

        return to_systemd.export(processes, problems)
    if options.kind == "nomad":
        from ncolony.cli.migrate import to_nomad

        return to_nomad.export(processes, problems, options.driver)
    from ncolony.cli.migrate import to_kubernetes

    images = {}
    for word in options.image:
        name, equals, image = word.partition("=")
        images[name if equals else ""] = image if equals else name
    return to_kubernetes.export(processes, problems, images)


def _write(
    outputs: list[Output], directory: str, force: bool, dry: bool, problems: list[str]
) -> list[tuple[Output, str]]:
    """Write what differs; what is there and differs needs `force`."""
    if not dry and outputs:
        try:
            os.makedirs(directory, exist_ok=True)
        except OSError as error:
            raise ctllib.CannotAccess(f"cannot make {directory}: {error.strerror}") from error
    written = []
    for output in outputs:
        path, data = os.path.join(directory, output.name), output.text.encode()
        try:
            there = files.read_small(path)
        except FileNotFoundError:
            there = None
        except (OSError, files.Unreadable):
            there = b""
        result = _UNCHANGED if there == data else _WRITTEN
        if there is not None and there != data and not force:
            problems.append(f"cannot write {path}: it is there and differs: --force replaces it")
            continue
        try:
            if result == _WRITTEN and not dry:
                files.write_whole(path, data)
        except OSError as error:
            problems.append(f"cannot write {path}: {error.strerror}")
            continue
        written.append((output, result))
    return written


def _tell(written: list[tuple[Output, str]], leftovers: list[leaving.Leftover], dry: bool) -> None:
    for output, result in written:
        say(f"{output.name}: {f'would be {result}' if dry and result == _WRITTEN else result}\n")
        if dry:
            say(output.text + "\n")
    if unset := [printable(one.process) for one in leftovers if one.key == "image"]:
        complain(f"these have no image yet, and do not run without: {', '.join(unset)}")
    if leftovers:
        say(f"not expressed exactly ({len(leftovers)}, also in the files):\n")
        say("".join(f"  {one}\n" for one in leftovers))
