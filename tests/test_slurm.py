"""Sweeps on SLURM, for real: on the cluster of one node that .ci/slurm brings up, of which these are a part.

They go on beside all other tests, so that all may take some times what it takes alone.
"""

import json
import os
import platform
import re
import shutil
import signal
import subprocess
import time

import pytest
from forked import run_command, start_command
from small import BARE, SMALL

from eprop_cli.errors import ConfigError
from eprop_cli.runs.files import write_text
from eprop_cli.runs.record import start as start_record
from eprop_cli.sweeps import slurm
from eprop_cli.sweeps.closing import why_broken_off
from eprop_cli.sweeps.multirun import JobOutcome, Multirun

QUICK = (*SMALL, *BARE, "training=data_parallel", "engine=compiled", "task.n_batch=2", "task.n_iter=2")
HUNGRY = """
import os
import time

import numpy as np

from eprop_cli.tasks.evidence_accumulation import EvidenceAccumulation


class Hungry(EvidenceAccumulation):
    def batch(self, rng):
        if self.config.n_cues == 5 and "SLURM_JOB_ID" in os.environ and not hasattr(self, "held"):
            self.held = np.ones(3 * 2**25)  # 0.75 GiB, beside what the processes of a job take
            time.sleep(5)
        return super().batch(rng)
"""
LONG = (*QUICK, "task.n_iter=1000000", "training.checkpoint_every=20")
NODE = (*QUICK, "task.n_iter=600", "training.checkpoint_every=20", "seed=1,2")
CLUSTER = ("hydra/launcher=slurm", "hydra.sweep.dir=sweep", "hydra.launcher.mem_gb=1", "hydra.launcher.timeout_min=10")
real = pytest.mark.skipif("SLURM_CONF" not in os.environ, reason="takes .ci/slurm, which brings a cluster up")


@pytest.fixture
def start(tmp_path):
    """Start a sweep on the cluster; what it prints is in the file out."""
    started = []

    def start(*arguments):
        with (tmp_path / "out").open("w") as out:
            options = {"cwd": tmp_path, "stdout": out, "stderr": out, "start_new_session": True}
            started.append(start_command("-m", *CLUSTER, *arguments, **options))
        return started[-1]

    yield start
    subprocess.run(["scancel", "-u", "root"], check=False) if shutil.which("scancel") else None
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait(60)


def waited(condition, timeout=180):
    until = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < until
        time.sleep(0.1)
    return found


def statuses(sweep):
    return sorted(json.loads(path.read_text())["status"] for path in sweep.glob("*/run.json"))


def rows(metrics):
    """A table without its seconds."""
    return [line.rsplit(",", 1)[0] for line in metrics.read_text().splitlines()]


def node(state, *options):
    """Set the node's state; returns whether it is up then. It may come up by itself, and SLURM refuses to resume it."""
    name = platform.node().split(".")[0]
    subprocess.run(["scontrol", "update", f"NodeName={name}", f"State={state}", *options], check=False)
    told = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, check=True).stdout
    return told.strip() in ("idle", "mixed", "allocated", "completing")


def queue():
    return subprocess.run(["squeue", "-h", "-r", "-o", "%i %T"], capture_output=True, text=True, check=True).stdout


@real
def test_what_waits_is_told_and_cancelled_at_the_first_signal(start, tmp_path):
    process = start(*LONG, "seed=1,2,3,4", "hydra.launcher.array_parallelism=1")
    waited(lambda: statuses(tmp_path / "sweep") == ["RUNNING"])
    waited(lambda: re.search(r"3 jobs wait in the queue \(JobArrayTaskLimit\)", (tmp_path / "out").read_text()))
    process.send_signal(signal.SIGTERM)
    assert process.wait(180) == 143
    assert queue() == ""
    assert statuses(tmp_path / "sweep") == ["INTERRUPTED"]
    assert "Traceback" not in (tmp_path / "out").read_text()


@real
def test_a_sweep_runs_and_its_jobs_go_on_when_their_node_was_lost_and_is_back(start, tmp_path):
    run_command(
        "-m", *NODE, "hydra.sweep.dir=undisturbed", cwd=tmp_path, check=True
    )  # where it runs makes no difference
    process = start(*NODE)
    waited(lambda: len(list((tmp_path / "sweep").glob("*/checkpoint.npz"))) == 2)
    node("down", "Reason=test")
    waited(lambda: queue().count("PENDING") == 2)
    waited(lambda: node("resume"))
    assert process.wait(180) == 0
    told = "2 jobs wait in the queue (BeginTime: SLURM will run them again, in a while)"
    printed = (tmp_path / "out").read_text()
    assert told in printed
    assert not re.search("sacct|accounting|HYDRA", printed)
    for there in (tmp_path / "undisturbed").glob("*/metrics.csv"):
        assert rows(tmp_path / "sweep" / there.parent.name / "metrics.csv") == rows(there)
    assert statuses(tmp_path / "sweep") == ["COMPLETED"] * 2


@real
def test_a_job_that_takes_more_memory_than_it_asked_for(start, tmp_path):
    (tmp_path / "hungry.py").write_text(HUNGRY)
    process = start(*QUICK, "task.name=hungry:Hungry", "task.n_cues=3,5")
    assert process.wait(240) == 1
    assert statuses(tmp_path / "sweep") == ["COMPLETED", "FAILED"]
    told = "2: job 2 ended without a word (OUT_OF_MEMORY with 1G: raise hydra.launcher.mem_gb)"
    assert re.sub(r"job \d+", "job 2", (tmp_path / "out").read_text()).count(told) == 1
    command = ("--allow-module", "hungry", "resume=sweep", "hydra.launcher.mem_gb=4")
    resumed = run_command(*command, cwd=tmp_path, check=True)
    assert resumed.stdout.splitlines()[-1] == "Jobs: 1 COMPLETED, 1 SKIPPED (COMPLETED before)"


@real
def test_a_time_limit_that_the_partition_does_not_give_is_refused(start, tmp_path):
    process = start(*QUICK, "seed=1,2", "hydra.launcher.timeout_min=61")
    assert process.wait(180) == 2
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


def test_the_queue_as_slurm_writes_it(answers):
    waiting = [f"5_{n}|PENDING|5|{reason}|1G\n" for n, reason in enumerate(["Resources", "Priority", "Resources"], 1)]
    answers["squeue"] = "".join(["5_0|RUNNING|6|None|1G\n", *waiting])
    jobs = slurm.look({"5"})
    assert jobs["5_0"] == slurm.Queued("RUNNING", "6", "None", "1G")
    assert slurm._waiting(jobs) == {"Resources": 2, "Priority": 1}
    answers["squeue"] = None
    assert slurm.look({"5"}) is None
    assert slurm.look(set()) == {}


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
        answers["squeue"] = "7_0|OUT_OF_MEMORY|8|None|1G\n7_1|RUNNING|9|None|1G\n"
        assert not queue.is_done("7_0", "force")
        answers["squeue"] = "7_0|OUT_OF_MEMORY|8|None|1G\n7_1|COMPLETED|9|None|1G\n"
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
        slurm._note(multirun, {"7_0": slurm.Queued("OUT_OF_MEMORY", "8", memory="1G")}, {})
        told = "job 8 ended without a word (OUT_OF_MEMORY with 1G: raise hydra.launcher.mem_gb)"
        assert multirun.outcomes == [JobOutcome(0, "seed-1", "FAILED", told, job="8")]
        assert statuses(multirun.directory) == ["FAILED"]

    def test_it_is_gone_if_slurm_has_forgotten_it(self, multirun, monkeypatch):
        monkeypatch.setattr(slurm, "LATE", 0.0)
        slurm._note(multirun, {}, {})
        assert multirun.outcomes[0].error == "job 8 ended without a word (unknown to SLURM)"

    @pytest.mark.parametrize("state", ["RUNNING", "PENDING", "COMPLETING"])
    def test_it_is_left_alone_while_the_job_may_go_on(self, multirun, monkeypatch, state):
        monkeypatch.setattr(slurm, "LATE", 0.0)
        slurm._note(multirun, {"7_0": slurm.Queued(state, "8")}, {})
        assert statuses(multirun.directory) == ["RUNNING"]

    def test_its_files_are_given_time_to_be_seen(self, multirun):
        seen = {}
        slurm._note(multirun, {"7_0": slurm.Queued("COMPLETED", "8")}, seen)
        assert statuses(multirun.directory) == ["RUNNING"]
        assert list(seen) == ["8"]

    @pytest.mark.parametrize(("state", "status"), [("PENDING", "RUNNING"), ("COMPLETED", "INTERRUPTED")])
    def test_one_that_was_interrupted_goes_on_if_it_waits_again(self, multirun, state, status):
        multirun.note(JobOutcome(0, "seed-1", "INTERRUPTED", job="8"))
        slurm._note(multirun, {"7_0": slurm.Queued(state, "8", "BeginTime")}, {})
        assert multirun.outcomes == [JobOutcome(0, "seed-1", status, job="8")]


@pytest.mark.parametrize(
    ("line", "how"),
    [
        ("slurmstepd-a: error: Exceeded job memory limit", "OUT_OF_MEMORY with 1G: raise hydra.launcher.mem_gb"),
        ("error: Detected 1 oom_kill event in StepId=3.0", "OUT_OF_MEMORY with 1G: raise hydra.launcher.mem_gb"),
        ("srun: error: vm: task 0: Killed", "FAILED: out of memory? see its logs and hydra.launcher.mem_gb"),
    ],
)
def test_a_job_that_ran_out_of_memory_by_what_slurm_wrote_in_its_log(tmp_path, line, how):
    write_text(tmp_path / ".submitit" / "7_0_0_log.err", f"first\n{line}\n")
    assert slurm.ended_so(tmp_path, "7_0", "FAILED", "1G") == how
    assert slurm.ended_so(tmp_path, "7_1", "CANCELLED", "1G") == "CANCELLED"


def test_what_a_job_that_left_no_result_means(tmp_path):
    uncompleted = type("UncompletedJobError", (Exception,), {})
    problem = uncompleted(
        "Job 7_0 (task: 0) with path x_result.pkl\nhas not produced any output (state: NODE_FAIL)\nError stream (x)"
    )
    told = "job 7_0 of the cluster ended without a word (NODE_FAIL: the node was lost); its logs are .submitit/7_0_*"
    assert why_broken_off(problem, tmp_path) == told
    told = "a job of the cluster ended without a word (Job not requeued: x.); its logs are in .submitit"
    assert why_broken_off(uncompleted("Job not requeued: x.\nmore"), tmp_path) == told
    assert why_broken_off(uncompleted(), tmp_path) == told.replace("Job not requeued: x.", "")
