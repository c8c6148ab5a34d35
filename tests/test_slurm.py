"""Sweeps on SLURM, for real: on the cluster of one node that .ci/slurm brings up, of which these are a part."""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import time

import pytest
from conftest import EPROP_RUN
from small import BARE, SMALL

from eprop_cli.errors import ConfigError
from eprop_cli.sweeps import slurm

QUICK = (*SMALL, *BARE, "training=data_parallel", "engine=compiled", "task.n_batch=2", "task.n_iter=2")
LONG = (*QUICK, "task.n_iter=1000000", "training.checkpoint_every=20")
CLUSTER = ("hydra/launcher=slurm", "hydra.sweep.dir=sweep", "hydra.launcher.mem_gb=1", "hydra.launcher.timeout_min=10")
real = pytest.mark.skipif("SLURM_CONF" not in os.environ, reason="takes .ci/slurm, which brings a cluster up")


@pytest.fixture
def start(tmp_path):
    """Start a sweep on the cluster; what it prints is in the file out."""
    started = []

    def start(*arguments):
        with (tmp_path / "out").open("w") as out:
            command = [EPROP_RUN, "-m", *CLUSTER, *arguments]
            started.append(subprocess.Popen(command, cwd=tmp_path, stdout=out, stderr=out, start_new_session=True))
        return started[-1]

    yield start
    subprocess.run(["scancel", "-u", "root"], check=False) if shutil.which("scancel") else None
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait(60)


def waited(condition, timeout=60):
    until = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < until
        time.sleep(0.1)
    return found


def statuses(sweep):
    return sorted(json.loads(path.read_text())["status"] for path in sweep.glob("*/run.json"))


def queue():
    return subprocess.run(["squeue", "-h", "-r", "-o", "%i %T"], capture_output=True, text=True, check=True).stdout


@real
def test_a_sweep_runs_and_submitit_says_once_that_there_is_no_accounting(start, tmp_path):
    process = start(*QUICK, "seed=1,2")
    assert process.wait(90) == 0
    printed = (tmp_path / "out").read_text()
    assert statuses(tmp_path / "sweep") == ["COMPLETED"] * 2
    assert "Bypassing sacct" not in printed
    assert printed.count(slurm.NO_ACCOUNTING) == 1


@real
def test_what_waits_is_told_and_cancelled_at_the_first_signal(start, tmp_path):
    process = start(*LONG, "seed=1,2,3,4", "hydra.launcher.array_parallelism=1")
    waited(lambda: statuses(tmp_path / "sweep") == ["RUNNING"])
    waited(lambda: re.search(r"3 jobs wait in the queue \(JobArrayTaskLimit\)", (tmp_path / "out").read_text()))
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert queue() == ""
    assert statuses(tmp_path / "sweep") == ["INTERRUPTED"]
    assert "Traceback" not in (tmp_path / "out").read_text()


@real
def test_a_time_limit_that_the_partition_does_not_give_is_refused(start, tmp_path):
    process = start(*QUICK, "seed=1,2", "hydra.launcher.timeout_min=61")
    assert process.wait(60) == 2
    line = "is beyond the time limit of partition short (60 min); lower it, or choose another"
    assert (tmp_path / "out").read_text() == f"eprop-run: hydra.launcher.timeout_min=61: {line}\n"
    assert not (tmp_path / "sweep").exists()


@pytest.fixture
def answers(monkeypatch):
    """Has commands of SLURM's answer with text, by their names."""
    given = {}
    monkeypatch.setattr(slurm, "_call", lambda name, *_: given.get(name))
    return given


class TestTimeLimit:
    @pytest.mark.parametrize(
        ("limit", "minutes"),
        [("1:00:00", 60), ("2-00:00:00", 2880), ("30:00", 30), ("infinite", None), ("n/a", None)],
    )
    def test_as_slurm_writes_it(self, limit, minutes):
        assert slurm._minutes(limit) == minutes

    @pytest.mark.parametrize("partition", ["long", None])
    def test_beyond_the_partitions(self, answers, partition):
        answers["sinfo"] = "short|10:00\nlong*|1:00:00\n"
        slurm.check_time_limit({"timeout_min": 60, "partition": partition})
        with pytest.raises(ConfigError, match=r"timeout_min=61: is beyond the time limit of partition long \(60 min\)"):
            slurm.check_time_limit({"timeout_min": 61, "partition": partition})

    @pytest.mark.parametrize("answer", [None, "", "short*|infinite\n"])
    def test_none_that_is_known(self, answers, answer):
        answers["sinfo"] = answer
        slurm.check_time_limit({"timeout_min": 10**6, "partition": None})


def test_what_waits_is_counted_by_reason(answers):
    answers["squeue"] = "Resources\nPriority\nResources\n"
    assert slurm._waiting({"5"}) == {"Resources": 2, "Priority": 1}
    assert slurm._waiting(set()) == {}
    answers["squeue"] = None
    assert slurm._waiting({"5"}) is None


def test_submitit_says_once_that_there_is_no_accounting(capsys):
    once = slurm._Once()
    records = [logging.LogRecord("submitit", 30, "", 1, text, (), None) for text in ("sacct error", "sacct error", "x")]
    assert [once.filter(record) for record in records] == [False, False, True]
    assert capsys.readouterr().err == f"eprop-run: {slurm.NO_ACCOUNTING}\n"
