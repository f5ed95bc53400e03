"""What is installed is what is needed: plugins, types, the keeper's sources, the console script."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import ncolony

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"


def run(*command: str, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100, **more)  # type: ignore[call-overload,no-any-return]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as it would be published."""
    directory = tmp_path_factory.mktemp("wheel")
    built = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory), cwd=ROOT)
    assert built.returncode == 0, built.stderr
    [found] = directory.glob("*.whl")
    return found


def test_wheel_ships_every_source(wheel: Path) -> None:
    """The wheel holds every module, the keeper's too, the schemas, py.typed and the plugin file, and nothing else."""
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    modules = {path.relative_to(SOURCE).as_posix() for path in (SOURCE / "ncolony").rglob("*.py")}
    schemas = {"ncolony/schema/config.json", "ncolony/schema/message.json"}
    assert names == modules | schemas | {"ncolony/py.typed", "twisted/plugins/ncolony_plugins.py"}
    assert "ncolony/keeper/__main__.py" in names


def test_wheel_leaves_twisted_a_shared_package(wheel: Path) -> None:
    """The wheel brings no __init__.py into twisted/ or twisted/plugins/, which belong to Twisted."""
    assert not [name for name in zipfile.ZipFile(wheel).namelist() if re.match(r"twisted/.*__init__", name)]


def test_wheel_works_where_it_is_unpacked(wheel: Path, tmp_path: Path) -> None:
    """From the unpacked wheel alone, Twisted sees the plugins and the supervisor prints its options."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    shown = run(sys.executable, "-m", "twisted", "ncolony", "--help", env=environment, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "--messages" in shown.stdout
    schema = run(sys.executable, "-m", "ncolony", "schema", "config", env=environment, cwd=tmp_path)
    assert schema.stdout == (tmp_path / "ncolony" / "schema" / "config.json").read_text("utf-8")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from ncolony.client import beat, notify, ready"
    alone = run(sys.executable, "-I", "-S", "-c", code)  # programs import it where neither Twisted nor msgspec is
    assert (alone.returncode, alone.stderr) == (0, "")
    where = run(sys.executable, "-c", "import ncolony; print(ncolony.__file__)", env=environment, cwd=tmp_path)
    assert where.stdout.startswith(str(tmp_path))


@pytest.mark.parametrize("plugin", ["ncolony", "ncolony-scheduler", "ncolony-health"])
def test_plugins_are_listed(plugin: str) -> None:
    """`python -m twisted --help` lists the plugin."""
    shown = run(sys.executable, "-m", "twisted", "--help")
    assert shown.returncode == 0
    assert re.search(rf"^ +{plugin} ", shown.stdout, re.MULTILINE)


@pytest.mark.parametrize("plugin", ["ncolony", "ncolony-scheduler", "ncolony-health"])
def test_plugins_load(plugin: str) -> None:
    """Each plugin's module can be imported and prints its options."""
    shown = run(sys.executable, "-m", "twisted", plugin, "--help")
    assert shown.returncode == 0, shown.stderr
    assert "--help" in shown.stdout


def test_console_script_is_the_module() -> None:
    """The script `ncolony` and `python -m ncolony` print the same help."""
    script = Path(sys.executable).parent / "ncolony"
    by_script, by_module = run(str(script), "--help"), run(sys.executable, "-m", "ncolony", "--help")
    assert by_script.returncode == by_module.returncode == 0, by_script.stderr + by_module.stderr
    assert by_script.stdout == by_module.stdout != ""


def test_version_is_said_once() -> None:
    """`ncolony.__version__` is the version of the project file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert ncolony.__version__ == project["version"]


def test_lock_files_hold_every_dependency() -> None:
    """Each locked requirement has an exact version and a hash, names no host, and every direct dependency is there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    groups = project["dependency-groups"]
    wanted = {
        "run.txt": [*project["project"]["dependencies"], *groups["build"]],
        "dev.txt": [*project["project"]["dependencies"], *groups["build"], *groups["dev"], *groups["docs"]],
    }
    for file, requirements in wanted.items():
        text = (ROOT / "requirements" / file).read_text(encoding="utf-8")
        assert "://" not in text
        entries = re.split(r"\n(?=\S)", re.sub(r"(?m)^ *#.*\n?", "", text).strip())
        assert all(re.match(r"[\w.-]+==\S+.*--hash=sha256:", entry, re.DOTALL) for entry in entries)
        locked = {re.split("==", entry)[0] for entry in entries}
        direct = {re.split(r"[^\w.-]", name)[0].lower().replace("_", "-") for name in requirements}
        assert direct <= locked
