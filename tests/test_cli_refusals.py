"""Impossible arguments are refused with one line, before anything is started."""

import subprocess
import sys

import pytest
from cli_setup import CommandLine

from vdev.cli import migrate as migrate_module
from vdev.cli import receive as receive_module


@pytest.fixture
def vdev(capsys, monkeypatch):
    def must_not_start(*args):
        raise AssertionError("a run was started")

    monkeypatch.setattr(migrate_module, "_run_processes", must_not_start)
    monkeypatch.setattr(migrate_module, "_run_in_one_loop", must_not_start)
    monkeypatch.setattr(receive_module, "_run", must_not_start)
    return CommandLine(capsys)


REFUSALS = {
    "migrate --ram 3": "give at least 4MiB",
    "migrate --ram 4095KiB": "give at least 4MiB",
    "migrate --ram 4194305": "not whole pages of 4096 bytes",
    "migrate --ram 1.0001KiB": "not a whole number of bytes",
    "migrate --ram 4096TiB": "this machine has",
    "migrate --ram much": "not a size like 512MiB or 1GiB",
    "migrate --ram -1GiB": "give at least 4MiB",
    "migrate --ram": "requires an argument",
    "migrate --workload files": "add --files DIR",
    "migrate --workload files --files /nowhere/at/all": "does not exist",
    "migrate --workload files --files /etc/passwd": "is a file",
    "migrate --files /tmp": "add --workload files",
    "migrate --workload sleep": "'idle', 'churn', 'files'",
    "migrate --rate 0": "give more than 0",
    "migrate --rate nan": "not a number of operations per second",
    "migrate --rate inf": "not a number of operations per second",
    "migrate --strategy hope": "'none', 'block-bulk'",
    "migrate --answer loud": "'list', 'bitmap'",
    "migrate --guest-holds breath": "'nothing', 'until-queued', 'until-used'",
    "migrate --strategy none --answer list": "leave out --answer",
    "migrate --strategy none --guest-holds nothing": "leave out --guest-holds",
    "migrate --strategy drain-in-exit-sync-first --transport vhost-user": "kicks that are exits",
    "migrate --answer bitmap --in-order": "leave out --in-order or --answer bitmap",
    "migrate --dirty-log paper": "'auto', 'kernel', 'cooperative'",
    "migrate --max-bandwidth 0": "give more than 0",
    "migrate --max-bandwidth=-1MiB/s": "give more than 0",
    "migrate --max-bandwidth fast": "a bandwidth like 100MiB/s",
    "migrate --downtime-limit 300": "with its unit, like 300ms or 0.3s",
    "migrate --downtime-limit 0ms": "give more than 0",
    "migrate --seed -1": "x>=0",
    "migrate --inflate 600MiB": "half of guest RAM",
    "migrate --inflate -4KiB": "half of guest RAM",
    "migrate --inflate 4097": "not whole pages",
    "migrate --in-one-loop --to /tmp/socket": "leave out --to or --in-one-loop",
    "migrate --in-one-loop --dirty-log kernel": "needs processes",
    "migrate --to nowhere": "write unix:/path/to/socket or tcp:HOST:PORT",
    "migrate --to localhost:99999": "write unix:/path/to/socket or tcp:HOST:PORT",
    "migrate --to unix:": "has no path",
    "migrate --transport vhost-user --in-one-loop": "needs processes",
    "migrate --transport vhost-user --no-ioeventfd": "every kick is an eventfd",
    "migrate --transport pigeon": "'mmio', 'vhost-user'",
    "migrate --ring round": "'split', 'packed'",
    "migrate --json /nowhere/report.json": "No such file or directory",
    "migrate --json /": "Is a directory",
    "migrate --trace /nowhere/t.jsonl": "No such file or directory",
    "migrate --trace -": "needs a file name",
    "migrate --json same --trace same": "give two names",
    "migrate there": "unexpected extra argument",
    "migrate --frobnicate": "No such option",
    "receive": "Missing option '--listen'",
    "receive --listen nowhere": "write unix:/path/to/socket or tcp:HOST:PORT",
    "teleport": "No such command",
}


@pytest.mark.parametrize("line", REFUSALS)
def test_is_refused_with_one_line_that_says_what_to_do(line, vdev):
    finished = vdev(line)
    assert finished.status == 2
    assert finished.stdout == ""
    assert finished.stderr.startswith("vdev")
    assert finished.stderr.count("\n") == 1
    assert REFUSALS[line] in finished.stderr


def test_a_refused_run_leaves_no_file(vdev, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert vdev("migrate --json report.json --trace /nowhere/t").status == 2
    assert vdev("migrate --json same --trace same").status == 2
    assert list(tmp_path.iterdir()) == []


def test_ram_for_two_sides_must_fit_when_both_are_here(vdev, monkeypatch):
    monkeypatch.setattr(migrate_module, "memory_size", lambda: 100 << 20)
    assert "source and destination together" in vdev("migrate --ram 64MiB").stderr
    with pytest.raises(AssertionError, match="a run was started"):
        vdev("migrate --ram 64MiB --to /tmp/socket")
    assert "the source would need" in vdev("migrate --ram 128MiB --to /tmp/socket").stderr


@pytest.mark.parametrize("line", ["--help", "migrate --help", "receive --help", "migrate --ram 3", "--version"])
def test_help_and_refusals_load_no_heavy_library(line):
    program = (
        "import sys; from vdev.cli.main import vdev; from vdev.cli.one_line import run_command\n"
        f"run_command(vdev, 'vdev', {line.split()!r})\n"
        "print('loaded:', *{'numpy', 'trio', 'rich', 'construct', 'perfetto', 'xxhash'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded:"


def test_bare_vdev_shows_its_help(vdev):
    finished = vdev("")
    assert finished.status == 0
    assert "migrate" in finished.stdout
    assert "receive" in finished.stdout
