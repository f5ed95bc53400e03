"""The migration guide says what the importers do, key by key, and names every option."""

from __future__ import annotations

import argparse
import re

import migrate_tables
import pytest

from ncolony.cli import export, import_
from ncolony.cli.migrate import pm2, supervisord
from ncolony.model import conditions, config

PAGE = migrate_tables.PAGE.read_text(encoding="utf-8")


def test_tables_are_the_importers() -> None:
    """Every table of the guide is the table that its importer goes by (migrate_tables.py writes them)."""
    assert migrate_tables.filled(PAGE) == PAGE


@pytest.mark.parametrize("name", sorted(migrate_tables.TABLES))
def test_every_table_is_in_the_guide(name: str) -> None:
    """Each of the importers' tables has its place in the guide, with every key."""
    assert f"<!-- table {name} -->" in PAGE
    assert all(f"`{key}`" in PAGE for key in migrate_tables.TABLES[name])


def test_rows_name_real_keys() -> None:
    """What a row says a key becomes is a key of ours, where it says one."""
    inner = {
        "log": config.LogConfig.__struct_fields__,
        "give_up": config.GiveUp.__struct_fields__,
        "ready": conditions.Ready.__struct_fields__,
        "schedule": conditions.Schedule.__struct_fields__,
    }
    for table in migrate_tables.TABLES.values():
        for rule in table.values():
            for first, last in re.findall(r"`(log|give_up|ready|schedule)\.(\w+)`", rule.text):
                assert last in inner[first], rule.text
            if rule.fate == "mapped" and (word := re.match(r"`([a-z_]+)`", rule.text)):
                assert word[1] in config.KNOWN_KEYS, rule.text


def test_documented_keys_of_supervisord_are_known() -> None:
    """The table has each key that supervisord 4.3 documents for a program."""
    documented = """command process_name numprocs numprocs_start priority autostart startsecs startretries autorestart
        exitcodes stopsignal stopwaitsecs stopasgroup killasgroup user redirect_stderr stdout_logfile
        stdout_logfile_maxbytes stdout_logfile_backups stdout_capture_maxbytes stdout_events_enabled stdout_syslog
        stderr_logfile stderr_logfile_maxbytes stderr_logfile_backups stderr_capture_maxbytes stderr_events_enabled
        stderr_syslog environment directory umask serverurl"""
    assert set(supervisord.PROGRAM_KEYS) == set(documented.split())


def test_spellings_of_pm2_are_known() -> None:
    """Every other spelling stands for a key that is in the table."""
    assert set(pm2.ALIASES.values()) <= set(pm2.KEYS)


@pytest.mark.parametrize("parser", [import_.build(), export.build()], ids=["import", "export"])
def test_options_are_explained(parser: argparse.ArgumentParser) -> None:
    """Every option of the two commands has a row in the guide."""
    options = {option for action in parser._actions for option in action.option_strings if option.startswith("--")}
    assert {option for option in options if f"| `{option}" not in PAGE} == {"--help"}
