"""Tables in Markdown from rows of results."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .group import NOT_MEASURED
from .measure import Row, metric_of
from .metrics import Column, Metric
from .peers import NO_RIVALS, PEERS

ORDER = list(PEERS)
Medians = dict[str, float]


@dataclass
class Group:
    """The rows that are compared with each other: the same metric, number and settings."""

    title: str
    metric: Metric
    n: int
    variant: str
    rows: dict[str, list[Row]] = field(default_factory=dict)

    def medians(self, key: str) -> Medians:
        """{peer: the median of its runs}, for those that have that figure."""
        found = {}
        for peer, rows in self.rows.items():
            if values := [row[key] for row in rows if row.get(key) is not None]:
                found[peer] = statistics.median(values)
        return found

    def columns(self) -> list[Column]:
        """Those that anybody has a figure for."""
        return [column for column in self.metric.columns if self.medians(column.key)]


def read(paths: Iterable[Path]) -> tuple[list[Row], list[Row]]:
    """What is told about the series, and the rows of their runs."""
    lines = [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if "about" in line], [line for line in lines if "metric" in line]


def group(rows: Iterable[Row]) -> list[Group]:
    """The groups, in the order of their first rows."""
    found: dict[tuple[str, int, str], Group] = {}
    for row in rows:
        key = row["metric"], row["n"], row["variant"]
        into = found.setdefault(key, Group(row["metric"], metric_of(row), row["n"], row["variant"]))
        into.rows.setdefault(row["peer"], []).append(row)
    return list(found.values())


def best_rival(medians: Medians, column: Column) -> str | None:
    """Who of the rivals has the best figure."""
    rivals = [peer for peer in medians if peer not in NO_RIVALS]
    choose = max if column.more_is_better else min
    return choose(rivals, key=lambda peer: medians[peer], default=None)


def ratio(medians: Medians, peer: str, base: str | None) -> str:
    """How many times the figure of `base` that of `peer` is, to three digits."""
    if base is None or peer not in medians or not medians.get(base):
        return "-"
    return f"{medians[peer] / medians[base]:.3g}"


def _line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _markdown(head: list[str], lines: Iterable[list[str]]) -> list[str]:
    return [_line(head), "|" + "---|" * len(head), *map(_line, lines)]


def brief(groups: Iterable[Group]) -> list[str]:
    """The table of everything: the limit, ours, the best rival, and how ours compares."""
    lines = []
    for one in groups:
        if one.variant != "default":
            continue
        for column in one.columns():
            medians = one.medians(column.key)
            if not column.brief or "ours" not in medians or not (one.n or column.key == "pss_mb"):
                continue
            rival = best_rival(medians, column)
            cells = [f"{medians[peer]:.{column.digits}f}" if peer in medians else "-" for peer in ("limit", "ours")]
            of_rival = f"{medians[rival]:.{column.digits}f} {rival}" if rival else "-"
            ratios = [ratio(medians, "ours", "limit"), ratio(medians, "ours", rival)]
            lines.append([_label(one, column), *cells, of_rival, *ratios])
    return _markdown(["figure", "limit", "ours", "best rival", "ours / limit", "ours / best rival"], lines)


def _label(one: Group, column: Column) -> str:
    label = re.sub(r"\bN\b", f"{one.n:,}", column.brief)
    _, _, suffix = one.title.partition("-")
    return f"{label} ({suffix})" if suffix else label


def table(one: Group) -> list[str]:
    """All figures of a group, with the spread of the one by which it compares."""
    columns, main = one.columns(), one.metric.compared()
    medians = {column.key: one.medians(column.key) for column in columns}
    if main is not None and (main.key not in medians or not one.n):
        main = None
    rival = best_rival(medians[main.key], main) if main else None
    head = ["peer", "reps", *(column.heading for column in columns)]
    bases = [base for base in ("limit", rival) if main and base in medians[main.key]]
    head += [f"{main.heading} / {base}" for base in bases if main]
    lines = []
    for peer in sorted(one.rows, key=ORDER.index):
        cells = [_cell(one, peer, column, medians[column.key], column is main) for column in columns]
        if main:
            cells += [ratio(medians[main.key], peer, base) for base in bases]
        lines.append([peer, str(len(one.rows[peer])), *cells, notes(one, peer)])
    title = f"### {one.title}, {one.n:,} {one.metric.counts}"
    if one.variant != "default":
        title += f", {one.variant} settings"
    about = one.metric.about
    return [title, "", f"{about[0].upper()}{about[1:]}.", "", *_markdown([*head, "notes"], lines)]


def _cell(one: Group, peer: str, column: Column, medians: Medians, with_spread: bool) -> str:
    if peer not in medians:
        return "-"
    text = f"{medians[peer]:.{column.digits}f}"
    values = [row[column.key] for row in one.rows[peer] if row.get(column.key) is not None]
    if with_spread and len(set(values)) > 1:
        text += f" ({min(values):.3g}-{max(values):.3g})"
    return text


def notes(one: Group, peer: str) -> str:
    """What else is to be said of a peer: what it did not do, and with how many it did the rest."""
    rows, found = one.rows[peer], []
    for key, words in ("dnf", ""), ("stop_dnf", "stop "):
        if failed := [str(row[key]) for row in rows if key in row]:
            found.append(f"{words}DNF {len(failed)} of {len(rows)}: {failed[0]}".replace("|", "/").replace("\n", " "))
    if numbers := {row["n_actual"] for row in rows if row.get("n_actual", one.n) != one.n}:
        found.append(f"N={numbers.pop():.0f}")
    if most := max(row.get("unexpected_starts", 0) for row in rows):
        found.append(f"{most} unexpected starts")
    return "; ".join(found)


def memory(groups: Iterable[Group]) -> list[str]:
    """What each further process takes, between the smallest and the largest number from 1,000 on."""
    seen: dict[str, dict[int, list[float]]] = {}
    for one in groups:
        if one.n >= 1000 and one.variant == "default":
            for peer, rows in one.rows.items():
                for row in rows:
                    # What started fewer than asked for has its figure elsewhere.
                    if "pss_mb" in row and row.get("n_actual", one.n) == one.n:
                        seen.setdefault(peer, {}).setdefault(one.n, []).append(row["pss_mb"])
    lines = []
    for peer in sorted(seen, key=ORDER.index):
        few, many = min(seen[peer]), max(seen[peer])
        if few < many:
            at_few, at_many = statistics.median(seen[peer][few]), statistics.median(seen[peer][many])
            each = (at_many - at_few) * 1024 / (many - few)
            lines.append([peer, f"{at_few:.1f} beside {few:,}", f"{at_many:.1f} beside {many:,}", f"{each:.2f}"])
    if not lines:
        return []
    return [
        "### Memory of each further process", "",
        *_markdown(["peer", "PSS MB", "PSS MB", "kB per further process"], lines), "",
    ]  # fmt: skip


def preface(abouts: list[dict[str, Any]], rows: list[Row]) -> list[str]:
    """When, on what, with which versions, and how busy the machine was besides."""
    lines = []
    for about in abouts[-1:]:
        dates = sorted({one["time"][:10] for one in abouts})
        versions = "; ".join(f"`{name}`: {version}" for name, version in about["versions"].items())
        lines += [f"Measured {' and '.join(dates)} on {about['machine']}.", "", f"Versions: {versions}.", ""]
        if about["missing"]:
            lines += [f"Not installed, and so left out: {', '.join(about['missing'])}.", ""]
        if loads := [row["load"] for row in rows if "load" in row]:
            busy = f"{statistics.median(loads):.1f} in the median, {max(loads):.1f} at most"
            lines += [f"Load average of the minute before each run: {busy}. What else runs lengthens wall times.", ""]
        if not about["cpu_counted"]:
            lines += [f"{NOT_MEASURED}.", ""]
    return lines


def report(abouts: list[Row], rows: list[Row]) -> str:
    """Everything: the preface, the table of all metrics, and a table for each."""
    groups = group(rows)
    tables = [line for one in groups for line in [*table(one), ""]]
    return "\n".join([*preface(abouts, rows), "### In brief", "", *brief(groups), "", *memory(groups), *tables])
