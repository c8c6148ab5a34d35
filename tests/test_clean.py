from functools import partial

import pytest
from small import BARE
from synthetic_run import write_run

from eprop_cli.cli import eprop_clean
from eprop_cli.runs import checkpoint
from eprop_cli.runs.checkpoint import drop_large_checkpoint

COMPILED = ("experiment=smoke", "engine=compiled", "training=data_parallel", *BARE)


@pytest.fixture
def clean(in_lines):
    """Runs eprop-clean; gives exit status, lines on stdout, lines on stderr."""
    return partial(in_lines, "eprop-clean", eprop_clean.clean)


@pytest.fixture
def sweep(tmp_path):
    """Two runs COMPLETED, the first in its second try, and one INTERRUPTED."""
    for name, status in {"a": "COMPLETED", "a.old-1": "FAILED", "b": "COMPLETED", "c": "INTERRUPTED"}.items():
        run = write_run(tmp_path / "sweep" / name, status=status)
        (run / "checkpoint.npz").write_bytes(bytes(1500))
    write_run(tmp_path / "sweep" / "c.old-1", status="FAILED")
    return tmp_path / "sweep"


def files(directory):
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_dry_unless_told_otherwise(clean, sweep):
    before = files(sweep)
    status, out, err = clean(sweep)
    assert (status, err, files(sweep)) == (0, [], before)
    assert [line.split()[2] for line in out[:-1]] == [
        str(sweep / name) for name in ("a/checkpoint.npz", "a.old-1", "b/checkpoint.npz")
    ]
    assert out[0].split()[:2] == ["1.5", "kB"]
    assert out[-1].endswith("could be removed; add --delete")


def test_what_runs_that_are_not_completed_need_stays(clean, sweep):
    before = files(sweep)
    assert clean(sweep, "--delete")[0] == 0
    gone = before - files(sweep)
    assert gone == {"a/checkpoint.npz", "b/checkpoint.npz"} | {name for name in before if name.startswith("a.old-1/")}
    assert clean(sweep, "--delete")[1] == ["0 B removed"]


def test_bad_input(clean, tmp_path):
    assert clean(tmp_path)[::2] == (2, [f"eprop-clean: {tmp_path}: no run directory in there (none holds a run.json)"])
    assert clean(tmp_path / "no")[::2] == (2, [f"eprop-clean: {tmp_path / 'no'}: is no directory"])


def test_a_small_checkpoint_is_kept_a_large_one_is_not(tmp_path):
    path = tmp_path / "checkpoint.npz"
    path.write_bytes(bytes(checkpoint.SMALL_BYTES - 1))
    drop_large_checkpoint(tmp_path)
    assert path.exists()
    path.write_bytes(bytes(checkpoint.SMALL_BYTES))
    drop_large_checkpoint(tmp_path)
    assert not path.exists()


@pytest.mark.slow
def test_a_large_checkpoint_goes_unless_asked_for(eprop_run, tmp_path):
    # Adam's moments of 600 neurons are 10 MB; the task itself is small.
    large = (*COMPILED, "neuron.n_reg=600", "task.n_iter=1", "training.n_iter_test=0")
    assert eprop_run(*large, "hydra.run.dir=without").returncode == 0
    assert not (tmp_path / "without" / "checkpoint.npz").exists()
    assert eprop_run(*large, "training.keep_checkpoint=true", "hydra.run.dir=with").returncode == 0
    assert (tmp_path / "with" / "checkpoint.npz").stat().st_size > checkpoint.SMALL_BYTES
    done = eprop_run("resume=without", "task.n_iter=2")
    assert (done.returncode, done.stderr) == (
        2,
        "eprop-run: without/checkpoint.npz: no such file, so there is nothing to resume from; a COMPLETED run keeps it "
        "if it is small, or with training.keep_checkpoint=true; to begin a run from its weights: "
        "synapse.weights_from=without\n",
    )
    assert eprop_run("resume=with", "task.n_iter=2").returncode == 0
