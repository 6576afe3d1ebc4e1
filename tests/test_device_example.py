"""The small examples work, and are as small as they claim."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
MINIMAL, ENTROPY = EXAMPLES / "minimal_device.py", EXAMPLES / "entropy_device.py"


@pytest.mark.parametrize(
    ("example", "begins"),
    [(MINIMAL, "the device answered: HELLO FROM THE GUEST"), (ENTROPY, "the device gave 16 of 32 bytes: ")],
)
def test_an_example_runs_and_prints_what_its_docstring_says(example, begins):
    printed = subprocess.run([sys.executable, example], capture_output=True, text=True, check=True).stdout
    assert printed.startswith(begins)
    assert printed.strip() in example.read_text()


@pytest.mark.parametrize(
    ("example", "first", "behind"), [(MINIMAL, "class Shouter", "def shout"), (ENTROPY, "import random", "def roll")]
)
def test_a_device_of_ones_own_is_about_twenty_lines(example, first, behind):
    source = example.read_text()
    lines = source[source.index(first) : source.index(behind)].strip().splitlines()
    device = [line for line in lines if line and not line.startswith(("import", "from"))]
    assert len(device) <= 20
