"""docs/check-in-ci.md and docs/check-with-pytest.md do what they say, with the device in C that they judge."""

import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]
pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(shutil.which("cc") is None, reason="the example is in C, and cc is missing"),
]

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "entropy-in-c"
PAGE = (ROOT / "docs" / "check-in-ci.md").read_text()


@pytest.fixture
def project(tmp_path):
    """A copy of the example, as somebody's own project."""
    copy = tmp_path / "project"
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("entropy", "report.*"))
    return copy


def run_script(project):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "check.sh"], cwd=project, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=300
    )


def test_the_script_judges_the_device_in_c_which_keeps_the_text(project):
    before = set(os.listdir(project))
    done = run_script(project)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads((project / "report.json").read_text())["counts"]
    assert counts["PASS"] >= 100
    assert counts["FAIL"] == counts["CRASHED"] == counts["HUNG"] == 0
    assert ET.parse(project / "report.xml").getroot().get("failures") == "0"
    assert "report.html" in os.listdir(project)
    # Nothing else is left there, no socket either.
    assert set(os.listdir(project)) - before == {"entropy", "report.json", "report.xml", "report.html"}


def test_a_device_that_gives_a_wrong_length_fails_the_pipeline(project):
    source = project / "entropy.c"
    text = source.read_text()
    assert text.count("*written = total;") == 1
    source.write_text(text.replace("*written = total;", "*written = total + 1;"))
    done = run_script(project)
    assert done.returncode == 1
    assert int(ET.parse(project / "report.xml").getroot().get("failures")) >= 1
    assert "used" in done.stdout


def test_the_page_shows_the_line_of_the_script():
    script = (EXAMPLE / "check.sh").read_text()
    (shown,) = re.findall(r"^```sh\n(vdev check device .*?--json.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert shown in script


def test_the_check_of_the_page_for_pytest_passes_with_the_device_in_c(project, pytester):
    page = (ROOT / "docs" / "check-with-pytest.md").read_text()
    (source,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    subprocess.run(["cc", "-std=c11", "-O2", "-o", "entropy", "entropy.c"], cwd=project, check=True)
    pytester.makepyfile(test_own=source)
    spawn = f"{project / 'entropy'} {{socket}}"
    result = pytester.runpytest_subprocess("--vdev-spawn", spawn, "--vdev-type", "entropy", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, skipped=1)  # the device has no packed ring
    result.stdout.fnmatch_lines(["*tests cover 2 statements*"])
