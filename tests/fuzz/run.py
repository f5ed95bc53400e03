"""Fuzz one target, or all in turn: `run.py TARGET|"" [SECONDS] [libFuzzer's options]`.

With atheris inputs are made by what they reach in the code, and what makes a target fail is kept in tests/fuzz/found/;
`run.py TARGET FILE` tries it again. Without atheris inputs are made by chance, as in `run.py TARGET --chance COUNT`,
which first tries all that are kept in the corpus.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

from fuzzing import CORPUS, HERE, TARGETS, spoiled

atheris: Any
try:
    import atheris
except ImportError:
    atheris = None

FOUND = HERE / "found"
# What the coverage is measured of; the keeper's modules are top-level names.
_MEASURED = ["ncolony", "adopt", "ending", "instance", "pump", "spawn", "tree", "wire"]
_LONGEST_INPUT = 1 << 14
# An input that takes longer is a finding too.
_TOO_SLOW_S = 20
# So many inputs by chance at a time.
_ROUND = 200


def main(words: list[str]) -> int:
    """Do what the command line says; returns the exit status."""
    target, *options = words or [""]
    if target not in (*TARGETS, ""):
        sys.exit(f"cannot fuzz {target!r}: expected one of {', '.join(TARGETS)}")
    seconds = int(options.pop(0)) if options and options[0].isdecimal() else 60
    if not target:
        return max(subprocess.run([sys.executable, __file__, one, str(seconds)]).returncode for one in TARGETS)
    if options[:1] == ["--chance"]:
        return _by_chance(target, int(options[1]))
    if options and not options[0].startswith("-"):
        _load(target).one(Path(options[0]).read_bytes())
        return 0
    FOUND.mkdir(exist_ok=True)
    print(f"{target}: {seconds} s{'' if atheris else ', without atheris'}", flush=True)
    if atheris is not None:
        return _by_coverage(target, seconds, options)
    until, number = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        _by_chance(target, _ROUND, number := number + 1)
    return 0


def _load(target: str) -> ModuleType:
    return importlib.import_module(f"fuzz_{target}")


def _seeds(target: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


def _by_chance(target: str, count: int, number: int = 0) -> int:
    """Try what is kept, then inputs that Hypothesis chooses: the same each time for one `number`."""
    import hypothesis
    from hypothesis import strategies

    one, seeds = _load(target).one, _seeds(target)
    for data in seeds:
        one(data)

    @hypothesis.settings(
        max_examples=count, database=None, deadline=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    @hypothesis.seed(number)
    @hypothesis.given(strategies.sampled_from(seeds), strategies.integers(0, 2**32), strategies.binary(max_size=20))
    def attempt(seed: bytes, choice: int, more: bytes) -> None:
        random = Random(choice)
        data = spoiled(seed, random)
        if more:
            at = random.randrange(len(data) + 1)
            data = data[:at] + more + data[at + random.randrange(2) * len(more) :]
        hypothesis.note(repr(data))
        one(data)

    attempt()
    return 0


def _by_coverage(target: str, seconds: int, options: list[str]) -> int:
    with atheris.instrument_imports(include=_MEASURED):
        module = _load(target)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        random = Random(seed)
        changed = spoiled(data, random) if random.random() < 0.6 else data
        found: bytes = atheris.Mutate(data, most) if changed == data else changed[:most]
        return found

    corpus = FOUND / f"{target}.corpus"
    corpus.mkdir(exist_ok=True)
    given = [
        f"-max_total_time={seconds}", f"-max_len={_LONGEST_INPUT}", f"-timeout={_TOO_SLOW_S}", "-print_final_stats=1",
        "-rss_limit_mb=2048", f"-artifact_prefix={FOUND}/{target}-", "-reload=0", *options,
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *given, str(corpus), str(CORPUS / target)], module.one, custom_mutator=mutate)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
