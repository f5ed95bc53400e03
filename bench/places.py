"""Where things are: the rivals, what is built from this checkout, and what was measured."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Installed once per machine and shared by all checkouts; PEERS chooses another place.
PEERS = Path(os.environ.get("PEERS") or Path.home() / ".cache" / "ncolony-peers").resolve()
# Of this checkout: `ours` in a virtual environment without what development needs, and the two C programs.
BUILD = ROOT / "build" / "bench"
PAYLOAD = str(BUILD / "payload")
LIMIT = str(BUILD / "limit")
OURS_PYTHON = os.environ.get("OURS_PYTHON") or str(BUILD / "ours" / "bin" / "python")
# Not in BUILD, for `make clean` is no reason to lose an hour's measurements.
RESULTS = ROOT / "bench" / "results"
PUBLISHED = ROOT / "docs" / "benchmarks"
# Whoever measures on this machine holds it, whichever checkout that is.
LOCK = Path(tempfile.gettempdir()) / "bench.lock"
