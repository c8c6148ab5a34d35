import os
import signal
import sys
import threading
from types import SimpleNamespace

import pytest
from small import SMALL, config

from eprop_cli.engines.nest import kernel, workers
from eprop_cli.engines.nest.workers import Workers
from eprop_cli.errors import TrainingError, UserError


def make(*overrides):
    given = ["task.n_batch=3", "training=data_parallel", *(f"engine.{override}" for override in overrides)]
    return Workers(config(*SMALL, *given).engine)


def double(item):
    return 2 * item


def pid(_):
    return os.getpid()


def only_simulates(_):
    return kernel._only_simulates


def fail(item):
    raise ValueError(f"cannot do {item}")


def die(_):
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(path):
    """Die unless the file at path is there already."""
    if not path.exists():
        path.touch()
        die(path)
    return os.getpid()


def test_results_are_in_the_items_order():
    made = make("n_workers=2")
    try:
        assert made.map(double, [3, 1, 2], builds=2) == [6, 2, 4]
        assert all(made.map(only_simulates, [1, 2], builds=1))
        assert not kernel._only_simulates  # in this process
    finally:
        made.close()


def test_an_interrupt_while_work_is_handed_out_leaves_no_trace(monkeypatch):
    made, failures = make("n_workers=1"), []
    monkeypatch.setattr(threading, "excepthook", failures.append)

    def interrupted(futures):
        assert [future.result() for future in futures] == [2, 4]
        with monkeypatch.context() as asleep:  # loky's own thread
            asleep.setattr(made._executor._executor_manager_thread_wakeup, "wakeup", lambda: None)
            made._executor.submit(double, 3)
        raise KeyboardInterrupt

    monkeypatch.setattr(made, "_results", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made.map(double, [1, 2], builds=2)
    assert not failures


def test_work_is_done_in_the_same_processes_until_they_are_replaced(monkeypatch):
    monkeypatch.setattr(workers, "RECYCLE_AFTER", 4)
    made = make("n_workers=1")
    try:
        pids = [made.map(pid, [0], builds=2)[0] for _ in range(3)]
    finally:
        made.close()
    assert pids[0] == pids[1] != pids[2]
    assert os.getpid() not in pids


def test_work_of_a_worker_that_died_is_done_again(tmp_path, caplog):
    made = make("n_workers=1")
    try:
        first = made.map(pid, [0], builds=1)
        (second,) = made.map(die_once, [tmp_path / "died"], builds=1)
    finally:
        made.close()
    assert second not in [*first, os.getpid()]
    assert caplog.messages == ["A worker died; the iteration is run again on fresh ones (retry 1)"]


@pytest.mark.parametrize("retries", [0, 1])
def test_workers_that_keep_dying_end_training(retries):
    made = make("n_workers=1", f"max_retries={retries}")
    with pytest.raises(TrainingError) as error:
        made.map(die, [0], builds=1)
    assert str(error.value) == f"a worker died {retries + 1} times in one iteration; out of memory?"
    assert made._executor is None


def test_work_that_fails_is_not_done_again():
    made = make("n_workers=1")
    with pytest.raises(ValueError, match="cannot do 5"):
        made.map(fail, [5], builds=1)
    assert made._executor is None


def test_a_worker_leaves_interrupts_to_the_driver(tmp_path):
    made = make("n_workers=1")
    try:
        assert made.map(interrupted, [0], builds=1) == ["goes on"]
    finally:
        made.close()


def interrupted(_):
    os.kill(os.getpid(), signal.SIGINT)
    return "goes on"


def test_closing_twice_is_closing_once():
    made = make("n_workers=1")
    made.close()
    made.map(double, [1], builds=1)
    made.close()
    made.close(at_once=True)


def test_dask_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    made = make("backend=dask", "scheduler=tcp://127.0.0.1:1")
    with pytest.raises(UserError) as error:
        made.map(double, [1], builds=1)
    assert str(error.value) == "engine.backend=dask: needs Dask; pip install '.[dask]' in the checkout"


@pytest.mark.parametrize("scheduler", ["tcp://127.0.0.1:1", "nowhere://there"])
def test_a_scheduler_that_does_not_answer_is_named(scheduler, monkeypatch):
    monkeypatch.setattr(workers, "PATIENCE", 0.2)
    made = make("backend=dask", f"scheduler={scheduler}")
    with pytest.raises(UserError) as error:
        made.map(double, [1], builds=1)
    assert str(error.value) == f"engine.scheduler={scheduler}: no Dask scheduler answers there"


@pytest.mark.parametrize(
    ("python", "eprop", "told"),
    [
        ("3.11.9.final.0", "2", None),
        ("3.12.1.final.0", "2", "Python 3.12, but here it is 3.11"),
        ("3.11.9.final.0", "1", "eprop-cli 1, but here it is 2"),
        ("3.11.9.final.0", None, "eprop-cli missing, but here it is 2"),
    ],
)
def test_a_dask_worker_of_another_installation_is_named(python, eprop, told):
    def installation(python, eprop):
        return {"host": {"python": python}, "packages": {"eprop_cli": eprop}}

    found = {"client": installation("3.11.7.final.0", "2"), "workers": {"tcp://w": installation(python, eprop)}}
    if told is None:
        workers._check_versions("tcp://s", found)
        return
    with pytest.raises(UserError) as error:
        workers._check_versions("tcp://s", found)
    remedy = "start the workers from the same installation"
    assert str(error.value) == f"engine.scheduler=tcp://s: the worker tcp://w has {told}; {remedy}"


@pytest.mark.parametrize(
    ("statuses", "told"),
    [
        ([], ["The Dask scheduler has no workers; start some: dask worker tcp://s"]),
        (["paused", "paused"], ["All Dask workers are paused, short of memory; give them a higher --memory-limit"]),
        (["paused", "running"], []),
    ],
)
def test_why_a_dask_cluster_gives_no_result_is_told_once(statuses, told, caplog):
    executor = object.__new__(workers._DaskExecutor)
    found = {"workers": {f"tcp://w{n}": {"status": status} for n, status in enumerate(statuses)}}
    executor._client = SimpleNamespace(scheduler_info=lambda: found)
    executor._scheduler, executor._told = "tcp://s", False
    for _ in range(2):
        executor.tell()
    assert caplog.messages == told
