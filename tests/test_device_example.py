"""The smallest example works, and is as small as it claims."""

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parent.parent / "examples" / "minimal_device.py"


def test_the_minimal_device_runs_and_prints_what_its_docstring_says():
    printed = subprocess.run([sys.executable, EXAMPLE], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "the device answered: HELLO FROM THE GUEST"
    assert printed.strip() in EXAMPLE.read_text()


def test_a_device_of_ones_own_is_less_than_twenty_lines():
    source = EXAMPLE.read_text()
    device = source[source.index("class Shouter") : source.index("def shout")]
    assert len(device.strip().splitlines()) < 20
