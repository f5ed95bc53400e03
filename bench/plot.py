"""What an event costs as the number of processes grows, drawn as SVG: a panel for each kind, both axes logarithmic."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from .report import ORDER, Group

PANELS = (
    ("start", "start, each"),
    ("change", "one added"),
    ("death", "one killed"),
    ("restart", "restart-all, each"),
    ("stop", "stop, each"),
)
ROWS = (("_ms", "ms"), ("_cpu_ms", "CPU ms"))
COLOURS = {"limit": "#777777", "ours": "#c2255c", "s6": "#1971c2"}
OTHERS = ("#2f9e44", "#e8590c", "#6741d9", "#0c8599")
WIDTH, HEIGHT, LEFT, TOP, GAP = 150, 130, 56, 48, 46


class Scale(NamedTuple):
    """Values to pixels, logarithmically."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.end - self.start)


# {peer: [(number of processes, value)]}
Lines = dict[str, list[tuple[int, float]]]


def lines_of(groups: Iterable[Group], key: str) -> Lines:
    """The medians of one figure."""
    found: Lines = {}
    for one in groups:
        for peer, value in one.medians(key).items():
            if value > 0:
                found.setdefault(peer, []).append((one.n, value))
    return {peer: sorted(found[peer]) for peer in sorted(found, key=ORDER.index)}


def draw(groups: Iterable[Group]) -> str:
    """The plot of all groups of the metric `scale`; nothing where there is none."""
    scales = [one for one in groups if one.metric.name == "scale" and one.variant == "default"]
    drawn = {(panel, row): lines_of(scales, panel + row) for panel, _ in PANELS for row, _ in ROWS}
    points = [point for lines in drawn.values() for line in lines.values() for point in line]
    if not points:
        return ""
    numbers, peers = sorted({n for n, _ in points}), {peer: "" for lines in drawn.values() for peer in lines}
    spare = iter(OTHERS * len(peers))
    colours = {peer: COLOURS.get(peer) or next(spare) for peer in peers}
    parts = []
    for down, (row, unit) in enumerate(ROWS):
        decades = _decades(drawn[panel, row] for panel, _ in PANELS)
        for right, (panel, words) in enumerate(PANELS):
            left, top = LEFT + right * (WIDTH + GAP), TOP + down * (HEIGHT + GAP + 20)
            x = Scale(numbers[0], max(numbers[-1], numbers[0] * 10), left, left + WIDTH)
            y = Scale(*decades, top + HEIGHT, top)
            parts += [*_axes(f"{words}, {unit}", numbers, x, y), *_curves(drawn[panel, row], x, y, colours)]
    width, height = LEFT + len(PANELS) * (WIDTH + GAP), TOP + len(ROWS) * (HEIGHT + GAP + 20) + 4
    parts += _legend(colours)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    font = 'font-family="sans-serif" font-size="11" fill="#222"'
    return "\n".join([f"{head} {font}>", '<rect width="100%" height="100%" fill="#fff"/>', *parts, "</svg>\n"])


def _decades(row: Iterable[Lines]) -> tuple[float, float]:
    """The powers of ten below and above everything in a row of panels, which can be compared at a glance then."""
    values = [value for lines in row for line in lines.values() for _, value in line] or [1.0]
    return 10.0 ** math.floor(math.log10(min(values))), 10.0 ** math.ceil(math.log10(max(values)) + 1e-9)


def _axes(title: str, numbers: list[int], x: Scale, y: Scale) -> list[str]:
    parts = [f'<text x="{x.start}" y="{y.end - 8}" font-weight="bold">{title}</text>']
    for exponent in range(round(math.log10(y.low)), round(math.log10(y.high)) + 1):
        at = y(10.0**exponent)
        parts.append(f'<path d="M{x.start} {at:.1f}H{x.end}" stroke="#ddd"/>')
        parts.append(f'<text x="{x.start - 5}" y="{at + 4:.1f}" text-anchor="end">{10.0**exponent:g}</text>')
    for n in numbers:
        parts.append(f'<path d="M{x(n):.1f} {y.start}v4" stroke="#888"/>')
        # Two that stand close would be one blur.
        if n == numbers[0] or math.log10(n / numbers[0]) % 1 < 1e-9:
            parts.append(f'<text x="{x(n):.1f}" y="{y.start + 16}" text-anchor="middle">{n:,}</text>')
    return parts


def _curves(lines: Lines, x: Scale, y: Scale, colours: dict[str, str]) -> list[str]:
    parts = []
    for peer, points in lines.items():
        path = " ".join(f"{x(n):.1f},{y(value):.1f}" for n, value in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colours[peer]}" stroke-width="2"/>')
        for n, value in points:
            dot = f'<circle cx="{x(n):.1f}" cy="{y(value):.1f}" r="3" fill="{colours[peer]}">'
            parts.append(f"{dot}<title>{peer}, {n:,}: {value:.3g} ms</title></circle>")
    return parts


def _legend(colours: dict[str, str]) -> list[str]:
    parts = []
    for number, (peer, colour) in enumerate(colours.items()):
        at = LEFT + number * 90
        parts.append(f'<path d="M{at} 14h20" stroke="{colour}" stroke-width="3"/>')
        parts.append(f'<text x="{at + 26}" y="18">{peer}</text>')
    parts.append(f'<text x="{LEFT + len(colours) * 90 + 20}" y="18" fill="#666">by the number of processes</text>')
    return parts
