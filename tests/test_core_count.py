import loky
import pytest
from small import config

from eprop_cli.sweeps import core_count
from eprop_cli.sweeps.core_count import jobs_at_once, jobs_sharing_cores, shortage

BASIC = {"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"}
JOBLIB = {"_target_": "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher", "n_jobs": 3}
LOCAL = {"_target_": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher"}
SLURM = {"_target_": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher", "cpus_per_task": 2}
UNKNOWN = {"_target_": "somewhere.RayLauncher"}


@pytest.fixture(autouse=True)
def _four_cores(monkeypatch):
    monkeypatch.setattr(core_count, "n_cores", lambda: 4)


@pytest.fixture
def run():
    """A config with as many workers as asked for."""
    return lambda workers=1, engine="nest": config(
        "task.n_batch=8", "training=data_parallel", f"engine={engine}", f"engine.n_workers={workers}"
    )


@pytest.mark.parametrize(("threads", "workers", "jobs"), [(1, 1, 4), (2, 1, 2), (1, 3, 1), (2, 2, 1), (4, 4, 1)])
def test_parallel_jobs_are_as_many_as_there_are_cores_for(threads, workers, jobs):
    assert jobs_at_once(threads, workers) == jobs


@pytest.mark.parametrize(
    ("launcher", "n_jobs", "expected"),
    [(BASIC, 9, 1), (JOBLIB, 9, 3), (JOBLIB, 2, 2), (LOCAL, 9, 9), (SLURM, 9, 1), (UNKNOWN, 9, 1)],
)
def test_jobs_at_once_on_shared_cores(launcher, n_jobs, expected):
    assert jobs_sharing_cores(launcher, n_jobs) == expected


def test_joblib_counts_back_from_all_cores():
    expected = loky.cpu_count()
    assert jobs_sharing_cores(JOBLIB | {"n_jobs": -1}, 1000) == expected


@pytest.mark.parametrize(
    ("launcher", "workers", "n_jobs"), [(BASIC, 4, 9), (JOBLIB, 1, 9), (JOBLIB, 2, 2), (LOCAL, 2, 2), (SLURM, 2, 9)]
)
def test_no_warning_where_there_are_cores_enough(run, launcher, workers, n_jobs):
    assert shortage(run(workers), {}, launcher, n_jobs) == ""


@pytest.mark.parametrize(
    ("launcher", "workers", "expected"),
    [
        (BASIC, 5, "5 cores (1 at once x 5"),
        (JOBLIB, 2, "6 cores (3 at once x 2"),
        (LOCAL, 1, "9 cores (9 at once x 1"),
    ],
)
def test_the_warning_names_the_numbers(run, launcher, workers, expected):
    assert shortage(run(workers), {}, launcher, 9) == (
        f"the jobs want {expected} each (engine.n_workers and threads)), but have 4; "
        "hydra/launcher=parallel counts them"
    )


def test_on_slurm_a_job_has_the_cores_that_it_asked_for(run):
    assert shortage(run(3), {}, SLURM, 9) == (
        "the jobs want 3 cores (1 at once x 3 each (engine.n_workers and threads)), but have 2; "
        "give hydra.launcher.cpus_per_task"
    )


def test_of_swept_workers_and_threads_the_most_count(run):
    swept = {"engine.n_workers": [1, 2, 4], "engine.local_num_threads": [1, 2]}
    assert "want 8 cores (1 at once x 8 each" in shortage(run(1), swept, BASIC, 9)


def test_threads_of_nest_make_no_difference_to_the_compiled_engine(run):
    assert shortage(run(4, engine="compiled"), {"engine.local_num_threads": [2]}, BASIC, 9) == ""


def test_an_unknown_launcher_is_left_alone(run):
    assert shortage(run(8), {}, UNKNOWN, 9) == ""
