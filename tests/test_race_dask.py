"""The sweep runs on a Dask cluster: a real scheduler and real workers, here."""

import json
import os
import subprocess
import sys
import time

import pytest

pytest.importorskip("distributed", reason="pip install 'vdev[dask]'")

from vdev.errors import UserError
from vdev.race.combination import Bound, Combination
from vdev.race.executors import open_executor
from vdev.race.finding_json import verdict_to_json
from vdev.race.journal import Journal
from vdev.race.judge import Question
from vdev.race.sweep import sweep

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The address of a scheduler that has one worker."""
    directory = tmp_path_factory.mktemp("cluster")
    where = directory / "scheduler.json"
    common = ["--scheduler-file", str(where), "--no-dashboard"]
    scheduler = [sys.executable, "-m", "distributed.cli.dask_scheduler", *common, "--port", "0", "--host", "127.0.0.1"]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", *common, "--nworkers", "1", "--nthreads", "1"]
    started = []
    try:
        for command in (scheduler, [*worker, "--local-directory", str(directory)]):
            log = (directory / f"log-{len(started)}").open("w")
            started.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=directory))
            log.close()
        deadline = time.monotonic() + 60
        while not where.exists() or not where.read_text():
            assert time.monotonic() < deadline
            assert started[0].poll() is None, (directory / "log-0").read_text()
            time.sleep(0.05)
        yield json.loads(where.read_text())["address"]
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(30)


def test_a_cluster_computes_elsewhere(cluster):
    with open_executor(f"dask:{cluster}") as executor:
        pids = {executor.submit(os.getpid).result(timeout=60) for _ in range(3)}
    assert len(pids) == 1
    assert os.getpid() not in pids


def test_a_cluster_judges_as_processes_do(cluster, tmp_path):
    question = Question(Combination("none"), Bound(writes=1, hints=1))
    combinations = [Combination("none"), Combination("filter-on-ready", holds="nothing")]
    found = []
    for name in ("local", f"dask:{cluster}"):
        with Journal(tmp_path / "journal", {}, resume=False) as journal, open_executor(name) as executor:
            verdicts = sweep(combinations, question, executor, journal, lambda progress: None)
        found.append([verdict_to_json(verdict, timing=False) for verdict in verdicts])
    assert found[0] == found[1]
    assert [verdict["broken"] for verdict in found[0]] == [False, True]


def test_what_a_cluster_raises_arrives_here(cluster):
    with open_executor(f"dask:{cluster}") as executor, pytest.raises(ValueError, match="invalid literal"):
        executor.submit(int, "many").result(timeout=60)


def test_a_cluster_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr("vdev.race.executors._CONNECT_SECONDS", 1)
    with (
        pytest.raises(UserError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1; start one") as caught,
        open_executor("dask:tcp://127.0.0.1:1"),
    ):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["nowhere", "tcp://", "tcp://host", "pigeon://host:1", "tcp://host:1 2", "host:1"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(UserError, match="write it like tcp://host:8786"), open_executor(f"dask:{address}"):
        pass
