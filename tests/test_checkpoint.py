import fcntl
import io
import json
import os
import platform
import zipfile

import numpy as np
import pytest
from small import BARE, SMALL, config

from eprop_cli.errors import UserError
from eprop_cli.runs.checkpoint import check_resume, load_checkpoint, save_checkpoint
from eprop_cli.runs.run import run
from eprop_cli.schema import to_dict

PARALLEL = (*SMALL, *BARE, "training=data_parallel", "engine=compiled", "task.n_iter=2", "training.n_iter_test=0")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Files of a run of two iterations."""
    directory = tmp_path_factory.mktemp("trained")
    assert run(config(*PARALLEL), directory).exit_status == 0
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture
def directory(trained, tmp_path):
    for name, content in trained.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def refusal(directory, *overrides):
    with pytest.raises(UserError) as caught:
        check_resume(config(*PARALLEL, *overrides), directory)
    return str(caught.value)


def note(directory, **entries):
    record = json.loads((directory / "run.json").read_text()) | entries
    (directory / "run.json").write_text(json.dumps(record))


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_what_is_saved_is_loaded(tmp_path):
    saved = {
        "config": '{"a": 1}',
        "rows": 3,
        "stopped": False,
        "iteration": 2,
        "w": np.array([[0.1, np.nextafter(1, 2)]]),
    }
    save_checkpoint(tmp_path, saved)
    loaded = load_checkpoint(tmp_path)
    assert loaded.keys() == saved.keys()
    assert json.loads(str(loaded["config"])) == {"a": 1}
    assert (int(loaded["rows"]), int(loaded["iteration"]), bool(loaded["stopped"])) == (3, 2, False)
    assert loaded["w"].tobytes() == saved["w"].tobytes()


def test_it_holds_no_pickle(directory):
    with np.load(directory / "checkpoint.npz", allow_pickle=False) as file:
        kinds = {name: file[name].dtype.kind for name in file.files}
    assert set(kinds.values()) <= set("biufU")
    with zipfile.ZipFile(directory / "checkpoint.npz") as archive:
        assert {name.removesuffix(".npy") for name in archive.namelist()} == kinds.keys()


def test_the_same_config_can_go_on(directory):
    check_resume(config(*PARALLEL), directory)


@pytest.mark.parametrize(
    "change",
    ["task.n_iter=9", "training.checkpoint_every=1", "plots=default", "recording=default"],
)
def test_keys_that_change_no_result_may_differ(directory, change):
    check_resume(config(*PARALLEL, change), directory)


@pytest.mark.parametrize(
    ("change", "had"),
    [
        ("seed=2", "1"),
        ("optimizer.eta=0.25", "0.005"),
        ("task.n_batch=2", "1"),
        ("neuron.ad.adapt_tau=100.0", "2000.0"),
        ("training.as_continuous=true", "False"),
        ("optimizer.clip_norm=1.0", "None"),
    ],
)
def test_a_contradicting_config_is_refused_by_its_key(directory, change, had):
    expected = f"{change}: contradicts the checkpoint in {directory}, which has {had}; leave it out"
    assert refusal(directory, change) == expected


@pytest.mark.parametrize("key", ["n_workers", "max_retries", "backend", "scheduler", "local_num_threads"])
def test_who_computes_may_differ(directory, key):
    checkpoint = load_checkpoint(directory)
    had = json.loads(str(checkpoint["config"]))
    had["engine"][key] = 7
    save_checkpoint(directory, checkpoint | {"config": json.dumps(had)})
    check_resume(config(*PARALLEL), directory)


def test_another_engine_is_refused(directory):
    other = [override for override in PARALLEL if override != "engine=compiled"]
    with pytest.raises(UserError) as caught:
        check_resume(config(*other, "engine=nest"), directory)
    expected = f"engine.name=nest: contradicts the checkpoint in {directory}, which has compiled; leave it out"
    assert str(caught.value) == expected


def test_a_longer_cosine_would_be_another_learning_rate(directory):
    cosine = "optimizer.schedule.name=cosine"
    save_checkpoint(
        directory,
        load_checkpoint(directory) | {"config": json.dumps(to_dict(config(*PARALLEL, cosine)))},
    )
    expected = f"optimizer.schedule.cosine_iter=3: contradicts the checkpoint in {directory}, which has 2; leave it out"
    assert refusal(directory, cosine, "task.n_iter=3") == expected


def test_fewer_iterations_than_were_trained(directory):
    expected = f"task.n_iter=1: is less than the 2 iterations that the run in {directory} has done"
    assert refusal(directory, "task.n_iter=1") == expected


def test_a_continuous_run(directory):
    with pytest.raises(UserError) as caught:
        check_resume(config(*SMALL), directory)
    assert str(caught.value) == (
        f"resume={directory}: a continuous run cannot be continued exactly, as NEST does not give out the state of its "
        "synapses; start again with training=data_parallel, which can"
    )


def test_a_run_that_is_still_going_on(directory):
    note(directory, status="RUNNING", pid=os.getppid())
    where = f"process {os.getppid()} on {platform.node()}"
    assert refusal(directory) == f"resume={directory}: is still running ({where}); stop it first"


def test_a_run_that_is_still_going_on_elsewhere(directory):
    note(directory, status="RUNNING", pid=5, host="elsewhere")
    with (directory / "metrics.csv").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        expected = f"resume={directory}: is still running (process 5 on elsewhere); stop it first"
        assert refusal(directory) == expected
    check_resume(config(*PARALLEL), directory)


@pytest.mark.parametrize("entries", [{"host": "elsewhere"}, {"pid": os.getpid()}, {"pid": 2**22 + 1}, {"pid": None}])
def test_a_run_that_says_it_is_but_cannot_be(directory, entries):
    """Its machine is another, or its number has gone to this process, or there is no process of that number."""
    note(directory, **({"status": "RUNNING", "pid": os.getppid(), "host": platform.node()} | entries))
    check_resume(config(*PARALLEL), directory)


@pytest.mark.parametrize("content", [None, b"", b"{", b"[1]", b'{"a": 1}', b"\xff\xfe"])
def test_no_record_of_a_run(directory, content):
    (directory / "run.json").unlink()
    if content is not None:
        (directory / "run.json").write_bytes(content)
    absent = content in (None, b"\xff\xfe")
    reason = "is not a run directory: it has no readable run.json" if absent else "cannot be resumed: its run.json is"
    assert refusal(directory).startswith(f"resume={directory}: {reason}")


def test_no_checkpoint(directory):
    path = directory / "checkpoint.npz"
    path.unlink()
    assert refusal(directory).startswith(f"{path}: no such file, so there is nothing to resume from; a COMPLETED run")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (npz(weights=np.zeros(3)), "not written by eprop-run"),
        (npy(np.zeros(3)), "damaged (File is not a zip file)"),
        (b"", "damaged (File is not a zip file)"),
        (b"rubbish", None),
        (npz(config="{", rows=0, iteration=0, stopped=False), None),
        (npz(config=np.array([{}], dtype=object)), None),
    ],
)
def test_a_foreign_checkpoint(directory, content, reason):
    path = directory / "checkpoint.npz"
    path.write_bytes(content)
    message = refusal(directory)
    assert "\n" not in message
    assert message.startswith(f"{path}: {reason or 'damaged ('}")
    assert message.endswith(", so there is nothing to resume from")


@pytest.mark.parametrize("change", ["cut", "flip"])
def test_a_damaged_checkpoint(directory, change):
    path = directory / "checkpoint.npz"
    content = bytearray(path.read_bytes())
    if change == "cut":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert refusal(directory).startswith(f"{path}: damaged (")


def test_rows_that_the_checkpoint_counts_on_are_missing(directory):
    path = directory / "metrics.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    assert refusal(directory) == f"{path}: damaged (it has 1 of 2 rows), so the run cannot go on"
    path.unlink()
    assert refusal(directory) == f"{path}: cannot be opened (No such file or directory), so the run cannot go on"
    path.mkdir()
    assert refusal(directory) == f"{path}: cannot be opened (Is a directory), so the run cannot go on"


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (1, "iteration,loss"),
        (2, "1,training,0.5"),
        (2, "1,training,0.5,0.5,0.5,1.0,1.0,0.1,7.0"),
        (2, "one,training,0.5,0.5,0.5,1.0,1.0,0.1"),
        (3, "2,trainin,0.5,0.5,0.5,1.0,1.0,0.1"),
        (3, "2,training,0.5,half,0.5,1.0,1.0,0.1"),
        (3, "\x00\udcff"),
        (3, ""),
    ],
)
def test_rows_that_the_checkpoint_counts_on_are_damaged(directory, number, line):
    path = directory / "metrics.csv"
    lines = path.read_text().splitlines()
    lines[number - 1] = line
    path.write_text("\n".join(lines) + "\n", errors="surrogateescape")
    assert refusal(directory) == f"{path}: damaged (line {number} is not one of a run), so the run cannot go on"


def test_rows_after_those_that_it_counts_on_are_not_looked_at(directory):
    with (directory / "metrics.csv").open("a") as file:
        file.write("3,trai\n4,")
    check_resume(config(*PARALLEL), directory)


def test_damaged_weight_changes(directory):
    path = directory / "recordings" / "weights.parquet"
    path.parent.mkdir()
    path.write_bytes(b"rubbish")
    assert refusal(directory).startswith(f"{path}: is damaged: ")
