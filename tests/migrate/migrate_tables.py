"""The tables of the migration guide, made from those that the importers go by. Run it to write them into the page."""

from __future__ import annotations

import re
from pathlib import Path

from ncolony.cli.migrate import crontab, pm2, procfile, supervisord, systemd, systemd_socket, systemd_timer
from ncolony.cli.migrate.report import Key

PAGE = Path(__file__).resolve().parents[2] / "docs" / "migration.md"
TABLES: dict[str, dict[str, Key]] = {
    "program": supervisord.PROGRAM_KEYS,
    "supervisord": supervisord.GLOBAL_KEYS,
    "group": supervisord.GROUP_KEYS,
    "sections": supervisord.OTHER_SECTIONS,
    "service": systemd.SERVICE_KEYS,
    "unit": systemd.UNIT_KEYS,
    "install": systemd.INSTALL_KEYS,
    "socket": systemd_socket.KEYS,
    "timer": systemd_timer.KEYS,
    "pm2": pm2.KEYS,
    "procfile": procfile.KEYS,
    "crontab": crontab.KEYS,
}


def table(name: str) -> str:
    """One table; keys that share their fate share a row, in the place of the first of them."""
    rows: dict[Key, list[str]] = {}
    for key, rule in TABLES[name].items():
        rows.setdefault(rule, []).append(f"`{key}`")
    lines = [f"| {', '.join(keys)} | {rule.fate} | {rule.text} |" for rule, keys in rows.items()]
    return "\n".join(["| key | fate | what becomes of it |", "|---|---|---|", *lines])


def filled(page: str) -> str:
    """The page with every table as it should be."""
    return re.sub(
        r"(<!-- table (\w+) -->\n).*?(<!-- end -->)",
        lambda found: f"{found[1]}\n{table(found[2])}\n\n{found[3]}",
        page,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
