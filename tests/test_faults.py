"""What becomes of a run whose worker, driver, arithmetic or disk fails."""

import contextlib
import os
import random
import re
import resource
import signal
import subprocess

import numpy as np
import pytest
from small import BARE, SMALL, Here, config

from benchmarks import faults
from eprop_cli.engines.compiled.engine import CompiledEngine
from eprop_cli.engines.nest import engine as nest
from eprop_cli.engines.nest.engine import simulate_share
from eprop_cli.runs.reader import Run
from eprop_cli.runs.run import Ending, run

PARALLEL = (*SMALL, *BARE, "training=data_parallel", "task.n_batch=3", "task.n_iter=4", "training.n_iter_test=1")
NEST = (*PARALLEL, "engine=nest", "engine.n_workers=2")
COMPILED = (*PARALLEL, "engine=compiled")
LETHAL = "EPROP_TEST_LETHAL"  # environment variable: a file that kills the worker that removes it


def simulate_unless_lethal(share):
    """What a worker does, unless it is to die in the middle of it."""
    try:
        os.unlink(os.environ[LETHAL])
    except FileNotFoundError:
        return simulate_share(share)
    os.kill(os.getpid(), signal.SIGKILL)


def die(_):
    os.kill(os.getpid(), signal.SIGKILL)


def resume(directory, *overrides):
    return run(config(*overrides, f"resume='{directory}'"), directory)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    directory = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nest, "Workers", Here)
        assert run(config(*NEST), directory) == Ending("COMPLETED", 0)
    return directory


@pytest.mark.nest
class TestAWorkerThatIsKilled:
    def test_is_replaced_and_leaves_no_trace(self, undisturbed, tmp_path, monkeypatch, watchers, caplog):
        lethal = tmp_path / "lethal"
        monkeypatch.setenv(LETHAL, str(lethal))
        monkeypatch.setattr(nest, "simulate_share", simulate_unless_lethal)
        watchers.append(lambda row: lethal.touch() if row.iteration == 2 else None)
        (tmp_path / "run").mkdir()
        assert run(config(*NEST), tmp_path / "run") == Ending("COMPLETED", 0)
        assert "A worker died; the iteration is run again on fresh ones (retry 1)" in caplog.messages
        assert faults.differences(undisturbed, tmp_path / "run") == []

    def test_time_and_again_ends_the_run(self, undisturbed, tmp_path, monkeypatch, watchers):
        few = ("engine.n_workers=1", "engine.max_retries=1")
        watchers.append(lambda row: monkeypatch.setattr(nest, "simulate_share", die) if row.iteration == 2 else None)
        ending = run(config(*NEST, *few), tmp_path)
        assert ending == Ending("FAILED", 1, "a worker died 2 times in one iteration; out of memory?")
        assert Run(tmp_path).status == "FAILED"
        assert Run(tmp_path).metrics["iteration"].tolist() == [1, 2]
        watchers.clear()
        monkeypatch.setattr(nest, "simulate_share", simulate_share)
        monkeypatch.setattr(nest, "Workers", Here)
        assert resume(tmp_path, *NEST, *few) == Ending("COMPLETED", 0)
        assert faults.differences(undisturbed, tmp_path) == []


@pytest.mark.nest
def test_workers_end_when_their_driver_is_killed(tmp_path):
    process = faults.start(tmp_path / "run", [*NEST, "task.n_iter=100000"])
    table = tmp_path / "run" / "metrics.csv"
    assert faults.wait_until(lambda: table.exists() and len(faults.rows(table.parent)) > 1)
    assert len(faults.processes(process.pid)) >= 3  # the driver and two workers
    assert faults.kill(process) == []
    assert faults.processes(process.pid) == []


@pytest.mark.slow
@pytest.mark.nest
def test_a_run_that_is_killed_again_and_again_ends_as_one_that_is_not(tmp_path):
    overrides = [*faults.RUN, "engine.n_workers=1", "task.n_iter=120"]
    assert faults.compare(tmp_path, overrides, kills=3, apart=8, moments=random.Random(1)) == []


class TestNumbersThatExplode:
    WAYS = ("training=data_parallel", "engine=compiled"), ()

    @pytest.mark.nest
    @pytest.mark.parametrize("way", WAYS, ids=["compiled", "continuous"])
    def test_infinite_loss(self, tmp_path, way):
        exploding = ("optimizer.eta=1e300", "optimizer.Wmin=-1e300", "optimizer.Wmax=1e300")
        ending = run(config(*SMALL, *BARE, *way, *exploding), tmp_path)
        assert ending == Ending("FAILED", 1, "the loss became inf in training iteration 2")
        assert Run(tmp_path).status == "FAILED"
        assert Run(tmp_path).metrics["iteration"].tolist() == [1]

    @pytest.fixture
    def failing_gradient(self, monkeypatch):
        """Has a value put among the gradients in the third iteration, just once."""
        gradient, calls = CompiledEngine.gradient, []

        def put(value):
            def spoilt(engine, *arguments):
                outcome = gradient(engine, *arguments)
                calls.append(None)
                if len(calls) == 3:
                    outcome.gradients["rec_rec"][0, 1] = value
                return outcome

            monkeypatch.setattr(CompiledEngine, "gradient", spoilt)

        return put

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_weights_and_checkpoint_are_those_before(self, tmp_path, failing_gradient, value):
        (tmp_path / "undisturbed").mkdir()
        (tmp_path / "run").mkdir()
        run(config(*COMPILED), tmp_path / "undisturbed")
        failing_gradient(value)
        ending = run(config(*COMPILED), tmp_path / "run")
        assert ending == Ending("FAILED", 1, "a weight of rec_rec became infinite or NaN in iteration 3")
        assert all(np.isfinite(weights.after).all() for weights in Run(tmp_path / "run").weights.values())
        with np.load(tmp_path / "run" / "checkpoint.npz") as checkpoint:
            assert int(checkpoint["iteration"]) == 2
            np.testing.assert_array_equal(checkpoint["weights_rec_rec"], Run(tmp_path / "run").weights["rec_rec"].after)
        assert resume(tmp_path / "run", *COMPILED) == Ending("COMPLETED", 0)
        assert faults.differences(tmp_path / "undisturbed", tmp_path / "run") == []


LONG = (*COMPILED, "task.n_iter=100000")


def assert_ended_whole(directory, error):
    """A run whose disk was full ended in order, with all that was there before."""
    assert faults.damage(directory) == []
    record = Run(directory).record
    assert (record["status"], record["error"]) == ("FAILED", error)
    n_rows = len(Run(directory).metrics)
    assert record["last_row"]["iteration"] == n_rows
    with np.load(directory / "checkpoint.npz") as checkpoint:
        assert 0 < int(checkpoint["iteration"]) <= n_rows
    assert {path.name for path in directory.rglob(".*")} <= {".hydra"}


class TestADiskThatIsFull:
    @pytest.fixture
    def small_disk(self, tmp_path):
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=220k", "tmpfs", str(disk)]
        if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("needs to mount a file system")
        yield disk
        subprocess.run(["umount", str(disk)], check=True)

    def test_ends_the_run_in_order(self, small_disk, eprop_run):
        done = eprop_run(*LONG, f"hydra.run.dir={small_disk / 'run'}")
        assert (done.returncode, done.stderr) == (1, "")
        error = Run(small_disk / "run").record["error"]
        assert re.fullmatch(rf"No space left on device: {small_disk}/run/\S+", error)
        assert done.stdout.splitlines()[-4].endswith(f" ({error})")  # then: Files, Log, Next
        assert_ended_whole(small_disk / "run", error)

    def test_from_the_beginning_leaves_no_run(self, small_disk, eprop_run):
        with (small_disk / "filling").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        done = eprop_run(*LONG, f"hydra.run.dir={small_disk / 'run'}")
        assert done.returncode == 1
        assert re.fullmatch(r"(eprop-run|FAILED): .*No space left on device.*\n", done.stdout + done.stderr)

    @pytest.fixture
    def _small_files(self, tmp_path_factory):
        """Files cannot grow beyond 70 kB; to a program that is as if the disk were full, and takes no root."""
        run(config(*LONG, "task.n_iter=1"), tmp_path_factory.mktemp("compiled"))  # Numba's files are larger
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, hard))
        yield
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    @pytest.mark.usefixtures("_small_files")
    def test_or_files_that_may_not_grow(self, tmp_path):
        error = f"File too large: {tmp_path / 'metrics.csv'}"
        assert run(config(*LONG), tmp_path) == Ending("FAILED", 1, error)
        assert 65_000 < (tmp_path / "metrics.csv").stat().st_size <= 70_000
        assert_ended_whole(tmp_path, error)
