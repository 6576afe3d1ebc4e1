"""The house keeps its shape: imports go one way, and only the files named in docs/house.md wait."""

import ast
import re
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parent.parent
PACKAGES = ("spec", "vdev", "guest_agent", "host_migrator")
WAITING = (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)


def test_imports_go_one_way(capsys):
    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True, no_logo=True)
    assert status == 0, capsys.readouterr().out


def waiting_places() -> list[str]:
    house = (ROOT / "docs" / "house.md").read_text()
    (sentence,) = re.findall(r"`async` stands only in (.*?)\. All else", house, re.DOTALL)
    return re.findall(r"`([^`]+)`", sentence)


@pytest.mark.parametrize("package", PACKAGES)
def test_only_the_files_that_the_house_names_wait(package):
    allowed = waiting_places()
    for path in sorted((ROOT / package).rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        waits = any(isinstance(node, WAITING) for node in ast.walk(ast.parse(path.read_text())))
        assert not waits or any(
            name == place or (place.endswith("/") and name.startswith(place)) for place in allowed
        ), f"{name} waits; docs/house.md does not name it"


def test_the_house_names_no_place_that_is_gone():
    for place in waiting_places():
        assert (ROOT / place).exists(), place
