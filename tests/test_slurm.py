"""Sweeps on SLURM, for real: on the cluster of one node that .ci/slurm brings up, of which these are a part."""

import json
import os
import re
import shutil
import signal
import subprocess
import time

import pytest
from forked import EPROP_RUN
from small import BARE, SMALL

from eprop_cli.errors import ConfigError
from eprop_cli.runs.files import write_text
from eprop_cli.runs.record import start as start_record
from eprop_cli.sweeps import slurm
from eprop_cli.sweeps.closing import why_broken_off
from eprop_cli.sweeps.multirun import JobOutcome, Multirun

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
def test_a_sweep_runs_and_nothing_is_said_of_accounts(start, tmp_path):
    process = start(*QUICK, "seed=1,2")
    assert process.wait(90) == 0
    printed = (tmp_path / "out").read_text()
    assert statuses(tmp_path / "sweep") == ["COMPLETED"] * 2
    assert not re.search("sacct|accounting|HYDRA", printed)


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


class TestQueue:
    @pytest.fixture
    def queue(self, monkeypatch):
        pytest.importorskip("submitit")
        from eprop_cli.sweeps.slurm_queue import Queue

        monkeypatch.setattr("submitit.SlurmJob.watcher", None)
        queue = Queue.take_over()
        for job in ("7_0", "7_1"):
            queue.register_job(job)
        return queue

    def test_submitit_hears_of_what_ended_once_all_have(self, answers, queue):
        answers["squeue"] = "7_0|OUT_OF_MEMORY|8\n7_1|RUNNING|9\n"
        assert not queue.is_done("7_0", "force")
        answers["squeue"] = "7_0|OUT_OF_MEMORY|8\n7_1|COMPLETED|9\n"
        time.sleep(0.002)
        assert queue.is_done("7_0", "force")
        assert [queue.get_state(job, "cache") for job in ("7_0", "7_1")] == ["OUT_OF_MEMORY", "COMPLETED"]
        assert queue.numbers() == {"7"}

    def test_what_slurm_does_not_know_has_ended_unless_it_does_not_answer(self, answers, queue):
        answers["squeue"] = None
        assert not queue.is_done("7_0", "force")
        answers["squeue"] = ""
        time.sleep(0.002)
        assert queue.is_done("7_1", "force")
        assert queue.get_state("7_1", "cache") == slurm.GONE


class TestGone:
    """A run of job 8 whose machine was another, so that nothing but SLURM can say that it is gone."""

    @pytest.fixture
    def multirun(self, tmp_path):
        multirun = Multirun(tmp_path / ".jobs" / "0")
        record = start_record(["eprop-run"]) | {"host": "elsewhere", "status": "RUNNING"}
        write_text(tmp_path / "seed-1" / "run.json", json.dumps(record))
        multirun.note(JobOutcome(0, "seed-1", "RUNNING", job="8"))
        return multirun

    def test_its_run_has_failed_with_the_remedy(self, multirun, monkeypatch):
        monkeypatch.setattr(slurm, "LATE", 0.0)
        slurm._note_gone(multirun, {"7_0": ("OUT_OF_MEMORY", "8")}, {})
        told = "job 8 ended without a word (OUT_OF_MEMORY: raise hydra.launcher.mem_gb)"
        assert multirun.outcomes == [JobOutcome(0, "seed-1", "FAILED", told, job="8")]
        assert statuses(multirun.directory) == ["FAILED"]

    @pytest.mark.parametrize("state", ["RUNNING", "PENDING", "COMPLETING"])
    def test_it_is_left_alone_while_the_job_may_go_on(self, multirun, monkeypatch, state):
        monkeypatch.setattr(slurm, "LATE", 0.0)
        slurm._note_gone(multirun, {"7_0": (state, "8")}, {})
        assert statuses(multirun.directory) == ["RUNNING"]

    def test_its_files_are_given_time_to_be_seen(self, multirun):
        seen = {}
        slurm._note_gone(multirun, {"7_0": ("COMPLETED", "8")}, seen)
        assert statuses(multirun.directory) == ["RUNNING"]
        assert list(seen) == ["8"]


def test_what_a_job_that_left_no_result_means():
    problem = type("UncompletedJobError", (Exception,), {})(
        "Job 7_0 (task: 0) with path x_result.pkl\nhas not produced any output (state: NODE_FAIL)\nError stream (x)"
    )
    told = "job 7_0 of the cluster ended without a word (NODE_FAIL: the node was lost); its logs are .submitit/7_0_*"
    assert why_broken_off(problem) == told
