import json
import os
import platform
import re
import subprocess

import pytest
from omegaconf import OmegaConf
from synthetic_run import SMOKE, compose, training_rows, write_run

from eprop_cli.config.composed import without_hydra
from eprop_cli.config.load import load
from eprop_cli.errors import ConfigError, UserError
from eprop_cli.runs.writer import header
from eprop_cli.sweeps.job_directory import JobDirectory, job_name, job_runs


def composed(*overrides):
    return without_hydra(compose(*SMOKE, *overrides))


def config(*overrides):
    return load(composed(*overrides))


@pytest.fixture
def job_directory(tmp_path):
    """A job's run directory that is not there yet, and the scratch directory where Hydra began the job."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "eprop-run.log").write_text("")
    return JobDirectory(tmp_path / "job", tmp_path / "scratch", ["eprop-run", "seed=1"])


def record(directory):
    return json.loads((directory / "run.json").read_text())


def change(directory, **changes):
    (directory / "run.json").write_text(json.dumps(record(directory) | changes))


def contents(directory):
    """Everything in a directory, by name."""
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()
    }


@pytest.fixture
def ended():
    """Id of a process that is no more."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


class TestName:
    def test_overrides_in_the_order_of_their_keys(self):
        assert job_name(["seed=1", "optimizer.eta=0.001"], ["seed"]) == "optimizer.eta-0.001__seed-1"

    def test_without_overrides(self):
        assert job_name([], []) == "defaults"

    def test_keys_that_change_nothing_in_the_result_are_left_out_unless_swept(self):
        overrides = ["plots=none", "training.n_workers=2", "seed=1", "objective=test_loss"]
        assert job_name(overrides, ["seed"]) == "seed-1"
        assert job_name(overrides, ["training.n_workers"]) == "seed-1__training.n_workers-2"

    def test_characters_of_the_shell_are_rejob_directoryd_and_told_apart(self):
        names = [job_name([f"task.steps={value}"], ["task.steps"]) for value in ("{cue: 15}", "{cue; 15}")]
        assert [re.sub(r"-[0-9a-f]{8}$", "", name) for name in names] == ["task.steps--cue--15-"] * 2
        assert len(set(names)) == 2

    def test_long_ones_are_cut_and_told_apart(self):
        overrides = [[f"synapse.weights_from={'x' * 300}{end}"] for end in "ab"]
        names = [job_name(each, []) for each in overrides]
        assert [len(name) for name in names] == [120 + len("-01234567")] * 2
        assert len(set(names)) == 2

    @pytest.mark.parametrize("override", ["seed=1/2", "seed=..", "+new.key=a b", "~task.n_in", "seed='$(x)'", "seed=é"])
    def test_is_a_name(self, override):
        assert re.fullmatch(r"[\w.+-]+", job_name([override], []), flags=re.ASCII)


class TestTake:
    def test_a_job_that_begins_gets_its_scratch_directory_as_run_directory(self, job_directory):
        assert job_directory.take(config()) == config()
        assert not job_directory.scratch.exists()
        assert {path.name for path in job_directory.path.iterdir()} == {"eprop-run.log", "run.json", "metrics.csv"}
        assert (job_directory.path / "metrics.csv").read_text() == header(column.name for column in config().columns)
        said = record(job_directory.path)
        assert (said["status"], said["command"], said["pid"]) == ("RUNNING", ["eprop-run", "seed=1"], os.getpid())

    def test_a_completed_run_is_left_as_it_is(self, job_directory):
        before = contents(write_run(job_directory.path))
        assert job_directory.take(config()) is None
        assert contents(job_directory.path) == before

    def test_a_completed_run_that_was_only_carried_out_otherwise_is_the_same(self, job_directory):
        write_run(job_directory.path)
        assert job_directory.take(config("plots.dpi=50")) is None

    def test_a_completed_run_of_something_else_is_left_alone(self, job_directory):
        before = contents(write_run(job_directory.path, "seed=2"))
        with pytest.raises(ConfigError) as refused:
            job_directory.take(config())
        remedy = "move it away or choose another hydra.sweep.dir"
        assert str(refused.value) == f"seed=1: {job_directory.path} holds a run with 2; {remedy}"
        assert contents(job_directory.path) == before

    def test_other_files_are_left_alone(self, job_directory):
        job_directory.path.mkdir()
        (job_directory.path / "thesis.tex").write_text("all of it")
        with pytest.raises(UserError, match=r"is not a run directory: it holds no run\.json"):
            job_directory.take(config())
        assert contents(job_directory.path) == {"thesis.tex": b"all of it"}

    def test_a_run_that_trained_nothing_is_rejob_directoryd(self, job_directory):
        job_directory.refuse(composed("task.n_batch=0"), "task.n_batch=0: must be at least 1")
        job_directory.scratch.mkdir()
        assert job_directory.take(config()) == config()
        assert record(job_directory.path)["status"] == "RUNNING"

    @pytest.mark.parametrize("status", ["FAILED", "INTERRUPTED"])
    def test_a_run_that_cannot_go_on_is_kept_beside(self, job_directory, status):
        for number in (1, 2):
            before = contents(write_run(job_directory.path, rows=training_rows(number), status=status))
            job_directory.scratch.mkdir(exist_ok=True)
            assert job_directory.take(config()).resume is None
            assert contents(job_directory.path.with_name(f"job.old-{number}")) == before
            assert record(job_directory.path)["status"] == "RUNNING"
            for path in job_directory.path.iterdir():
                path.unlink()
            job_directory.path.rmdir()

    def test_a_run_that_goes_on_elsewhere_is_left_alone(self, job_directory):
        change(write_run(job_directory.path, rows=training_rows(1)), status="RUNNING", host="node7", pid=4711)
        with pytest.raises(UserError) as refused:
            job_directory.take(config())
        assert str(refused.value) == (
            f"{job_directory.path}: is still running (process 4711 on node7); if it is not, set its status in run.json "
            "to INTERRUPTED"
        )

    def test_a_run_that_was_killed_here_is_not_waited_for(self, job_directory, ended):
        directory = write_run(job_directory.path, rows=training_rows(1))
        change(directory, status="RUNNING", host=platform.node(), pid=ended)
        assert job_directory.take(config()) is not None
        assert job_directory.path.with_name("job.old-1").exists()

    def test_a_slurm_job_that_was_requeued_takes_up_its_own_run(self, job_directory, monkeypatch):
        directory = write_run(job_directory.path, rows=training_rows(1))
        change(directory, status="RUNNING", host="node7", pid=4711, slurm_job="815")
        monkeypatch.setenv("SLURM_JOB_ID", "816")
        with pytest.raises(UserError, match="is still running"):
            job_directory.take(config())
        monkeypatch.setenv("SLURM_JOB_ID", "815")
        assert job_directory.take(config()) is not None


class TestRefuse:
    def test_a_bad_config_has_a_record_with_its_error(self, job_directory):
        job_directory.refuse(composed("task.n_batch=0"), "task.n_batch=0: must be at least 1")
        said = record(job_directory.path)
        assert (said["status"], said["error"]) == ("FAILED", "task.n_batch=0: must be at least 1")
        assert said["config"]["task"]["n_batch"] == 0

    def test_a_config_that_does_not_resolve_is_kept_as_it_is(self, job_directory):
        bad = OmegaConf.merge(composed(), {"seed": "${nowhere}"})
        job_directory.refuse(bad, "no such key")
        assert record(job_directory.path)["config"]["seed"] == "${nowhere}"

    def test_the_record_is_beside_a_run_that_is_there(self, job_directory):
        before = contents(write_run(job_directory.path, "seed=2"))
        job_directory.refuse(composed(), "it holds another run")
        assert contents(job_directory.path) == before
        assert record(job_directory.path.with_name("job.refused"))["error"] == "it holds another run"

    def test_the_record_goes_when_the_job_can_run(self, job_directory):
        write_run(job_directory.path)
        job_directory.refuse(composed(), "it holds another run")
        job_directory.take(config())
        assert not job_directory.path.with_name("job.refused").exists()


class TestConclude:
    def test_a_run_that_could_not_say_so_itself_failed(self, job_directory):
        job_directory.take(config())
        assert job_directory.conclude("its process was killed by SIGKILL") == (
            "FAILED",
            "its process was killed by SIGKILL",
        )
        assert record(job_directory.path)["status"] == "FAILED"

    def test_a_run_that_said_so_itself_is_believed(self, job_directory):
        before = contents(write_run(job_directory.path))
        assert job_directory.conclude("its process was killed by SIGKILL") == ("COMPLETED", None)
        assert contents(job_directory.path) == before


def test_runs_of_a_sweep_are_in_natural_order_without_those_moved_aside(tmp_path):
    names = ["eta-1e-05__seed-2", "eta-0.001__seed-1", "eta-0.001__seed-2", "eta-0.001__seed-10", "eta-0.01__seed-1"]
    for name in (*names, "eta-0.01__seed-1.old-1", "eta-0.01__seed-1.old-12", "eta-0.01__seed-1.refused"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{}")
    expected = [*names, "eta-0.01__seed-1.refused"]
    assert [run.directory.name for run in job_runs(tmp_path)] == expected
