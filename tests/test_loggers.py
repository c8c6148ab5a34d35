import json
import sys
import types
from pathlib import Path

import pytest
from small import BARE, SMALL, config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from eprop_cli.api import compose, run
from eprop_cli.errors import UserError
from eprop_cli.runs.comparison import differing, open_all

EXTENDING = Path(__file__).resolve().parent.parent / "docs" / "extending"
SHORT = (*SMALL, *BARE, "training=data_parallel", "engine=compiled", "task.n_iter=3", "training.n_iter_test=2")


@pytest.fixture(autouse=True)
def _here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXTENDING))
    yield
    for name in ("json_lines", "to_mlflow", "bad_logger"):
        sys.modules.pop(name, None)


def scalars(directory, tag):
    read = EventAccumulator(str(directory))
    read.Reload()
    return [(event.step, event.value) for event in read.Scalars(tag)]


def test_tensorboard_reads_what_metrics_csv_has_also_of_a_run_that_was_resumed():
    metrics = run([*SHORT, "logger=tensorboard"], "run").metrics
    for phase, rows in metrics.groupby("phase"):
        for name in ("loss", "accuracy", "rate_ad"):
            expected = [*zip(rows["iteration"], rows[name], strict=True)]
            if phase == "test":
                expected = [(3, rows[name].mean())]
            found = scalars("run/tensorboard", f"{phase}/{name}")
            assert [step for step, _ in found] == [step for step, _ in expected]
            assert [value for _, value in found] == pytest.approx([value for _, value in expected], rel=1e-6)
    longer = run(["resume=run", "task.n_iter=5"])
    trained = longer.metrics[longer.metrics["phase"] == "training"]
    found = scalars("run/tensorboard", "training/loss")
    assert [step for step, _ in found] == [1, 2, 3, 4, 5]
    assert [value for _, value in found] == pytest.approx(trained["loss"].tolist(), rel=1e-6)


def test_several_at_once_and_one_of_ones_own():
    done = run([*SHORT, "logger=[tensorboard,json_lines]"], "run", config_dir=EXTENDING / "conf")
    lines = [json.loads(line) for line in Path("run/rows.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines] == done.metrics["loss"].tolist()
    assert len(scalars("run/tensorboard", "training/loss")) == 3
    assert done.config["logger"]["json_lines"] == {"name": "json_lines:JsonLines", "file": "rows.jsonl"}
    plain = run(SHORT, "plain")
    assert plain.metrics.drop(columns="seconds").equals(done.metrics.drop(columns="seconds"))
    assert differing(open_all([done, plain])) == []


def test_mlflow_is_told(monkeypatch):
    told = []
    names = ("set_experiment", "start_run", "log_params", "log_metrics", "end_run")
    fake = types.SimpleNamespace(**{name: lambda *a, _name=name, **k: told.append((_name, a, k)) for name in names})
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    done = run([*SHORT, "+logger.mine.name=to_mlflow:MLflow"], "run")
    assert [name for name, *_ in told] == [*names[:3], *["log_metrics"] * 5, "end_run"]
    assert told[0][1] == ("evidence_accumulation",)
    assert told[2][1][0]["task.n_iter"] == 3
    assert told[3][1][0]["training/loss"] == done.metrics["loss"].iloc[0]
    assert told[-1][1] == ("FINISHED",)


@pytest.mark.parametrize("when", ["__init__", "begin", "row", "end"])
def test_one_that_fails_ends_nothing_and_is_told_of_once(monkeypatch, caplog, when):
    head = "from eprop_cli.loggers.base import Logger\n\nclass Bad(Logger):\n"
    Path("bad_logger.py").write_text(f"{head}    def {when}(self, *_):\n        raise ValueError('no server')\n")
    monkeypatch.syspath_prepend("")
    good = "+logger.good={name: 'json_lines:JsonLines', file: x}"
    done = run([*SHORT, "+logger.bad.name=bad_logger:Bad", good], "run")
    assert done.status == "COMPLETED"
    assert len(Path("run/x").read_text().splitlines()) == len(done.metrics) == 5
    said = "logger.bad has failed and is told no more; the run goes on (ValueError: no server)"
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [said]
    assert said in Path("run/eprop-run.log").read_text()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["logger=nope"], "logger=nope: must be one of tensorboard"),
        (["+logger.x=1"], "logger.x=1: must be a group of keys with a name, as a file of its own has them"),
        (
            ["+logger.x.name=y"],
            "logger.NAME.name=y: must be one of tensorboard, or module:Class with a Config that extends "
            "eprop_cli.loggers.base:LoggerConfig (docs/extending.md)",
        ),
        (
            ["logger=tensorboard", "logger.tensorboard.directory=null"],
            "logger.tensorboard.directory=null: must be text",
        ),
    ],
)
def test_bad_input_is_told_in_one_line(overrides, message):
    with pytest.raises(UserError) as refused:
        compose(overrides)
    assert str(refused.value) == message


def test_what_is_not_installed_is_said(monkeypatch):
    monkeypatch.setattr("eprop_cli.config.config.find_spec", lambda name: None)
    with pytest.raises(UserError) as refused:
        compose(["logger=tensorboard"])
    remedy = "pip install '.[tensorboard]' in the checkout"
    assert str(refused.value) == (
        f"logger.tensorboard.name=tensorboard: needs tensorboard, which is not installed; {remedy}"
    )


def test_there_is_none_unless_asked_for():
    assert config().logger == {}
