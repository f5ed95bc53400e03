"""`ncolony export`: units that systemd takes, manifests and jobs that can be read back."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ncolony import cli
from ncolony.cli.migrate import hcl, leaving, sources, to_kubernetes, to_systemd
from ncolony.model import config

RICH: dict[str, Any] = {
    "args": [
        "/bin/sh",
        "-c",
        'echo $HOME 100% "it\'s"; exec sleep 5',
        "",
        ";",
        "naïve",
        "two\nlines",
        "${A} %{b} $(C)",
    ],
    "env": {"A": "x y", "PERCENT": "50%", "DOLLAR": "$5 $(A)", "QUOTE": "\"'\\", "bad-name": "1"},
    "env_inherit": ["LANG", "LC_*"],
    "env_file": "/etc/hostname",
    "env_secret": {"TOKEN": "/etc/hostname"},
    "uid": "root",
    "gid": 0,
    "group": ["shop", "a b"],
    "cwd": "/tmp",
    "umask": "022",
    "restart": "on-failure",
    "success_codes": [0, 3],
    "threshold": 2.5,
    "min_restart_delay": 1.5,
    "max_restart_delay": 60,
    "jitter": 0.5,
    "stop": [["INT", 10], ["TERM", 5]],
    "stop_scope": "process",
    "nice": 5,
    "oom_score_adj": 100,
    "limits": {"nofile": [1024, 4096], "core": "unlimited"},
    "give_up": {"failures": 5, "within": 60, "retry_after": 600},
    "instances": 3,
    "memory_max": "512M",
    "on_exit": "shutdown",
    "on_give_up": "shutdown",
    "rollback_if_not_ready": 30,
    "ready": {"tcp": "127.0.0.1:8080", "timeout": 20},
    "after": {"plain": "started", "once": "completed", "nosuch": "ready"},
    "check": [{"http": "http://localhost:8080/health?x=1", "period": 5.5, "grace": 10}, {"heartbeat": "/run/beat"}],
    "watchdog": 2.5,
    "sockets": {"http": "tcp:127.0.0.1:8080", "any": "tcp:localhost:0"},
    "log": {"stdout": "out.log", "stderr": True, "format": "json", "max_bytes": "1M", "keep": 5},
    "mycorp.owner": "web team",
}
PLAIN: dict[str, Any] = {"args": ["/bin/sleep", "5"]}
ONCE: dict[str, Any] = {"args": ["sleep", "5"], "restart": "never"}
OFF: dict[str, Any] = {"args": ["/bin/sleep", "5"], "enabled": False}
JOB: dict[str, Any] = {
    "args": ["/bin/sleep", "5"],
    "after": {"plain": "ready"},
    "success_codes": [0, 3],
    "schedule": {
        "cron": "30 4 1,15 * 5",
        "timezone": "Europe/Berlin",
        "jitter": 30,
        "timeout": 600,
        "grace": 3,
        "overlap": "queue",
        "retries": 2,
        "retry_delay": 5,
        "catch_up": True,
        "late_after": 30,
    },
}
KINDS = ["systemd", "kubernetes", "nomad"]


def put(directory: Path, **processes: dict[str, Any]) -> Path:
    """A directory of config files."""
    directory.mkdir()
    for name, content in processes.items():
        (directory / name.replace("__", " ")).write_text(json.dumps(content))
    return directory


@pytest.fixture
def colony(tmp_path: Path) -> Path:
    """A directory with a process of each sort."""
    return put(tmp_path / "conf", rich=RICH, plain=PLAIN, once=ONCE, off__line=OFF, job=JOB)


def run(kind: str, directory: Path, config_directory: Path, *words: str) -> int:
    """`ncolony export` in this process."""
    return cli.main(["export", kind, str(directory), "--config", str(config_directory), *words])


def text_of(directory: Path, beginning: str) -> str:
    """The one file whose name begins so; beside a .service there may be others."""
    paths = [path for path in directory.iterdir() if path.name.startswith(beginning)]
    [path] = [path for path in paths if path.suffix == ".service"] if len(paths) > 1 else paths
    return path.read_text(encoding="utf-8")


def all_text_of(directory: Path, beginning: str) -> str:
    """All files whose names begin so, without their comments."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(directory.glob(f"{beginning}*"))]
    return "\n".join(line for text in texts for line in text.splitlines() if not line.startswith("#"))


# --- for all kinds ---


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_dropped(kind: str, colony: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every key of a file is in what is written of it or among what is not expressed, there and on the terminal."""
    assert run(kind, tmp_path / "out", colony) == 0
    said = capsys.readouterr().out
    plain = text_of(tmp_path / "out", "plain")
    for name, content in (("rich", RICH), ("job", JOB)):
        text = text_of(tmp_path / "out", name)
        for key in content:
            expressed = all_text_of(tmp_path / "out", name) != plain_without(kind, name, content, key, tmp_path)
            assert expressed or f"not expressed exactly: {key}" in text, (name, key)
            if not expressed:
                assert re.search(rf"{name}: {re.escape(key)}[. =:]", said), (name, key)
    for key in JOB["schedule"]:
        less = {**JOB, "schedule": {one: value for one, value in JOB["schedule"].items() if one != key}}
        if key == "cron":
            less["schedule"] = {"cron": "* * * * *", **{k: v for k, v in JOB["schedule"].items() if k != "cron"}}
        expressed = all_text_of(tmp_path / "out", "job") != exported(kind, "job", less, tmp_path / f"less-{key}")
        # Nomad makes up for what was missed whether it is told to or not, and it is when it is not that this is said.
        known = said + (capsys.readouterr().out if (kind, key) == ("nomad", "catch_up") else "")
        assert expressed or re.search(rf"job: schedule\.{key}\b", known), key
    assert "not expressed exactly" not in plain or kind == "kubernetes"


def plain_without(kind: str, name: str, content: dict[str, Any], key: str, tmp_path: Path) -> str:
    """What is written of a process when it lacks the key (its args are another's then)."""
    less = {**content, "args": ["/bin/true"]} if key == "args" else {k: v for k, v in content.items() if k != key}
    return exported(kind, name, less, tmp_path / f"without-{name}-{key}")


def exported(kind: str, name: str, content: dict[str, Any], directory: Path) -> str:
    """What is written of a process with this content, comments left out."""
    directory.mkdir()
    others = {"plain": PLAIN, "once": ONCE}
    conf = put(directory / "conf", **{**others, name: content})
    assert run(kind, directory / "out", conf) == 0
    return all_text_of(directory / "out", name)


@pytest.mark.parametrize("kind", KINDS)
def test_exports_are_written_once(kind: str, colony: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second export changes nothing; a file that was edited is not replaced without --force; --strict fails."""
    out = tmp_path / "out"
    assert run(kind, out, colony, "--dry-run") == 0
    assert not out.exists()
    assert run(kind, out, colony) == 0
    capsys.readouterr()
    assert run(kind, out, colony) == 0
    assert ": written" not in capsys.readouterr().out
    [path] = [path for path in out.iterdir() if path.name.startswith("plain")]
    path.write_text("# mine")
    assert run(kind, out, colony) == 1
    assert "--force" in capsys.readouterr().err
    assert path.read_text() == "# mine"
    assert run(kind, out, colony, "--force") == 0
    assert path.read_text() != "# mine"
    assert run(kind, out, colony, "--strict") == 1


@pytest.mark.parametrize("kind", KINDS)
def test_chosen_names_and_problems(kind: str, colony: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names choose processes; an unknown one, and a file with a problem, is one line, and the others are written."""
    (colony / "broken").write_text("{")
    assert run(kind, tmp_path / "out", colony, "plain", "nosuch", "broken") == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cannot export ")]
    assert len(lines) == 2
    assert text_of(tmp_path / "out", "plain")
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith("rich")]


def test_json(colony: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--json tells the files and what is not expressed as data."""
    assert run("systemd", tmp_path / "out", colony, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert {one["result"] for one in told["files"]} == {"written"}
    assert {"process", "key", "value", "why"} == set(told["not_expressed"][0])
    assert told["errors"] == []


@pytest.mark.parametrize("words", [["systemd", "out"], ["upstart", "out", "--config", "x"], ["systemd"]])
def test_usage(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a directory of definitions, or with an unknown kind, the exit status is 2."""
    monkeypatch.delenv("NCOLONY_CTL_CONFIG", raising=False)
    assert cli.main(["export", *words]) == 2


def test_missing_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory of definitions that is not there is one line and exit status 1."""
    assert run("systemd", tmp_path / "out", tmp_path / "none") == 1
    assert capsys.readouterr().err.startswith("cannot read ")


# --- systemd ---


def test_units_verify(colony: Path, tmp_path: Path) -> None:
    """systemd finds nothing to say about the units and their target."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    out = tmp_path / "out"
    assert run("systemd", out, colony) == 0
    units = sorted(str(path) for path in out.iterdir())
    done = subprocess.run([analyze, "verify", "--man=no", *units], capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if str(out) in line or "colony" in line]
    assert (done.returncode, ours) == (0, [])


def test_target_wants_what_is_enabled(colony: Path, tmp_path: Path) -> None:
    """The target wants each enabled process, each copy of one with copies, and no other."""
    assert run("systemd", tmp_path / "out", colony) == 0
    wanted = re.findall(r"(?m)^Wants=(.*)$", text_of(tmp_path / "out", "colony.target"))
    assert wanted == ["job.timer", "once.service", "plain.service", *(f"rich@{number}.service" for number in range(3))]


@pytest.mark.parametrize("args", [["bin/web"], ["-web"], ["@web"], ["a\tb"], ["/bin/"]])
def test_programs_that_systemd_cannot_run(tmp_path: Path, args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A program that a unit cannot name is an error, and nothing is written for it."""
    assert run("systemd", tmp_path / "out", put(tmp_path / "conf", web={"args": args})) == 1
    assert "cannot export web: args:" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("web*"))


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
TRICKY = st.lists(
    st.sampled_from(["\\", '"', "'", "$", "${A}", "$A", "%", "%n", ";", " ", "\n", "\t", "é", "#", "x", "\x7f"])
)
WORD = TEXT | TRICKY.map("".join)
PATH = st.lists(st.text("abz%$ .-_é'\"", min_size=1, max_size=5), min_size=1, max_size=3).map(
    lambda x: "/" + "/".join(x)
)
SECONDS = st.integers(0, 10**6) | st.integers(0, 10**9).map(lambda x: x / 1000)
LIMIT = st.one_of(st.integers(0, 2**40), st.just("unlimited"))


def ordered(pair: tuple[Any, Any]) -> list[Any]:
    """A soft and a hard limit."""
    return sorted(pair, key=lambda one: 2**63 if one == "unlimited" else one)


CONFIGS = st.fixed_dictionaries(
    {"args": st.tuples(PATH.filter(lambda x: x.strip() == x and not x.endswith(" ")), st.lists(WORD, max_size=4)).map(
        lambda x: [x[0], *x[1]])},
    optional={
        "env": st.dictionaries(st.from_regex(r"[A-Z_][A-Z0-9_]{0,5}", fullmatch=True), WORD, max_size=3),
        "env_inherit": st.lists(st.sampled_from(["LANG", "TZ", "A_B"]), min_size=1, max_size=2, unique=True),
        "uid": st.integers(0, 2**32 - 2) | st.sampled_from(["root", "www-data", "_x"]),
        "gid": st.integers(0, 2**32 - 2) | st.sampled_from(["root", "www-data"]),
        "cwd": PATH,
        "umask": st.integers(0, 0o777),
        "restart": st.sampled_from(["always", "on-failure", "never"]),
        "success_codes": st.lists(st.integers(0, 255), max_size=3),
        "kill_time": SECONDS,
        "min_restart_delay": SECONDS,
        "stop": st.tuples(st.sampled_from(["INT", "SIGQUIT", 10, "KILL"]), SECONDS).map(lambda x: [list(x)]),
        "stop_scope": st.sampled_from(["tree", "process"]),
        "nice": st.integers(-20, 19),
        "oom_score_adj": st.integers(-1000, 1000),
        "limits": st.dictionaries(
            st.sampled_from(sorted(config.LIMITS)), LIMIT | st.tuples(LIMIT, LIMIT).map(ordered), max_size=3
        ),
        "give_up": st.fixed_dictionaries({"failures": st.integers(1, 1000), "within": st.integers(1, 10**6)}),
        "instances": st.integers(0, 10_000),
        "memory_max": st.integers(1, 2**50),
        "env_file": st.lists(PATH, min_size=1, max_size=2),
        "log": st.fixed_dictionaries({"stdout": PATH}, optional={"stderr": PATH | st.just(True)}),
    },
)  # fmt: skip


def back(process: leaving.Process, directory: Path) -> tuple[config.ProcessConfig, set[str]] | None:
    """The process exported to systemd and imported again, and the keys that were not expressed; None: refused."""
    problems: list[str] = []
    outputs = to_systemd.export([process], problems)
    if problems:
        return None
    path = directory / outputs[0].name
    path.write_text(outputs[0].text, encoding="utf-8")
    source = sources.load(str(path))
    path.unlink()
    assert [one for one in source.findings if one.result == "error"] == []
    [draft] = source.drafts
    assert draft.name == process.name
    found = config.decode(draft.name, json.dumps(draft.config).encode())
    assert isinstance(found, config.ProcessConfig), found
    return found, {one.key for one in process.leftovers}


@given(
    content=CONFIGS,
    name=st.text(st.characters(exclude_categories=["C"], exclude_characters="/"), min_size=1, max_size=9),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_from_systemd_and_back(tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any], name: str) -> None:
    """A process that was exported to systemd and imported from there is as it was, but for what was listed."""
    defined = config.define(name, json.dumps(content).encode())
    assert isinstance(defined, config.Definition), defined
    name = name.strip(". ~#") or "web"
    process = leaving.Process(name, defined.config, content)
    result = back(process, tmp_path_factory.getbasetemp())
    if result is None:
        return
    found, lost = result
    was = defined.config
    assert found.args == was.args
    for key, value in was.env.items():
        assert f"env.{key}" in lost or found.env[key] == value
    systemds_own = {"PATH", "HOME", "USER", "LOGNAME", "SHELL"}
    assert set(found.env) <= set(was.env) | systemds_own
    for key in ("env_inherit", "uid", "gid", "umask_bits", "stop_scope", "nice", "oom_score_adj", "instances"):
        assert getattr(found, key) == getattr(was, key), key
    assert found.rlimits == was.rlimits
    assert found.most_memory == was.most_memory
    assert "cwd" in lost or found.cwd == normal(was.cwd or "/")
    assert "env_file" in lost or found.env_files == tuple(normal(path) for path in was.env_files)
    if "log.stdout" not in lost and "log.stderr" not in lost and was.log.stdout is not None:
        same = was.log.stderr == was.log.stdout or normal(str(was.log.stderr)) == normal(was.log.stdout)
        assert found.log.stdout == normal(was.log.stdout)
        assert same or found.log.stderr == (was.log.stderr and (was.log.stderr is True or normal(was.log.stderr)))
    assert_stops_alike(found, process)
    assert_restarts_alike(found, process)


def normal(path: str) -> str:
    """A path as systemd wants it."""
    import os

    return os.path.normpath(path).replace("//", "/")


def assert_stops_alike(found: config.ProcessConfig, process: leaving.Process) -> None:
    """The same signal and the same time."""
    again = leaving.Process(process.name, found, {})
    assert again.stop_signal == process.stop_signal
    assert again.kill_time == pytest.approx(min(process.kill_time, 31_536_000), abs=1e-5)


def assert_restarts_alike(found: config.ProcessConfig, process: leaving.Process) -> None:
    """The same policy for each exit code; the same waits and the same end of patience."""
    was = process.config

    def rests(one: config.ProcessConfig, code: int) -> bool:
        return one.restart == "never" or (one.restart == "on-failure" and code in one.success_codes)

    assert all(rests(found, code) == rests(was, code) for code in range(256))
    if was.restart != "never":
        assert found.min_restart_delay == pytest.approx(process.min_delay, abs=1e-5)
        assert found.give_up == was.give_up


# --- systemd: readiness, order, sockets, times ---

COLONY: dict[str, dict[str, Any]] = {
    "db": {
        "args": ["/bin/sleep", "5"],
        "ready": {"notify": True, "timeout": 30},
        "watchdog": 1.5,
        "stop": [["INT", 9]],
        "sockets": {"sql": {"address": "unix:/run/sql.sock", "backlog": 7, "mode": "0660"}},
    },
    "migrate": {
        "args": ["/bin/true"], "restart": "on-failure", "success_codes": [0, 4], "after": {"db": "ready"},
    },
    "web": {
        "args": ["/bin/sleep", "5"],
        "instances": 2,
        "after": {"db": {"when": "ready", "bind": True}, "migrate": "completed"},
        "sockets": {
            "http": {"address": "tcp::8080", "backlog": 100},
            "dns": "udp:[::1]:5353",
            "local": {"address": "tcp:127.0.0.1:9", "backlog": 1},
        },
    },
    "nightly": {
        "args": ["/bin/true"],
        "after": {"db": "ready"},
        "kill_time": 7,
        "schedule": {
            "cron": "30 4 1,15 * 5", "timezone": "Europe/Berlin", "jitter": 90, "timeout": 600, "catch_up": True,
        },
    },
    "first": {"args": ["/bin/true"], "schedule": {"cron": "0 18 * * 6#1"}, "enabled": False},
    "often": {"args": ["/bin/true"], "schedule": {"cron": "*/10 * * * * *"}},
    "poll": {"args": ["/bin/true"], "schedule": {"every": 90.5}},
}  # fmt: skip


@pytest.fixture
def rich_colony(tmp_path: Path) -> Path:
    """A directory with processes that wait for each other, listen and run at times."""
    return put(tmp_path / "conf", **COLONY)


def test_units_with_sockets_and_timers_verify(rich_colony: Path, tmp_path: Path) -> None:
    """systemd finds nothing to say about services with order, watchdog, sockets and timers."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    out = tmp_path / "out"
    assert run("systemd", out, rich_colony) == 0
    units = sorted(str(path) for path in out.iterdir())
    assert {path.suffix for path in out.iterdir()} == {".service", ".socket", ".timer", ".target"}
    done = subprocess.run([analyze, "verify", "--man=no", *units], capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if str(out) in line or "colony" in line]
    assert (done.returncode, ours) == (0, [])


def test_a_colony_goes_to_systemd_and_comes_back(rich_colony: Path, tmp_path: Path) -> None:
    """Readiness, watchdog, order, sockets and times that were exported to systemd are imported as they were."""
    out = tmp_path / "out"
    assert run("systemd", out, rich_colony) == 0
    paths = sorted(path for path in out.iterdir() if path.suffix != ".target")
    assert cli.main(["import", *map(str, paths), str(tmp_path / "back")]) == 0
    assert {path.name for path in (tmp_path / "back").iterdir()} == set(COLONY)
    for name, was in COLONY.items():
        found = json.loads((tmp_path / "back" / name).read_text())
        for key in ("ready", "after", "watchdog", "stop", "instances", "success_codes"):
            assert found.get(key) == was.get(key), (name, key)
        if "sockets" in was:
            plain = {key: one if isinstance(one, dict) else {"address": one} for key, one in was["sockets"].items()}
            assert found["sockets"] == plain
            assert list(found["sockets"]) == list(plain)
        # Of a job that is not enabled, systemd has a timer all the same, that nobody starts.
        assert found.get("schedule") == was.get("schedule"), name


def test_units_of_a_job(rich_colony: Path, tmp_path: Path) -> None:
    """A job is a oneshot that nothing starts but its timer, and the target wants the timers of those enabled."""
    assert run("systemd", tmp_path / "out", rich_colony) == 0
    service = (tmp_path / "out" / "nightly.service").read_text()
    assert "\nType=oneshot\nTimeoutStartSec=600\n" in service
    assert "[Install]" not in service
    wanted = re.findall(r"(?m)^Wants=(.*)$", text_of(tmp_path / "out", "colony.target"))
    assert [unit for unit in wanted if unit.endswith(".timer")] == ["nightly.timer", "often.timer", "poll.timer"]
    assert not {"nightly.service", "first.timer"} & set(wanted)


def test_names_of_units_do_not_clash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two processes whose sockets would be units of one name are an error, and nothing replaces anything."""
    two = {"a": "tcp::1", "b": "tcp::2"}
    conf = put(tmp_path / "conf", **{"web": {**PLAIN, "sockets": two}, "web-a": {**PLAIN, "sockets": {"x": "tcp::3"}}})
    assert run("systemd", tmp_path / "out", conf) == 1
    assert "web has a unit web-a.socket already" in capsys.readouterr().err
    assert "ListenStream=1" in (tmp_path / "out" / "web-a.socket").read_text()


# --- Kubernetes ---


def manifest(directory: Path, name: str) -> dict[str, Any]:
    """One manifest, read by PyYAML."""
    found = yaml.safe_load((directory / f"{name}.yaml").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def test_manifests_hold_what_they_must(colony: Path, tmp_path: Path) -> None:
    """Each manifest has the fields that Kubernetes requires, and the kustomization lists them all."""
    out = tmp_path / "out"
    assert run("kubernetes", out, colony, "--image", "rich=registry/rich:1", "--image=registry/all:2") == 0
    listed = manifest(out, "kustomization")
    assert sorted(listed["resources"]) == ["job.yaml", "off-line.yaml", "once.yaml", "plain.yaml", "rich.yaml"]
    assert listed["kind"] == "Kustomization"
    for file in listed["resources"]:
        found = manifest(out, file.removesuffix(".yaml"))
        assert found["apiVersion"] == ("apps/v1" if found["kind"] == "Deployment" else "batch/v1")
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", found["metadata"]["name"])
        pod = (found["spec"]["jobTemplate"]["spec"] if found["kind"] == "CronJob" else found["spec"])["template"]
        [container] = pod["spec"]["containers"]
        assert {"name", "image", "command"} <= set(container)
        assert container["image"] == ("registry/rich:1" if container["name"] == "rich" else "registry/all:2")
        if found["kind"] == "Deployment":
            wanted = found["spec"]["selector"]["matchLabels"]
            assert wanted.items() <= pod["metadata"]["labels"].items()
            assert pod["spec"]["restartPolicy"] == "Always"
        else:
            assert pod["spec"]["restartPolicy"] in ("Never", "OnFailure")


def test_manifest_of_a_process(colony: Path, tmp_path: Path) -> None:
    """What Kubernetes has words for is there: command, variables, secrets, memory, user, time to stop, copies."""
    out = tmp_path / "out"
    assert run("kubernetes", out, colony) == 0
    rich = manifest(out, "rich")
    assert (rich["kind"], rich["spec"]["parallelism"], rich["spec"]["backoffLimit"]) == ("Job", 3, 4)
    spec = rich["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] == 15
    [container] = spec["containers"]
    assert container["command"] == [word.replace("$", "$$") for word in RICH["args"]]
    env = {one["name"]: one.get("value") for one in container["env"]}
    assert env["DOLLAR"] == "$$5 $$(A)"
    assert {"secretKeyRef": {"name": "rich-secrets", "key": "TOKEN"}} in [
        one.get("valueFrom") for one in container["env"]
    ]
    assert container["resources"] == {"limits": {"memory": str(512 << 20)}}
    assert container["workingDir"] == "/tmp"
    assert container["securityContext"] == {"runAsGroup": 0}
    assert manifest(out, "plain")["spec"]["replicas"] == 1
    assert manifest(out, "off-line")["spec"]["replicas"] == 0
    assert manifest(out, "once")["spec"]["backoffLimit"] == 0


PROBED: dict[str, Any] = {
    "args": ["/bin/web"],
    "ready": {"exec": ["/bin/ask", "it"], "period": 0.5, "timeout": 20},
    "check": [
        {"http": "https://127.0.0.1:8443/health?deep=1", "period": 7, "timeout": 2, "failure_threshold": 4, "grace": 9},
        {"tcp": "db:5432", "action": "report", "success_threshold": 2},
        {"tcp": ":9"},
    ],
}


def test_probes_of_the_kubelet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`ready` is a startupProbe, `check` a livenessProbe or readinessProbe; what has no room is listed."""
    assert run("kubernetes", tmp_path / "out", put(tmp_path / "conf", web=PROBED)) == 0
    [container] = manifest(tmp_path / "out", "web")["spec"]["template"]["spec"]["containers"]
    assert container["startupProbe"] == {
        "exec": {"command": ["/bin/ask", "it"]}, "periodSeconds": 1, "failureThreshold": 20,
    }  # fmt: skip
    assert container["livenessProbe"] == {
        "httpGet": {"path": "/health?deep=1", "port": 8443, "scheme": "HTTPS"},
        "initialDelaySeconds": 9,
        "periodSeconds": 7,
        "timeoutSeconds": 2,
        "failureThreshold": 4,
    }
    assert container["readinessProbe"]["tcpSocket"] == {"host": "db", "port": 5432}
    assert container["readinessProbe"]["successThreshold"] == 2
    said = capsys.readouterr().out
    assert 'web: check = {"tcp": ":9"}: a container has one livenessProbe' in said
    assert "the address of the pod" in said


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({"cron": "@daily", "timezone": "Europe/Berlin"},
         {"schedule": "0 0 * * *", "timeZone": "Europe/Berlin", "concurrencyPolicy": "Forbid",
          "startingDeadlineSeconds": 60}),
        ({"cron": "0 5 * * 0", "overlap": "replace", "catch_up": True},
         {"schedule": "0 5 * * 0", "concurrencyPolicy": "Replace"}),
        ({"every": 1800, "catch_up": True}, {"schedule": "*/30 * * * *", "concurrencyPolicy": "Forbid"}),
    ],
)  # fmt: skip
def test_cron_jobs(tmp_path: Path, schedule: dict[str, Any], expected: dict[str, Any]) -> None:
    """A job is a CronJob at the same times, with a policy for runs that overlap."""
    content = {**PLAIN, "schedule": {**schedule, "retries": 3, "timeout": 59.5, "grace": 2}}
    assert run("kubernetes", tmp_path / "out", put(tmp_path / "conf", job=content)) == 0
    found = manifest(tmp_path / "out", "job")
    assert (found["apiVersion"], found["kind"]) == ("batch/v1", "CronJob")
    job = found["spec"].pop("jobTemplate")["spec"]
    assert found["spec"] == expected
    assert (job["backoffLimit"], job["activeDeadlineSeconds"]) == (3, 60)
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    assert job["template"]["spec"]["terminationGracePeriodSeconds"] == 2


@pytest.mark.parametrize("kind", ["kubernetes", "nomad"])
@pytest.mark.parametrize("schedule", [{"every": 90}, {"cron": "0 0 */2 * 1"}, {"cron": "0 0 * * 6#1"}])
def test_times_that_others_do_not_know(
    tmp_path: Path, kind: str, schedule: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """A job at times that the other side cannot keep is an error, and not written with others."""
    conf = put(tmp_path / "conf", job={**PLAIN, "schedule": schedule}, plain=PLAIN)
    assert run(kind, tmp_path / "out", conf, "--image=x") == 1
    assert "cannot export job: schedule." in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("job*"))


def test_missing_image_is_said(colony: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without an image a placeholder stands in the manifest, and the command says that it must be replaced."""
    assert run("kubernetes", tmp_path / "out", colony, "--image", "rich=r:1") == 0
    said = capsys.readouterr().err
    assert "no image yet" in said
    assert "plain" in said
    assert "rich" not in said
    assert f'image: "{to_kubernetes.PLACEHOLDER}"' in text_of(tmp_path / "out", "plain")


PLAIN_VALUES = st.recursive(
    WORD
    | st.integers()
    | st.booleans()
    | st.none()
    | st.sampled_from(["no", "1", "null", "~", "2001-01-01", "- a", "a: b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORD, inner, max_size=3),
    max_leaves=12,
)


@given(value=st.dictionaries(WORD, PLAIN_VALUES, min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_yaml_is_read_back(value: dict[str, Any]) -> None:
    """Whatever is written as YAML, a YAML reader finds as it was."""
    assert yaml.safe_load(to_kubernetes._document(["# head"], value)) == value


# --- Nomad ---


def test_job_of_a_process(colony: Path, tmp_path: Path) -> None:
    """What Nomad has words for is there: driver, command, variables, restarts, signal, memory, copies."""
    assert run("nomad", tmp_path / "out", colony) == 0
    text = text_of(tmp_path / "out", "rich")
    for line in (
        'job "rich" {',
        'type = "batch"',
        "count = 3",
        "attempts = 4",
        'interval = "60s"',
        'mode = "fail"',
        'driver = "raw_exec"',
        'user = "root"',
        'kill_signal = "SIGINT"',
        'kill_timeout = "15000ms"',
        'command = "/bin/sh"',
        '"NCOLONY_INDEX" = "${NOMAD_ALLOC_INDEX}"',
        "memory = 512",
        "max_files = 6",
        "max_file_size = 1",
    ):
        assert f" {line}\n" in f" {text}\n" or line in [one.strip() for one in text.splitlines()], line
    assert 'type = "service"' in text_of(tmp_path / "out", "plain")
    assert "attempts = 0" in text_of(tmp_path / "out", "once")


def test_job_of_nomad_with_checks(tmp_path: Path) -> None:
    """Checks of http and tcp are checks of a service, with the port that they ask and restarts after failures."""
    checks = [{"http": "http://localhost:8080/health", "period": 7, "failure_threshold": 4, "grace": 9}, {"tcp": ":9"}]
    assert run("nomad", tmp_path / "out", put(tmp_path / "conf", web={**PLAIN, "check": checks})) == 0
    lines = [line.strip() for line in text_of(tmp_path / "out", "web").splitlines()]
    for line in (
        'port "port-8080" {', "static = 8080", "static = 9", 'provider = "nomad"', 'type = "http"', 'path = "/health"',
        'interval = "7000ms"', "check_restart {", "limit = 4", 'grace = "9000ms"', 'type = "tcp"',
    ):  # fmt: skip
        assert line in lines, line


@pytest.mark.parametrize(
    ("schedule", "cron"),
    [({"cron": "0 5 * * mon"}, "0 5 * * 1"), ({"cron": "*/10 * * * * *"}, "*/10 * * * * * *"),
     ({"every": 300}, "*/5 * * * *")],
)  # fmt: skip
def test_periodic_jobs_of_nomad(tmp_path: Path, schedule: dict[str, Any], cron: str) -> None:
    """A job is a periodic one of type batch, with years behind an expression that has seconds."""
    content = {**PLAIN, "schedule": {**schedule, "retries": 3}}
    assert run("nomad", tmp_path / "out", put(tmp_path / "conf", job=content)) == 0
    lines = [line.strip() for line in text_of(tmp_path / "out", "job").splitlines()]
    for line in ('type = "batch"', "periodic {", f'cron = "{cron}"', "prohibit_overlap = true", "attempts = 3"):
        assert line in lines, line


@given(value=WORD)
@settings(deadline=None)
def test_hcl_text(value: str) -> None:
    """A text of HCL holds no template and no escape that HCL does not know, and says what it said."""
    written = hcl.text(value)
    assert not re.search(r"(?<![$])\$\{|(?<!%)%\{", written.replace("$${", "").replace("%%{", ""))
    assert set(re.findall(r"\\(.)", written.replace("\\\\", ""))) <= set('nrt"u')
    assert json.loads(written.replace("$${", "${").replace("%%{", "%{")) == value
