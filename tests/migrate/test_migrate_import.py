"""`ncolony import`: what becomes of the files of other supervisors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import migrate_golden
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncolony import cli
from ncolony.cli.migrate import sources, supervisord, systemd
from ncolony.cli.migrate.report import ERROR, MAPPED, NOT_MAPPED, NOTE, Source
from ncolony.model import config


def load(path: Path, text: str, kind: str = "") -> Source:
    """What is found in a file with this text."""
    path.write_text(text, encoding="utf-8")
    source = sources.load(str(path), kind)
    sources.settle([source])
    return source


def configs(source: Source) -> dict[str, Any]:
    """The config files that would be written, decoded."""
    return {draft.name: json.loads(sources.encode(draft)) for draft in source.drafts}


def program(tmp_path: Path, *lines: str) -> dict[str, Any]:
    """The config of a program of supervisord with these lines."""
    source = load(tmp_path / "supervisord.conf", "\n".join(["[program:p]", "command=/bin/p", *lines]))
    assert not source.count(ERROR), source.findings
    [found] = configs(source).values()
    assert isinstance(found, dict)
    return found


def service(tmp_path: Path, *lines: str, name: str = "p.service") -> dict[str, Any]:
    """The config of a unit with these lines."""
    text = "\n".join(["[Service]", *lines, *([] if any("ExecStart=" in x for x in lines) else ["ExecStart=/bin/p"])])
    source = load(tmp_path / name, text)
    assert not source.count(ERROR), source.findings
    [found] = configs(source).values()
    assert isinstance(found, dict)
    return found


def app(tmp_path: Path, **keys: Any) -> dict[str, Any]:
    """The config of an app of pm2 with these keys."""
    text = json.dumps({"apps": [{"name": "p", "script": "/bin/p", **keys}]})
    source = load(tmp_path / "ecosystem.config.json", text)
    assert not source.count(ERROR), source.findings
    [found] = configs(source).values()
    assert isinstance(found, dict)
    return found


# --- the samples ---


@pytest.mark.parametrize("sample", migrate_golden.IMPORTED)
def test_sample_is_imported_as_expected(sample: str) -> None:
    """Findings and files of each sample are those that were looked at and kept."""
    assert migrate_golden.result(sample) == json.loads(migrate_golden.expected(sample).read_text(encoding="utf-8"))


@pytest.mark.parametrize("sample", migrate_golden.IMPORTED)
def test_what_is_imported_passes_the_check(
    sample: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ncolony ctl check` has nothing against the files of a sample together, but that programs are not here."""
    monkeypatch.setenv("NO_COLOR", "1")
    files = [str(path) for path in migrate_golden.files_of(sample)]
    cli.main(["import", *files, str(tmp_path / "conf")])
    capsys.readouterr()
    if not list((tmp_path / "conf").iterdir()):
        return
    assert cli.main(["ctl", "check", str(tmp_path / "conf"), "--no-strict-modes"]) == 0
    told = capsys.readouterr()
    warnings = [line for line in (told.out + told.err).splitlines() if line.startswith("warning:")]
    not_here = ("there is no ",)
    assert [line for line in warnings if not any(word in line for word in not_here)] == []


def sampled_keys(*names: str) -> set[str]:
    """The keys that the findings of some samples are about."""
    found: set[str] = set()
    for name in names:
        source = sources.load(str(migrate_golden.SAMPLES / name))
        found |= {finding.key.rpartition(".")[2] for finding in source.findings}
    return found


def test_samples_hold_every_key_of_a_program() -> None:
    """The sample of supervisord holds each key that [program:x], [supervisord] and [group:x] document."""
    found = sampled_keys("supervisord/supervisord.conf")
    documented = {*supervisord.PROGRAM_KEYS, *supervisord.GLOBAL_KEYS, *supervisord.GROUP_KEYS}
    assert documented <= found


def test_no_key_of_a_sample_is_dropped() -> None:
    """Every KEY=VALUE line of the sample of supervisord has a finding of its own."""
    path = migrate_golden.SAMPLES / "supervisord" / "supervisord.conf"
    source = sources.load(str(path))
    lines = {finding.line for finding in source.findings if finding.file == str(path)}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if "=" in line and not line.startswith((";", " ")):
            assert number in lines, line


@pytest.mark.parametrize("sample", ["shop", "prepared", "once@blue"])
def test_no_line_of_a_unit_is_dropped(sample: str) -> None:
    """Every assignment of a sample unit has a finding of its own."""
    path = migrate_golden.SAMPLES / "systemd" / f"{sample}.service"
    source = sources.load(str(path))
    sources.settle([source])
    lines = {finding.line for finding in source.findings}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if "=" in line and not line.startswith((" ", "#")):
            assert number in lines, line


def test_no_key_of_an_app_is_dropped() -> None:
    """Every key of every app in the sample of pm2 has a finding."""
    path = migrate_golden.SAMPLES / "pm2" / "ecosystem.config.json"
    source = sources.load(str(path))
    from ncolony.cli.migrate import json5

    for node in json5.parse(path.read_text(encoding="utf-8")).value["apps"].value:
        told = {(finding.process, finding.key) for finding in source.findings}
        name = node.value["name"].value
        assert {(name, key) for key in node.value} <= told


# --- supervisord ---


@pytest.mark.parametrize(
    ("line", "restart"),
    [
        ("", "on-failure"),
        ("autorestart=true", "always"),
        ("autorestart=no", "never"),
        ("autorestart=unexpected", "on-failure"),
    ],
)
def test_supervisord_restart(tmp_path: Path, line: str, restart: str) -> None:
    """autorestart is restart; without it a program is restarted after unexpected exits, as supervisord does."""
    assert program(tmp_path, line)["restart"] == restart


def test_supervisord_comments_end_values(tmp_path: Path) -> None:
    """A semicolon or # behind a space ends a value, in quotes too; one within a word does not."""
    assert program(tmp_path, 'environment=A="x;y",B=z ; a comment', "directory=/a#b")["env"] == {"A": "x;y", "B": "z"}
    source = load(tmp_path / "s.conf", "[program:p]\ncommand=sh -c 'a ; b'")
    assert source.count(ERROR) == 1
    assert "no closing quotation" in source.findings[0].why


def test_supervisord_environment_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """%(ENV_X)s is what X is here, or in the environment of [supervisord]; an unknown one is an error of its line."""
    monkeypatch.setenv("COLOUR", "red")
    monkeypatch.delenv("NO_SUCH", raising=False)
    text = '[supervisord]\nenvironment=SIZE="big"\n[program:p]\ncommand=p %(ENV_COLOUR)s %(ENV_SIZE)s %%\n'
    assert configs(load(tmp_path / "s.conf", text))["p"]["args"] == ["p", "red", "big", "%"]
    source = load(tmp_path / "t.conf", "[program:p]\ncommand=p\ndirectory=%(ENV_NO_SUCH)s\n[program:q]\ncommand=q")
    [error] = [finding for finding in source.findings if finding.result == ERROR]
    assert (error.line, error.key, error.process) == (3, "directory", "p")
    assert "NO_SUCH" in error.why
    assert list(configs(source)) == ["q"]


@pytest.mark.parametrize("text", ["%(process_num)0999999999d", "%(process_num", "50%", "%(here)d", "%(process_num)q"])
def test_supervisord_bad_expansions(tmp_path: Path, text: str) -> None:
    """A format that Python would not fill in, or only with gigabytes, is an error with its line."""
    source = load(tmp_path / "s.conf", f"[program:p]\ncommand=/bin/p {text}")
    assert [finding.line for finding in source.findings if finding.result == ERROR] == [2]
    assert not source.drafts


def test_supervisord_copies(tmp_path: Path) -> None:
    """Copies that differ in name alone are instances; those that use their number elsewhere get a file each."""
    alike = "[program:w]\ncommand=w\nnumprocs=3\nprocess_name=%(program_name)s_%(process_num)02d"
    assert configs(load(tmp_path / "a.conf", alike))["w"]["instances"] == 3
    found = configs(load(tmp_path / "b.conf", alike.replace("command=w", "command=w %(process_num)d of %(numprocs)d")))
    assert {name: one["args"] for name, one in found.items()} == {
        f"w_0{number}": ["w", str(number), "of", "3"] for number in range(3)
    }
    assert all(one["group"] == ["w"] for one in found.values())
    source = load(tmp_path / "c.conf", "[program:w]\ncommand=w %(process_num)d\nnumprocs=3")
    assert "process_num" in next(finding.why for finding in source.findings if finding.result == ERROR)


def test_supervisord_include(tmp_path: Path) -> None:
    """Included files are read in order, %(here)s is the directory of each, and their findings name them."""
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "b.conf").write_text("[program:b]\ncommand=%(here)s/b\npriority=3")
    (tmp_path / "conf.d" / "a.conf").write_text("[program:a]\ncommand=%(here)s/a")
    source = load(tmp_path / "s.conf", "[include]\nfiles = conf.d/*.conf none/*.ini")
    assert {name: one["args"] for name, one in configs(source).items()} == {
        "a": [f"{tmp_path}/conf.d/a"],
        "b": [f"{tmp_path}/conf.d/b"],
    }
    assert any(one.file.endswith("b.conf") and one.line == 3 and one.key == "priority" for one in source.findings)
    assert any(one.why == "no file matches none/*.ini" for one in source.findings)


def test_supervisord_include_of_a_fifo(tmp_path: Path) -> None:
    """What is included and is no regular file is an error, and is not waited for."""
    os.mkfifo(tmp_path / "pipe.conf")
    source = load(tmp_path / "s.txt", "[include]\nfiles = *.conf\n[program:a]\ncommand=a")
    assert [one.why for one in source.findings if one.result == ERROR] == ["cannot read it: not a regular file"]
    assert list(configs(source)) == ["a"]


def test_supervisord_stop(tmp_path: Path) -> None:
    """The stop signal, its time and its scope are those of supervisord, its defaults included."""
    assert program(tmp_path)["kill_time"] == 10
    assert program(tmp_path)["stop_scope"] == "process"
    found = program(tmp_path, "stopsignal=SIGINT", "stopwaitsecs=3", "stopasgroup=true")
    assert found["stop"] == [["INT", 3]]
    assert "stop_scope" not in found


def test_passwords_are_not_repeated(tmp_path: Path) -> None:
    """No finding shows a password."""
    source = load(
        tmp_path / "s.conf", "[inet_http_server]\nport=:9001\nusername=me\npassword=hunter2\n[program:a]\ncommand=a"
    )
    assert "hunter2" not in repr(source.findings)
    assert any(one.key == "inet_http_server.password" for one in source.findings)


# --- systemd ---


@pytest.mark.parametrize(
    ("written", "args"),
    [
        (r'/bin/p "a b" c\x20d "e\"f" g\'"h i"', ["/bin/p", "a b", "c d", 'e"f', "g'h i"]),
        ("/bin/p ';' \\; 'a;b'", ["/bin/p", ";", ";", "a;b"]),
        ("/bin/p $$HOME 100%% %n %p", ["/bin/p", "$HOME", "100%", "p.service", "p"]),
        ("/bin/p ${A} $A x${A}y $B", ["/bin/p", "1 2", "1", "2", "x1 2y", "$B"]),
        (":/bin/p $A ${A} $$", ["/bin/p", "$A", "${A}", "$$"]),
        ("@/bin/p other x", ["/bin/p", "x"]),
        ("/bin/p \\\n  # a comment\n  x", ["/bin/p", "x"]),
    ],
)
def test_systemd_command_lines(tmp_path: Path, written: str, args: list[str]) -> None:
    """Quotes, escapes, specifiers, variables and prefixes mean what they mean to systemd."""
    env = 'Environment="A=1 2" B=$B'
    assert service(tmp_path, env, f"ExecStart={written}")["args"] == args


def test_systemd_commands_by_shell(tmp_path: Path) -> None:
    """What a shell must do for it, preparations and unknown variables, gives the same arguments when it is run."""
    (tmp_path / "env").write_text("OPTIONS=-a -b\nDIR=/x y\n")
    show = f'{sys.executable} -c "import json,sys; print(json.dumps(sys.argv[1:]))"'
    found = service(
        tmp_path,
        f"EnvironmentFile={tmp_path}/env",
        f"ExecStartPre=/bin/mkdir -p {tmp_path}/made",
        "ExecStartPre=-/bin/false",
        f"ExecStart={show} $OPTIONS --dir=${{DIR}} $$5 'it''s' $NONE",
    )
    env = {**found["env"], "OPTIONS": "-a -b", "DIR": "/x y"}
    done = subprocess.run(found["args"], env=env, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["-a", "-b", "--dir=/x y", "$5", "its"]
    assert (tmp_path / "made").is_dir()


def test_systemd_forking_is_refused(tmp_path: Path) -> None:
    """A program that goes into the background is not written, and the line says why."""
    source = load(tmp_path / "old.service", "[Service]\nType=forking\nExecStart=/usr/sbin/old")
    assert not source.drafts
    assert [(one.line, one.result) for one in source.findings] == [(2, NOT_MAPPED)]


def test_systemd_defaults_are_said_aloud(tmp_path: Path) -> None:
    """A unit that says nothing behaves as it did: no restart, 90 s to stop, the root directory, systemd's PATH."""
    assert service(tmp_path) == {
        "args": ["/bin/p"],
        "env": {"PATH": systemd.PATH},
        "cwd": "/",
        "restart": "never",
        "kill_time": 90,
    }


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["Restart=always"], {"restart": "always", "give_up": {"failures": 5, "within": 10}, "min_restart_delay": 0.1}),
        (["Restart=always", "RestartPreventExitStatus=3"], {"restart": "on-failure", "success_codes": [3]}),
        (["Restart=on-failure", "SuccessExitStatus=TEMPFAIL 2"], {"success_codes": [0, 2, 75]}),
        (["Restart=always", "StartLimitInterval=0", "RestartSec=1min 2s"], {"min_restart_delay": 62, "give_up": None}),
        (["TimeoutStopSec=infinity"], {"kill_time": 31_536_000}),
        (["KillSignal=SIGQUIT", "TimeoutSec=5"], {"stop": [["QUIT", 5]], "kill_time": None}),
        (["SendSIGHUP=yes", "TimeoutStopSec=5"], {"stop": [["TERM", 0], ["HUP", 5]]}),
        (["ExecStop=/bin/kill -s INT $MAINPID", "TimeoutStopSec=5"], {"stop": [["INT", 5]]}),
        (["KillMode=mixed"], {"stop_scope": "process"}),
        (
            ["LimitNOFILE=10:20", "LimitCPU=2min", "LimitNICE=-5"],
            {"limits": {"nofile": [10, 20], "cpu": 120, "nice": 25}},
        ),
        (["LimitFSIZE=infinity:1M"], None),
        (["Nice=30"], None),
        (["Environment=A=1", "Environment=", "Environment=B=2 PATH=/b"], {"env": {"B": "2", "PATH": "/b"}}),
        (
            ["UMask=0077", "OOMScoreAdjust=-5", "MemoryMax=1G"],
            {"umask": "0077", "oom_score_adj": -5, "memory_max": 2**30},
        ),
    ],
)
def test_systemd_directives(tmp_path: Path, lines: list[str], expected: dict[str, Any] | None) -> None:
    """Each directive becomes its counterpart; a value that is out of bounds is an error."""
    source = load(tmp_path / "p.service", "\n".join(["[Service]", "ExecStart=/bin/p", *lines]))
    try:
        [found] = configs(source).values()
    except (ValueError, sources.Refused):
        assert expected is None
        return
    assert expected is not None
    assert {key: found.get(key) for key in expected} == expected


def test_systemd_knows_systemds_directives() -> None:
    """The tables hold every directive that the systemd of this machine knows for services."""
    program = next(
        (path for path in ("/lib/systemd/systemd", "/usr/lib/systemd/systemd") if os.path.exists(path)), None
    )
    if program is None:
        pytest.skip("systemd is not installed")
    dump = subprocess.run([program, "--dump-configuration-items"], capture_output=True, text=True, check=False).stdout
    section, missing = "", []
    known = {"Unit": systemd.UNIT_KEYS, "Service": systemd.SERVICE_KEYS, "Install": systemd.INSTALL_KEYS}
    for line in dump.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif section in known and "=" in line:
            key = line.partition("=")[0]
            if key not in known[section] and not key.startswith(("Condition", "Assert")):
                missing.append(f"{section}.{key}")
    assert dump
    assert missing == []


# --- pm2 ---


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"script": "/a/x.py", "args": "-v 'a b'"}, {"args": ["python3", "/a/x.py", "-v", "a b"]}),
        ({"script": "/a/x.js", "node_args": ["--a"]}, {"args": ["node", "--a", "/a/x.js"]}),
        (
            {"instances": "max", "exec_mode": "fork"},
            {"instances": os.cpu_count() if (os.cpu_count() or 1) > 1 else None},
        ),
        ({"instances": 3}, {"instances": 3}),
        ({"max_memory_restart": "1.5G"}, {"memory_max": 3 * 2**29}),
        ({"kill_timeout": 4000}, {"stop": [["INT", 4]]}),
        ({"min_uptime": "1h", "max_restarts": 2}, {"threshold": 3600, "give_up": {"failures": 2, "within": 7200}}),
        ({"restart_delay": 1500}, {"min_restart_delay": 1.5, "max_restart_delay": 1.5, "give_up": None}),
        ({"exp_backoff_restart_delay": 100}, {"min_restart_delay": 0.1, "max_restart_delay": 15}),
        ({"autorestart": False}, {"restart": "never", "give_up": None}),
        ({"stop_exit_codes": [0, "42"]}, {"restart": "on-failure", "success_codes": [0, 42]}),
        ({"user": "www", "gid": 33}, {"uid": "www", "gid": 33}),
        ({"cwd": "/srv", "out": "a.log", "err": "/b.log"}, {"log": {"stdout": "/srv/a.log", "stderr": "/b.log"}}),
        ({"log": "/c.log"}, {"log": {"stdout": "/c.log"}}),
    ],
)
def test_pm2_keys(tmp_path: Path, keys: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each key of an app, by any of its spellings, becomes its counterpart."""
    found = app(tmp_path, **keys)
    assert {key: found.get(key) for key in expected} == expected


def test_pm2_program_is_not_run(tmp_path: Path) -> None:
    """An ecosystem.config.js is refused with the command that converts it."""
    source = load(tmp_path / "ecosystem.config.js", "// ours\nmodule.exports = {apps: []}")
    assert [one.result for one in source.findings] == [ERROR]
    assert "JSON.stringify" in source.findings[0].why


def test_pm2_environment(tmp_path: Path) -> None:
    """Another environment's variables are left out with a note, and taken when it is asked for."""
    path = tmp_path / "ecosystem.json"
    path.write_text('{"apps": [{"script": "/a.js", "env": {"A": 1}, "env_prod": {"A": true}}]}')
    assert configs(sources.load(str(path)))["a"]["env"] == {"A": "1"}
    assert configs(sources.load(str(path), environment="prod"))["a"]["env"] == {"A": "true"}


def test_pm2_half_a_character(tmp_path: Path) -> None:
    """Text that is none, which JSON can express, is an error with its line."""
    source = load(tmp_path / "p.json", '{"apps": [\n{"name": "\\ud800", "script": "/a"}]}')
    assert [(one.result, one.line) for one in source.findings] == [(ERROR, 2)]


def test_large_files_take_no_time(tmp_path: Path) -> None:
    """Large files that are all comments, spaces or lines are answered without trying every way to split them."""
    spaces = " " * 200_000
    for kind, text in (
        ("pm2", "//" + " " * 50 + "\n" + ("// x" + " " * 50 + "\n") * 5000 + "{]"),
        ("supervisord", f"[program:x]\ncommand{spaces}x"),
        ("crontab", f"A{spaces}x\n" + "*/5 * * * * job\n" * 5000),
        ("systemd", f"[Service]\nExecStart=/bin/x {spaces}\nRestart{spaces}"),
        ("procfile", f"a{spaces}\n" + "".join(f"a{number}: x\n" for number in range(5000))),
    ):
        assert load(tmp_path / "large", text, kind).findings


# --- Procfile and crontab ---


def test_procfile_ports_and_env(tmp_path: Path) -> None:
    """Each line has its port; a plain .env is read at each start, one with quotes or PORT is copied."""
    text = "web: run $PORT\nclock: tick"
    assert {name: one["env"] for name, one in configs(load(tmp_path / "Procfile", text)).items()} == {
        "web": {"PORT": "5000"},
        "clock": {"PORT": "5100"},
    }
    (tmp_path / ".env").write_text("A=1\n# comment\n\nB=x:y/z\n")
    found = configs(load(tmp_path / "Procfile", text))
    assert found["web"]["env_file"] == f"{tmp_path}/.env"
    (tmp_path / ".env").write_text("PORT=6000\nA='x y'\nexport B=\"a\\nb\"\n")
    found = configs(load(tmp_path / "Procfile", text))
    assert found["clock"]["env"] == {"PORT": "6100", "A": "x y", "B": "a\nb"}
    assert "env_file" not in found["clock"]


def test_procfile_errors(tmp_path: Path) -> None:
    """A line that is none, or a name that is used twice, is an error with its line; the others are written."""
    source = load(tmp_path / "Procfile", "web: a\nwhat is this\nweb: b")
    assert [one.line for one in source.findings if one.result == ERROR] == [2, 3]
    assert list(configs(source)) == ["web"]


@pytest.mark.parametrize(
    ("when", "cron"),
    [
        ("* * * * *", "* * * * *"),
        ("*/5 * * * *", "*/5 * * * *"),
        ("0-59/15 * * * *", "*/15 * * * *"),
        ("3,33 * * * *", "3,33 * * * *"),
        ("@hourly", "0 * * * *"),
        ("@DAILY", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@yearly", "0 0 1 1 *"),
        ("0 22 * jan-mar mon-fri", "0 22 * 1-3 1-5"),
        ("0 0 * * 5-7", "0 0 * * 0,5,6"),
        ("30 4 1,15 * 5", "30 4 1,15 * 5"),
        ("0 0 */2 * 1", "0 0 */2 * 1"),
        ("0 0 1-31 * 1", "0 0 * * *"),
        ("0 0 10-31/2 * *", "0 0 10-30/2 * *"),
    ],
)
def test_cron_times(tmp_path: Path, when: str, cron: str) -> None:
    """A line is a job at the same times, whether it has five fields or a word, with names as numbers."""
    [found] = configs(load(tmp_path / "crontab", f"{when} run --fast\n")).values()
    assert found["schedule"] == {"cron": cron}
    assert found["args"] == ["/bin/sh", "-c", "run --fast"]


def test_cron_time_zones_and_delays(tmp_path: Path) -> None:
    """CRON_TZ and RANDOM_DELAY hold for the jobs below them, TZ is for the job alone, and what is no zone is said."""
    text = "TZ=UTC\n@daily a\nCRON_TZ=Europe/Berlin\nRANDOM_DELAY=5\n@daily b\nCRON_TZ=UTC+3\n@daily c\n"
    text += "CRON_TZ=\n@daily d\n"
    source = load(tmp_path / "crontab", text)
    found = configs(source)
    assert found["a"]["schedule"] == {"cron": "0 0 * * *"}
    assert found["a"]["env"]["TZ"] == "UTC"
    assert found["b"]["schedule"] == {"cron": "0 0 * * *", "timezone": "Europe/Berlin", "jitter": 300}
    assert not {"CRON_TZ", "RANDOM_DELAY"} & set(found["b"]["env"])
    assert found["d"]["schedule"] == {"cron": "0 0 * * *", "jitter": 300}
    assert set(found) == {"a", "b", "d"}
    assert [(one.line, one.key) for one in source.findings if one.result == NOT_MAPPED] == [(7, "CRON_TZ")]


def test_cron_by_chance(tmp_path: Path) -> None:
    """A time that cron would choose by chance is not guessed."""
    source = load(tmp_path / "crontab", "0~59 3 * * * run\n", "crontab")
    assert not source.drafts
    assert [one.result for one in source.findings] == [NOT_MAPPED]


@pytest.mark.parametrize("when", ["60 * * * *", "* 24 * * *", "5-1 * * * *", "*/0 * * * *", "x * * * *", "* * * foo *"])
def test_cron_bad_times(tmp_path: Path, when: str) -> None:
    """A time that is none is an error with its line."""
    source = load(tmp_path / "crontab", f"# mine\n{when} run")
    assert [(one.result, one.line) for one in source.findings] == [(ERROR, 2)]


def test_cron_standard_input(tmp_path: Path) -> None:
    """What follows an unescaped % is the command's standard input, a line per further %, as cron has it."""
    source = load(tmp_path / "crontab", "@reboot cat; echo 100\\%%first%second\\%%third\n")
    [found] = configs(source).values()
    done = subprocess.run(found["args"], env=found["env"], capture_output=True, text=True, check=True)
    assert done.stdout == "first\nsecond%\nthird\n100%\n"


def test_cron_with_users(tmp_path: Path) -> None:
    """Where each line names a user that is known here, the sixth column is the user."""
    assert load(tmp_path / "crontab", "*/5 * * * * root date\n").kind == "system-crontab"
    assert load(tmp_path / "crontab", "*/5 * * * * root\n").kind == "crontab"
    [found] = configs(load(tmp_path / "crontab", "*/5 * * * * root date\n")).values()
    assert found["uid"] == "root"


# --- kinds, names, files ---


@pytest.mark.parametrize("kind", ["supervisord", "procfile", "crontab", "systemd", "pm2"])
@given(data=st.binary(max_size=400))
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_answered(tmp_path_factory: pytest.TempPathFactory, kind: str, data: bytes) -> None:
    """Whatever bytes a file holds, each kind of source has findings, files or nothing, and never a traceback."""
    path = tmp_path_factory.getbasetemp() / "bytes"
    path.write_bytes(data)
    source = sources.load(str(path), kind)
    sources.settle([source])
    write_all(source)


PIECES = {
    "supervisord": (
        "[program:a] [program:b] [supervisord] [group:x] [include] files=none command= numprocs="
        " process_name= programs= environment= startretries= stdout_logfile= stopsignal= exitcodes="
        " autorestart= user= umask= %(ENV_HOME)s"
        ' %(process_num)02d %( % %% , " \' \\ / 1 2 99999999999 true a=b A="b" ; # : NONE AUTO KB \u2028 \x85 é'
    ),
    "procfile": "web: worker: a b : # $PORT \" ' é",
    "crontab": "~ CRON_TZ=UTC RANDOM_DELAY=3 * */5 0-59/2 6#2"
    " @reboot @hourly @daily root SHELL= PATH= HOME=/ MAILTO= = % \\% , - / 7 jan mon \" ' é",
    "systemd": (
        "[Unit] [Service] [Install] [Socket] [Timer] After=a.service Before=b.service Requires= BindsTo= PartOf=pieces"
        " Type=notify Type=oneshot WatchdogSec= TimeoutStartSec= Sockets= ListenStream= ListenDatagram= Backlog="
        " SocketMode= Accept= FileDescriptorName= OnCalendar= OnUnitActiveSec= OnBootSec= RandomizedDelaySec="
        " Persistent= daily Mon *-*-1/2 10:00 [::]:80 80 0660"
        " [X-NColony] Instances= ExecStart= ExecStartPre= ExecStop= Type= Restart="
        " RestartSec= Environment= EnvironmentFile= PassEnvironment= LimitNOFILE= LimitCPU= LimitNICE="
        " KillSignal= TimeoutStopSec= WorkingDirectory= UMask= User= Nice= StandardOutput= StandardError= MemoryMax="
        " SuccessExitStatus= /bin/a $A"
        " ${A} $$ %i %n %% %h % -@:+! ; \\; \\x41 \\u0041 \\xff \\ \" ' ~ 5 1:2 infinity oneshot file:/x null é \x85"
    ),
    "pm2": (
        '{ } [ ] , : "apps" "name" "script" "args" "env" "instances" "min_uptime" "cwd" "out_file" "uid" "a" "1" "max"'
        ' "10s" 1 -1 1e400 0.5 true null // /* */ \'x\' x \\ "é'
    ),
}


@pytest.mark.parametrize("kind", sorted(PIECES))
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_pieces_are_answered(tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject) -> None:
    """Whatever is put together from the words of a format is answered, and what would be written is legal."""
    piece = st.sampled_from([*PIECES[kind].split(" "), "\n", "\n", "\n", " ", " "])
    text = "".join(data.draw(st.lists(piece, max_size=40)))
    path = tmp_path_factory.getbasetemp() / "pieces.service"
    path.write_text(text, encoding="utf-8")
    source = sources.load(str(path), kind)
    sources.settle([source])
    write_all(source)


def write_all(source: Source) -> None:
    """What is written is legal, or refused in words."""
    for draft in source.drafts:
        try:
            data = sources.encode(draft)
        except sources.Refused as refused:
            assert refused.why
            continue
        found = config.define(draft.name, data)
        assert isinstance(found, config.Definition)
        assert not found.warnings
    for finding in source.findings:
        assert finding.result in (MAPPED, NOTE, NOT_MAPPED, ERROR)
        assert "\n" not in str(finding)


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("x.service", "", "systemd"),
        ("Procfile", "", "procfile"),
        ("Procfile.dev", "", "procfile"),
        ("process.json", "", "pm2"),
        ("shop.conf", "[program:x]\n", "supervisord"),
        ("shop.ini", "; x\n[supervisord]\n", "supervisord"),
        ("jobs", "*/5 * * * * x y\n", "crontab"),
        ("some", "[Unit]\n[Service]\n", "systemd"),
    ],
)
def test_kinds_are_told_by_name_and_content(name: str, text: str, kind: str) -> None:
    """The kind of a source is told by its name, else by what it holds."""
    assert sources.kind_of(name, text) == kind


def test_unknown_kind_is_said(tmp_path: Path) -> None:
    """A file of which nobody can tell what it is is an error that names --kind."""
    source = load(tmp_path / "notes.txt", "buy milk")
    assert "--kind" in source.findings[0].why
    assert source.findings[0].result == ERROR


@pytest.mark.parametrize(
    ("name", "legal"),
    [("web", "web"), ("a/b", "a-b"), (".x", "x"), ("x.bak", "x-bak"), ("#x#", "x"), ("web:0", "web-0"), ("a\tb", "a-b"),
     ("", "process"), ("é" * 200, "é" * 125), ("~", "process"), ("web site", "web site")],
)  # fmt: skip
def test_names_are_made_legal(name: str, legal: str) -> None:
    """A name that cannot be a file's becomes one that can, never one that a copy would have."""
    from ncolony.cli.migrate.words import legal_name

    assert legal_name(name) == legal


def test_names_that_collide_are_changed(tmp_path: Path) -> None:
    """Two programs of one name get two files, and a note says so."""
    one = load(tmp_path / "a.conf", "[program:web]\ncommand=a")
    two = load(tmp_path / "b.conf", "[program:web]\ncommand=b")
    sources.settle([one, two])
    assert [draft.name for source in (one, two) for draft in source.drafts] == ["web", "web-2"]
    assert any("called web-2" in finding.why for finding in two.findings)


def run(*words: str | Path) -> int:
    """`ncolony import` with these words, in this process."""
    return cli.main(["import", *map(str, words)])


def test_files_are_written_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is written is unchanged the second time, and a file that differs is not replaced without --force."""
    conf = tmp_path / "supervisord.conf"
    conf.write_text("[program:web]\ncommand=/bin/web")
    out = tmp_path / "new" / "conf"
    assert run(conf, out) == 0
    assert "web: written" in capsys.readouterr().out
    assert isinstance(config.decode("web", (out / "web").read_bytes()), config.ProcessConfig)
    (out / "web").write_text(json.dumps(json.loads((out / "web").read_text())))
    assert run(conf, out) == 0
    assert "web: unchanged" in capsys.readouterr().out
    (out / "web").write_text('{"args": ["other"]}')
    assert run(conf, out) == 1
    assert "--force" in capsys.readouterr().err
    assert json.loads((out / "web").read_text()) == {"args": ["other"]}
    assert run(conf, out, "--force") == 0
    assert json.loads((out / "web").read_text())["args"] == ["/bin/web"]


def test_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--dry-run shows the files and leaves the directory unmade."""
    (tmp_path / "Procfile").write_text("web: serve")
    assert run(tmp_path / "Procfile", tmp_path / "conf", "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "web: would be written" in shown
    assert '"serve"' in shown
    assert not (tmp_path / "conf").exists()


def test_strict_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--strict makes an error of what is not mapped; --json tells file, line, key, value and reason as data."""
    conf = tmp_path / "s.conf"
    conf.write_text("[program:web]\ncommand=/bin/web\nstdout_syslog=true\npriority=1")
    assert run(conf, tmp_path / "a") == 0
    assert run(conf, tmp_path / "b", "--strict") == 1
    capsys.readouterr()
    assert run(conf, tmp_path / "c", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    [source] = told["sources"]
    assert (source["kind"], source["mapped"], source["notes"], source["not_mapped"]) == ("supervisord", 1, 1, 1)
    [lost] = [one for one in source["findings"] if one["result"] == "not mapped"]
    assert (lost["file"], lost["line"], lost["key"], lost["value"]) == (str(conf), 3, "stdout_syslog", "true")
    assert lost["why"]
    assert [(one["name"], one["result"]) for one in told["files"]] == [("web", "written")]


def test_one_bad_source_keeps_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A source that cannot be read is one line and exit status 1; the others are written."""
    (tmp_path / "Procfile").write_text("web: serve")
    (tmp_path / "latin.conf").write_bytes(b"[program:\xe9]\ncommand=x")
    code = run(tmp_path / "Procfile", tmp_path / "missing.conf", tmp_path / "latin.conf", tmp_path, tmp_path / "conf")
    assert code == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("cannot import ") for line in lines)
    assert [path.name for path in (tmp_path / "conf").iterdir()] == ["web"]


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a directory the exit status is 2."""
    assert run("Procfile") == 2
    assert "usage" in capsys.readouterr().err
