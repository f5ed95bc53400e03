"""The benchmark harness: one small run, and tables and plot that say what the rows say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


def bench(*arguments: object, tmp: Path) -> str:
    """What `python -m bench` prints. Its lock is its own, so that no measurement of this machine is waited for."""
    environment = {**os.environ, "TMPDIR": str(tmp), "PEERS": str(tmp / "none"), "OURS_PYTHON": sys.executable}
    command = [sys.executable, "-m", "bench", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def row(peer: str, n: int = 1000, metric: str = "restart", **figures: Any) -> dict[str, Any]:
    return {"metric": metric, "peer": peer, "variant": "default", "n": n, "n_actual": n, **figures}


def write_rows(path: Path, *rows: dict[str, Any]) -> Path:
    about = {
        "about": "full", "time": "2026-11-26T09:00:00Z", "machine": "2 cores", "cpu_counted": True,
        "versions": {"ours": "ncolony 1"}, "missing": ["pm2"],
    }  # fmt: skip
    path.write_text("".join(json.dumps(one) + "\n" for one in (about, *rows)), encoding="utf-8")
    return path


def cells(text: str, first: str) -> list[list[str]]:
    """The rows of all tables whose first cell is `first`."""
    split = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    return [line for line in split if line[0] == first]


def test_tables(tmp_path: Path) -> None:
    """Medians, ratios to the limit and to the best rival, the fastest that did it; failures with reason."""
    rows = [
        *(row("limit", all_s=value) for value in (0.4, 0.5, 0.9)),
        *(row("ours", all_s=value) for value in (1.5, 1.0, 0.8)),
        row("s6", all_s=4.0),
        row("supervisor", all_s=5.0),
        row("circus", dnf="restart: not within 400 s"),
        row("runit", all_s=6.0, n_actual=999),
    ]
    text = bench("report", write_rows(tmp_path / "rows", *rows), tmp=tmp_path)
    assert "Measured 2026-11-26 on 2 cores." in text
    assert "left out: pm2" in text
    assert cells(text, "restart-all of 1,000, s") == [
        ["restart-all of 1,000, s", "0.500", "1.000", "4.000 s6", "2", "0.25"]
    ]
    [ours] = cells(text, "ours")
    assert ours == ["ours", "3", "1.000 (0.8-1.5)", "2", "0.25", ""]
    [circus] = cells(text, "circus")
    assert circus[-1] == "DNF 1 of 1: restart: not within 400 s"
    [runit] = cells(text, "runit")
    assert runit[-1] == "N=999"


def test_more_can_be_better(tmp_path: Path) -> None:
    """The best rival of a throughput is the one with the most; what is lost is compared by the least."""
    rows = [
        row("ours", 50, "log", mb_per_s=900.0, lost_lines=0),
        row("s6", 50, "log", mb_per_s=300.0, lost_lines=0),
        row("supervisor", 50, "log", mb_per_s=600.0, lost_lines=9),
    ]
    text = bench("report", write_rows(tmp_path / "rows", *rows), tmp=tmp_path)
    label = "captured from 50 writers into files, MB/s"
    assert cells(text, label) == [[label, "-", "900.0", "600.0 supervisor", "-", "1.5"]]


def test_memory_of_each_further_process(tmp_path: Path) -> None:
    """It is what lies between the smallest and the largest number from a thousand on."""
    sizes = {100: 30.0, 1000: 40.0, 10000: 40.0 + 9000 * 2 / 1024}
    rows = [row("ours", n, "lifecycle", start_s=1.0, pss_mb=size) for n, size in sizes.items()]
    text = bench("report", write_rows(tmp_path / "rows", *rows), tmp=tmp_path)
    assert ["ours", "40.0 beside 1,000", "57.6 beside 10,000", "2.00"] in cells(text, "ours")


def test_plot(tmp_path: Path) -> None:
    """A line for each peer in each panel that there are figures for, with a point for each number."""
    rows = [
        row(peer, n, "scale", start_ms=n / 100, start_cpu_ms=1.0, death_ms=2.0)
        for peer in ("limit", "ours")
        for n in (100, 1000, 10000)
    ]
    bench("publish", "--into", tmp_path / "out", write_rows(tmp_path / "rows", *rows), tmp=tmp_path)
    drawing = ElementTree.parse(tmp_path / "out" / "cost.svg").getroot()
    lines = [line for line in drawing.iter() if line.tag.endswith("polyline")]
    assert [len(line.attrib["points"].split()) for line in lines] == [3] * 6
    assert "### scale, 10,000 processes" in (tmp_path / "out" / "results.inc").read_text(encoding="utf-8")


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("gcc") is None, reason="the payload takes Linux and gcc")
def test_one_run(tmp_path: Path) -> None:
    """Three processes of ours are started, seen, measured and stopped, and nothing is left."""
    built = subprocess.run(["sh", "bench/setup.sh", "programs"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    out = tmp_path / "rows"
    options = ["--n", 3, "--reps", 1, "--idle", 0, "--settle", 0]
    bench("lifecycle", "--peers", "limit,ours,supervisor", *options, "--out", out, tmp=tmp_path)
    limit, ours = (json.loads(line) for line in out.read_text(encoding="utf-8").splitlines())
    assert "dnf" not in ours, ours
    assert (limit["own_procs"], ours["own_procs"]) == (1, 2)
    assert (ours["n_actual"], ours["stopped_politely"]) == (3, 3)
    assert limit["start_s"] > 0
    assert ours["stop_s"] > 0
    assert not list(tmp_path.glob("bench-*"))
