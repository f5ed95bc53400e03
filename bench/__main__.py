"""The command line: `python -m bench METRIC`, `series`, `report`, `publish`, `peers`; from the checkout's directory."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from .group import NOT_MEASURED, counts_cpu
from .machine import about
from .measure import chosen, measure
from .metrics import METRICS, Options
from .metrics.answers import TROUBLES
from .peers import PEERS
from .places import LIMIT, PAYLOAD, PUBLISHED, RESULTS
from .plot import draw
from .report import group, read, report
from .run import as_json, raise_descriptor_limit
from .series import ALL, SERIES


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure process supervisors side by side.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for metric in METRICS.values():
        _add_options(commands.add_parser(metric.name, help=f"measure: {metric.about}"))
    series = commands.add_parser("series", help="measure everything and print the tables")
    series.add_argument("name", choices=SERIES, help="short: about 15 minutes; full: about 90")
    series.add_argument("--out", type=Path, help="file for the rows [default: a new one in bench/results]")
    for name, words in ("report", "print tables"), ("publish", "write tables and plot for the documentation"):
        command = commands.add_parser(name, help=f"{words} of earlier measurements")
        if name == "publish":
            command.add_argument("--into", type=Path, default=PUBLISHED, help="directory [default: docs/benchmarks]")
        command.add_argument("files", nargs="*", type=Path, help="files of rows [default: the newest in bench/results]")
    commands.add_parser("peers", help="list the supervisors with their versions and defaults")
    return parser


def _add_options(parser: argparse.ArgumentParser) -> None:
    default = Options()
    add = parser.add_argument
    add("--peers", default=ALL, help="comma list, in the order of running [default: all]")
    add("--n", default="100", help="comma list of numbers of processes, or of writers [default: 100]")
    add("--reps", type=int, default=3, help="how often [default: 3]")
    add(
        "--out",
        type=Path,
        default=RESULTS / "single.jsonl",
        help="file for the rows [default: bench/results/single.jsonl]",
    )
    add("--fast", action="store_true", help="the rivals' fastest settings, for those that have any, not the defaults")
    add(
        "--idle",
        type=float,
        default=default.idle,
        help="lifecycle: seconds of idleness measured, 0 for none [default: 30]",
    )
    add("--settle", type=float, default=default.settle, help="lifecycle, scale: seconds after the start [default: 6]")
    add("--kills", type=int, default=default.kills, help="respawn, scale, answer: how many are killed [default: 100]")
    add("--budget", type=float, default=default.budget, help="respawn, scale, answer: seconds at most [default: 30]")
    add("--adds", type=int, default=default.adds, help="change, scale, ctl: how many are added [default: 8]")
    add("--seconds", type=float, default=default.seconds, help="log: how long each process writes [default: 3]")
    add("--all", action="store_true", help="killsup: kill all the supervisor's own processes, not only the main one")
    add("--quiet", action="store_true", help="killsup: the children print nothing")
    add("--under", choices=TROUBLES, default="", help="answer: what goes on meanwhile [default: nothing]")


def _measure(arguments: argparse.Namespace) -> None:
    options = Options(**{key: getattr(arguments, key) for key in Options.__dataclass_fields__})
    numbers = [int(n) for n in arguments.n.split(",")]
    measure(METRICS[arguments.command], chosen(arguments.peers), numbers, arguments.reps, options, arguments.out)


def _series(parser: argparse.ArgumentParser, name: str, out: Path | None) -> None:
    out = out or RESULTS / f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{name}.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(out, "a", encoding="utf-8") as file:
        print(as_json(about(name)), file=file)
    for line in SERIES[name]:
        print(f"== {time.strftime('%T', time.gmtime())} {' '.join(line)}", flush=True)
        _measure(parser.parse_args([*line, "--out", str(out)]))
    print(report(*read([out])))
    print(f"the rows are in {out}")


def _results(files: list[Path]) -> list[Path]:
    """:raises FileNotFoundError: when nothing was measured yet."""
    found = files or sorted(RESULTS.glob("*-*.jsonl"))[-1:]
    if not found:
        raise FileNotFoundError(f"nothing is in {RESULTS} yet; `make bench` measures")
    return found


def _publish(into: Path, files: list[Path]) -> None:
    abouts, rows = read(_results(files))
    into.mkdir(exist_ok=True)
    written = {"results.inc": report(abouts, rows), "cost.svg": draw(group(rows))}
    for name, text in written.items():
        if text:
            (into / name).write_text(text, encoding="utf-8")
            print(f"wrote {into / name}")
        else:
            print(f"{name} stays as it is: there are no rows of the metric scale")


def _peers() -> None:
    for name, peer in PEERS.items():
        print(f"{name:12} {'not installed' if peer.missing() else peer.version()}")
        polls = f"polls every {peer.poll_s:g} s" if peer.poll_s else "is told of changes"
        fast = f"; fastest settings: {peer.fast_note}" if peer.fast_note else ""
        print(f"{'':12} restarts after: {peer.delay}; {polls}{fast}")


def _check_built() -> None:
    """:raises FileNotFoundError: when the payload or the limit is missing."""
    for program in (PAYLOAD, LIMIT):
        if not os.access(program, os.X_OK):
            raise FileNotFoundError(f"there is no {program}; `make bench-setup` builds it")


def _do(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    match arguments.command:
        case "report":
            print(report(*read(_results(arguments.files))))
        case "publish":
            _publish(arguments.into, arguments.files)
        case "peers":
            _peers()
        case "series":
            _series(parser, arguments.name, arguments.out)
        case _:
            _measure(arguments)


def main() -> None:
    """Run the command line.

    :raises SystemExit: with one line, when it cannot be done.
    """
    parser = _parser()
    arguments = parser.parse_args()
    # So that a run in progress ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    try:
        if arguments.command not in ("report", "publish", "peers"):
            _check_built()
            raise_descriptor_limit()
            if not counts_cpu():
                print(NOT_MEASURED, file=sys.stderr)
        _do(parser, arguments)
    except BrokenPipeError:
        # Whoever read it has seen enough; Python must not try again at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError) as error:
        sys.exit(f"cannot {arguments.command}: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")


if __name__ == "__main__":
    main()
