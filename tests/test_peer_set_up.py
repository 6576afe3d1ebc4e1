"""`make peers`: what is there is left alone, and what cannot be had is said in one line each."""

import pathlib
import subprocess
import sys

import pytest
from peers import parts
from peers.have import have

SET_UP = pathlib.Path(parts.__file__).with_name("set_up.py")
EVERY_PART = (*parts.TREES, parts.UML_ENTROPY)


def set_up(tmp_path, *arguments, **environment):
    """The set-up, run where there is no apt and no other tool to be found."""
    (tmp_path / "empty").mkdir()
    return subprocess.run(
        [sys.executable, str(SET_UP), *arguments],
        env={"PATH": str(tmp_path / "empty"), "HOME": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_without_apt_each_part_is_missing_with_the_reason_in_one_line(tmp_path):
    done = set_up(tmp_path, VDEV_PEERS=str(tmp_path / "peers"))
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert len(lines) == len(EVERY_PART) + 1
    for line, tree in zip(lines, EVERY_PART, strict=False):
        assert line.startswith(tree.name)
        assert tree.what in line
        assert line.endswith("missing: apt-get is missing: these are Debian's packages (package apt)")
    assert lines[-1] == f"in {tmp_path}/peers"


def test_parts_that_are_there_need_no_network_and_no_tool(tmp_path):
    for tree in EVERY_PART:
        have(lambda tree=tree: tree.find("vdev-peers.txt"))
    done = set_up(tmp_path, VDEV_PEERS=str(parts.cache()))
    assert (done.returncode, done.stderr) == (0, "")
    assert "missing" not in done.stdout


def test_a_tree_with_another_list_of_packages_is_not_taken_for_complete(tmp_path, monkeypatch):
    monkeypatch.setenv("VDEV_PEERS", str(tmp_path))
    tree = parts.Tree("one", "a part", ("suite",), ("package",))
    tree.root.mkdir()
    tree.stamp.write_text(f"{tree.recipe}package=1\n")
    assert tree.is_complete
    assert not parts.Tree("one", "a part", ("suite",), ("package", "another")).is_complete
    assert not parts.Tree("two", "a part", ("suite",), ("package",)).is_complete


def test_a_part_that_is_missing_skips_a_test_with_what_brings_it(tmp_path, monkeypatch):
    monkeypatch.setenv("VDEV_PEERS", str(tmp_path))
    with pytest.raises(pytest.skip.Exception) as skipped:
        have(lambda: parts.BOOKWORM.command("usr/bin/qemu-img"))
    assert str(skipped.value) == "user-mode Linux, busybox and QEMU 7.2 of Debian 12 is not set up (run: make peers)"
