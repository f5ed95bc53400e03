"""The documentation is there as manual pages too."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    "ncolony.1": ["--keeper-linger", "SIGHUP"],
    "ncolony-ctl.1": ["restart-group", "--no-strict-modes", "ncolony completion"],
    "ncolony-config.5": ["success_codes", "max_bytes"],
    "ncolony-messages.5": ["RESTART-ALL", "last_exit"],
}

pytest.importorskip("sphinx")


@pytest.fixture(scope="module")
def manual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of pages, built as `make man` does."""
    target = tmp_path_factory.mktemp("man")
    command = [sys.executable, "-m", "sphinx", "-q", "-E", "-W", "--keep-going", "-b", "man", "docs", str(target)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert (built.returncode, built.stderr) == (0, "")
    return target


def test_every_page_is_built(manual: Path) -> None:
    """`make man` builds every page that the documentation names, without a warning."""
    assert {path.name for path in manual.iterdir() if path.is_file()} == set(PAGES)
    said = (ROOT / "docs" / "commands.md").read_text("utf-8").partition("## Manual pages")[2].partition("\n## ")[0]
    named = {f"{name}.{section}" for name, section in re.findall(r"(ncolony[a-z-]*)\((\d)\)", said)}
    assert named == set(PAGES)


@pytest.mark.skipif(not shutil.which("groff"), reason="groff is not installed")
@pytest.mark.parametrize("name", sorted(PAGES))
def test_pages_can_be_read(manual: Path, name: str) -> None:
    """Each page is rendered without complaint, tables and all, and has in it what it is looked up for."""
    command = ["groff", "-t", "-man", "-rLL=100n", "-Wbreak", "-Tutf8", "-P-cbou", str(manual / name)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (shown.returncode, shown.stderr) == (0, "")
    text = " ".join(shown.stdout.replace("\u2010", "-").replace("\u2212", "-").split())
    assert " NAME " in text
    assert "<>" not in text
    assert [word for word in PAGES[name] if word not in text] == []
