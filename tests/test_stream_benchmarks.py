"""The benchmarks run, in a small size, and say what they measured."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"

pytestmark = pytest.mark.process


def run(name, *arguments):
    done = subprocess.run([sys.executable, BENCHMARKS / name, *arguments], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return done


@pytest.mark.parametrize("arguments", [[], ["--cold"]])
def test_the_stream_beside_a_bare_loop(arguments):
    done = run("bench_stream.py", "--size", "16", "--repeat", "1", *arguments)
    ratio = float(re.search(r"^ratio +([\d.]+)", done.stdout, re.MULTILINE)[1])
    assert done.returncode == (0 if ratio >= 0.7 else 1)


def test_the_page_set_of_a_large_guest():
    done = run("bench_page_set.py", "--size", "8", "--hints", "100", "--repeat", "1")
    assert done.returncode == 0
    assert "100 hints in one call" in done.stdout
