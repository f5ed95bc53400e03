"""What is measured: a metric by its name."""

from __future__ import annotations

from .answers import ANSWER
from .base import Column, Figures, Metric, Options
from .changes import BURST, CHANGE, RESPAWN
from .commands import CTL
from .lifecycle import LIFECYCLE, RESTART, SCALE
from .output import EVENTS, KILLSUP, LOG

__all__ = ["METRICS", "Column", "Figures", "Metric", "Options"]

METRICS = {
    metric.name: metric
    for metric in (LIFECYCLE, RESPAWN, CHANGE, RESTART, LOG, EVENTS, KILLSUP, ANSWER, BURST, SCALE, CTL)
}
