"""What a user installs: the wheel holds all four packages, their types, and the command."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from vdev import __version__

ROOT = Path(__file__).parent.parent
PACKAGES = ("vdev", "guest_agent", "host_migrator", "spec")


def run(*command, **options) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built with what is installed: no network."""
    directory = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", directory, ROOT)
    (path,) = directory.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """A fresh virtual environment with the wheel in it; what vdev depends on is borrowed from this one."""
    directory = tmp_path_factory.mktemp("environment")
    venv.create(directory, with_pip=False)
    python = directory / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps", wheel)
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    return directory / "bin", {**os.environ, "PYTHONPATH": os.pathsep.join(borrowed)}


def test_the_wheel_holds_the_packages_with_their_types_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for package in PACKAGES:
        assert f"{package}/py.typed" in names
        in_tree = {path.relative_to(ROOT).as_posix() for path in (ROOT / package).rglob("*.py")}
        assert in_tree == {name for name in names if name.startswith(f"{package}/") and name.endswith(".py")}
    assert {name.split("/")[0] for name in names} == {*PACKAGES, f"vdev-{__version__}.dist-info"}


def test_the_wheel_carries_its_licence_and_what_it_is(wheel):
    archive = zipfile.ZipFile(wheel)
    information = f"vdev-{__version__}.dist-info"
    metadata = archive.read(f"{information}/METADATA").decode()
    assert f"Version: {__version__}" in metadata
    assert "Requires-Python: >=3.11" in metadata
    assert "Typing :: Typed" in metadata
    assert archive.read(f"{information}/licenses/LICENSE")
    assert "vdev = vdev.cli.main:main" in archive.read(f"{information}/entry_points.txt").decode()


def test_the_installed_command_answers(environment, tmp_path):
    directory, variables = environment
    assert run(directory / "vdev", "--version", env=variables, cwd=tmp_path) == f"vdev {__version__}\n"


def test_python_dash_m_vdev_is_the_same_command(environment, tmp_path):
    directory, variables = environment
    as_module = run(directory / "python", "-m", "vdev", "migrate", "--help", env=variables, cwd=tmp_path)
    assert as_module == run(directory / "vdev", "migrate", "--help", env=variables, cwd=tmp_path)
    assert as_module.startswith("Usage: vdev migrate")


def test_the_installed_packages_come_from_the_wheel(environment, tmp_path):
    directory, variables = environment
    program = f"import {', '.join(PACKAGES)}; print(*(m.__file__ for m in ({', '.join(PACKAGES)})))"
    for path in run(directory / "python", "-c", program, env=variables, cwd=tmp_path).split():
        assert Path(path).is_relative_to(directory.parent)
