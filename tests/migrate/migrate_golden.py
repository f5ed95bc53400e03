"""What the importers make of the samples, without what depends on the machine. Run it to write the expected files."""

from __future__ import annotations

import json
import os
import platform
import pwd
import sys
from pathlib import Path
from typing import Any

from ncolony.cli.migrate import sources

SAMPLES = Path(__file__).with_name("samples")
# A sample's path below SAMPLES; what is expected of it is in the file of that name with .expected.json behind it.
IMPORTED = [
    "supervisord/supervisord.conf",
    "procfile/Procfile",
    "crontab/crontab",
    "crontab/system.crontab",
    "systemd/shop.service",
    "systemd/prepared.service",
    "systemd/once@blue.service",
    "systemd/old.service",
    "pm2/ecosystem.config.json",
    "systemd/together",
]


def files_of(sample: str) -> list[Path]:
    """The files of a sample: itself, or what is in the directory, in order."""
    path = SAMPLES / sample
    return sorted(path.iterdir()) if path.is_dir() else [path]


def result(sample: str) -> dict[str, Any]:
    """The findings and files of a sample, with names in place of what is particular to this machine."""
    path = SAMPLES / sample
    loaded = [sources.load(str(one), environment="production") for one in files_of(sample)]
    sources.settle(loaded)
    findings = [finding for source in loaded for finding in source.findings]
    found = {
        "kind": loaded[0].kind,
        "findings": [str(finding) for finding in findings],
        "mapped": sorted(
            f"{finding.process or '-'}: {finding.key}" for finding in findings if finding.result == "mapped"
        ),
        "files": {draft.name: json.loads(sources.encode(draft)) for source in loaded for draft in source.drafts},
    }
    for config in found["files"].values():
        for variable in ("HOME", "SHELL"):
            if variable in config.get("env", {}) and sample != "crontab/crontab":
                config["env"][variable] = f"({variable})"
        if config.get("env", {}).get("HOME") and "crontab" in sample:
            config["env"]["HOME"] = config["cwd"] = "(HOME)"
    text = json.dumps(found, ensure_ascii=False)
    for place, name in (
        (str(path.parent), "(HERE)"),
        (sys.executable, "(PYTHON)"),
        (f"@{platform.node()}", "@(HOST)"),
        (os.environ["PATH"], "(PATH)"),
        (os.path.expanduser("~") + '"', '(HOME)"'),
        (pwd.getpwuid(0).pw_dir + '"', '(HOME)"'),  # of a unit without a user
    ):
        text = text.replace(place, name)
    done: dict[str, Any] = json.loads(text)
    done["findings"] = [line for line in done["findings"] if ": mapped: " not in line]
    return done


def expected(sample: str) -> Path:
    """The file with what is expected of a sample."""
    return SAMPLES / f"{sample}.expected.json"


if __name__ == "__main__":
    for one in IMPORTED:
        expected(one).write_text(json.dumps(result(one), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
