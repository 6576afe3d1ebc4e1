"""What `vdev race --rings` shows: every scenario with its bound; or the steps that break one, and a file of them."""

import json

import pytest
from cli_setup import CommandLine
from race_rings_mutants import FENCE, put

from guest_agent.virtqueue.packed import PackedDriverQueue
from vdev.cli.race_rings import is_ring_schedule, show_ring_replay, show_rings
from vdev.errors import UserError
from vdev.race.rings import RingScenario, default_scenarios


@pytest.mark.parametrize("ring", ["split", "packed"])
def test_every_way_of_a_ring_is_looked_at_and_shown_with_its_bound(ring, capsys, tmp_path):
    assert show_rings(ring, "exhaustive", {}, None, None, tmp_path / "all.json") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(default_scenarios(ring)) + 1 == 29
    assert all(line.startswith("nothing found: ") and "every interleaving; " in line for line in lines[:-1])
    assert lines[-1].startswith("nothing is lost, torn or taken twice in 28 scenarios, ")
    assert [each["complete"] for each in json.loads((tmp_path / "all.json").read_text())] == [True] * 28


def test_a_search_that_was_cut_short_says_so(capsys):
    assert show_rings("split", "exhaustive", {}, 50, None, None) == 3
    assert "only the first" in capsys.readouterr().out


def test_larger_rings_are_sampled(capsys):
    assert show_rings("packed", "pct", {"runs": 1, "seed": 4}, None, None, None) == 0
    assert "16 buffers of 1 segment through a packed ring of 8" in capsys.readouterr().out


def test_what_breaks_is_told_saved_and_replayed(capsys, tmp_path, monkeypatch):
    path = tmp_path / "lost.txt"
    with monkeypatch.context() as patch:
        put(patch, PackedDriverQueue, "should_kick", (FENCE, "pass"))
        assert show_rings("packed", "exhaustive", {}, None, path, None) == 1
        told = capsys.readouterr().out
        assert "\na) driver stores " in told
        assert told.splitlines()[-1].startswith("=> lost kick: ")
        assert is_ring_schedule(path)
        assert show_ring_replay(path, None) == 1
        assert capsys.readouterr().out.splitlines()[-1] == told.splitlines()[-1]
    with pytest.raises(UserError, match=r"lost.txt:\d+: 'driver: loads device_event"):
        show_ring_replay(path, None)
    start = f"vdev ring schedule 1\nbreaks: lost kick\nbuffers: {RingScenario().buffers}\n"
    path.write_text(start)
    assert show_ring_replay(path, None) == 4
    path.write_text("vdev schedule 1\n")
    assert not is_ring_schedule(path)
    assert not is_ring_schedule(tmp_path)


def test_the_command_races_rings_and_refuses_what_has_no_meaning_there(tmp_path, capsys):
    vdev = CommandLine(capsys)
    done = vdev("race --rings split --max-states 20")
    assert (done.status, done.stdout.count("only the first")) == (3, 28)
    refused = vdev("race --rings split --strategy none --pages 2")
    assert (refused.status, refused.stdout) == (2, "")
    assert "--strategy, --pages: a ring race knows no pages" in refused.stderr
    path = tmp_path / "start.txt"
    path.write_text("vdev ring schedule 1\n")
    replayed = vdev(f"race --replay {path}")
    assert (replayed.status, replayed.stdout) == (0, "nothing is broken after 0 steps\n")
