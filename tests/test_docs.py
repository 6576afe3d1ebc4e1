"""Everything that the documents show works: code runs, commands parse, tables and links hold."""

import doctest
import importlib
import pkgutil
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from cli_setup import make_report

from vdev.cli.main import vdev
from vdev.run.report import Outcome

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
MODULES = [
    module.name
    for package in ("spec", "vdev", "guest_agent", "host_migrator")
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")
    if not module.name.endswith("__main__")
]


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)


OTHERS_PROGRAMS = ("qemu-system-x86_64", "qemu-img", "linux.uml", "head", "cc")
"""Run in tests/test_docs_write_a_device.py and test_docs_check_in_ci.py, where they are on the machine."""


def parsed(command, name, words, parent):
    """Return the context of the innermost command of a line, all of it parsed; raises as click does."""
    context = command.make_context(name, words, parent=parent)
    if isinstance(command, click.Group):
        # Click 8.2 renamed the list that has the name of the inner command.
        first = context._protected_args if hasattr(context, "_protected_args") else context.protected_args
        if not first and not context.args and command.invoke_without_command:
            return context
        inner_name, inner, words = command.resolve_command(context, [*first, *context.args])
        return parsed(inner, inner_name, words, context)
    return context


OPTION_VALUES = ("auto", "loadfile")


def named(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.name)


def console_commands() -> list[tuple[str, str]]:
    """Every command that a document shows, with the output shown below it."""
    found = []
    for path in DOCUMENTS:
        for block in blocks(path, "console"):
            for entry in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                command, _, output = entry.replace("\\\n", " ").partition("\n")
                found.append((command, output))
    return sorted(set(found))


@named(DOCUMENTS)
def test_the_python_of_a_document_runs(path):
    names: dict = {"__name__": path.name}
    for block in blocks(path, "python"):
        exec(compile(block, str(path), "exec"), names)


@named(DOCUMENTS)
def test_the_links_of_a_document_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#\s]+)\)", path.read_text()):
        assert target.startswith("https://") or (path.parent / target).exists(), target


@pytest.mark.parametrize(
    ("command", "output"), console_commands(), ids=lambda text: text.splitlines()[0] if text else ""
)
def test_a_command_of_the_documents_is_one_that_exists(command, output):
    words = shlex.split(command)
    while "=" in words[0]:
        words.pop(0)
    match words:
        case ["make", target]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        case ["vdev", name, *options]:
            # An image is there once the commands before have made it.
            options = [__file__ if option.endswith(".img") else option for option in options]
            assert parsed(vdev.commands[name], name, options, click.Context(vdev)).params
        case ["python", "-m", "pytest", *options]:
            for option in options:
                assert option.startswith(("-", "not ")) or option in OPTION_VALUES or (ROOT / option).exists(), option
        case ["python", script]:
            done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, cwd=ROOT)
            assert done.stdout == output
        case ["bash", script]:
            assert (ROOT / script).exists()
        case [program, *_] if program in OTHERS_PROGRAMS:
            pass
        case _:
            pytest.fail(f"nobody knows {command!r}")


def test_the_device_in_the_readme_is_the_one_in_the_example():
    (shown,) = blocks(ROOT / "README.md", "python")
    body = shown[shown.index("class ") :]
    assert body in (ROOT / "examples" / "minimal_device.py").read_text()
    assert len(shown.splitlines()) <= 20


@named(EXAMPLES)
def test_an_example_runs(path):
    subprocess.run([sys.executable, path], check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_docstring_hold(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_tables_in_the_documents_are_those_of_the_code():
    tables = runpy.run_path(str(ROOT / "docs" / "tables.py"))
    stale = [path.name for path in tables["DOCUMENTS"] if tables["with_tables"](path.read_text()) != path.read_text()]
    assert not stale, "run `make docs`"


def test_every_key_of_the_report_is_documented():
    documented = set(re.findall(r"^\| `([a-z_.]+)` \| [^0-9]", (ROOT / "docs" / "report.md").read_text(), re.MULTILINE))
    keys = set()
    for key, value in make_report().to_json().items():
        free_form = key in ("hints", "memory") or not isinstance(value, dict)
        keys |= {key} if free_form else {f"{key}.{inner}" for inner in value}
    assert documented == keys


def test_every_exit_status_is_documented():
    rows = re.findall(r"^\| `([a-z-]+)` \| ([0-9]+) \|", (ROOT / "docs" / "report.md").read_text(), re.MULTILINE)
    assert {name: int(status) for name, status in rows} == {outcome.value: outcome.exit_status for outcome in Outcome}
    shown = subprocess.run([sys.executable, "-m", "vdev", "migrate", "--help"], capture_output=True, text=True).stdout
    for outcome in Outcome:
        assert re.search(rf"^ +{outcome.exit_status}  ", shown, re.MULTILINE)


def test_the_changelog_names_this_version_or_what_is_coming():
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
