"""Numbers that mean nothing are said: once each, in the log, at the end, in run.json and on the page."""

import logging
import warnings

import numpy as np
import pytest
from small import BARE, ONLINE, SMALL, config

from eprop_cli.engines.compiled.engine import CompiledEngine
from eprop_cli.engines.compiled.online import kernels
from eprop_cli.engines.compiled.stream import CompiledStream
from eprop_cli.phases import TRAINING, VALIDATION
from eprop_cli.reports.page import write_page
from eprop_cli.runs.progress import describe_metrics
from eprop_cli.runs.reader import Run
from eprop_cli.runs.run import Ending, run
from eprop_cli.training.diagnoses import LONG, Diagnoses
from eprop_cli.values import Row

COMPILED = (*SMALL, *BARE, "training=data_parallel", "engine=compiled", "training.n_iter_test=0")


def warnings_of(directory):
    """(kind, iteration) of each warning of a run."""
    return [(each["kind"], each["iteration"]) for each in Run(directory).record["warnings"]]


def test_are_in_the_log_at_the_end_in_the_record_and_on_the_page(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("eprop_cli.reports.page._run_figures", lambda *_: iter(()))  # which take their time
    caplog.set_level(logging.INFO)
    assert run(config(*COMPILED, "task.n_iter=3", "optimizer.eta=1e3"), tmp_path).status == "COMPLETED"
    assert warnings_of(tmp_path)[0] == ("bounds", 1)
    (first, *_) = Run(tmp_path).record["warnings"]
    line = f"iteration 1: {first['text']}"
    assert line.startswith("iteration 1: most weights are at their bounds, of in_rec (")
    assert [message for message in caplog.messages if line in message] == [line, f"Warning: {line}"]
    assert line in write_page(tmp_path).read_text()


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("optimizer.eta=1e3", "connectivity.rec_rec={rule: bernoulli, p: 0.5}"), [("bounds", 1)]),
        (("neuron.rec.V_th=1e3",), [("silent", 1)]),
        (("optimizer.eta=1e-30", "task.n_iter=11"), [("unchanged", 10)]),
        (("optimizer.eta=0", "task.n_iter=11"), []),  # as was asked for
        (("neuron.rec.V_th=0.001", "neuron.rec.t_ref=1"), [("fast", 1)]),
        (("neuron.out.loss=mean_squared_error", "neuron.out.V_min=1e3", "neuron.out.E_L=1e3"), [("saturated", 1)]),
        (("task.n_iter=11",), []),
    ],
    ids=lambda value: " ".join(value) if value and isinstance(value[0], str) else "",
)
def test_what_is_said(tmp_path, overrides, expected):
    assert run(config(*COMPILED, "task.n_iter=1", "task.n_batch=4", *overrides), tmp_path).status == "COMPLETED"
    assert warnings_of(tmp_path) == expected


@pytest.mark.nest
def test_what_nest_does_is_looked_at_too(tmp_path):
    run(config(*SMALL, *BARE, "task.n_iter=3", "optimizer.eta=1e3"), tmp_path)
    assert {kind for kind, _ in warnings_of(tmp_path)} >= {"bounds"}


@pytest.mark.parametrize("way", [COMPILED, (*ONLINE, *BARE, "engine=compiled", "optimizer=adam")])
def test_synapses_with_gradients_that_are_all_but_infinite(tmp_path, monkeypatch, way):
    if way is COMPILED:
        gradient, calls = CompiledEngine.gradient, []

        def spoilt(engine, *arguments):
            outcome = gradient(engine, *arguments)
            calls.append(None)
            if len(calls) == 2:
                outcome.gradients["rec_rec"][0, 1] = 1e200
            return outcome

        monkeypatch.setattr(CompiledEngine, "gradient", spoilt)
    else:
        moments, calls = CompiledStream.moments, []

        def spoilt(stream):
            found = moments(stream)
            calls.append(None)
            found["v"]["rec_rec"][0] = np.inf if len(calls) == 2 else 0.0
            return found

        monkeypatch.setattr(CompiledStream, "moments", spoilt)
    run(config(*way, "task.n_iter=3", "task.n_batch=1"), tmp_path)
    (warning,) = [each for each in Run(tmp_path).record["warnings"] if each["kind"] == "frozen"]
    assert warning["iteration"] == 2
    assert warning["text"].startswith("synapses of rec_rec learn no more")


def test_a_weight_that_is_nan_ends_a_continuous_run_where_it_is_seen(tmp_path, monkeypatch):
    go_on, calls = CompiledStream.go_on, []

    def spoilt(stream):
        go_on(stream)
        calls.append(None)
        if len(calls) == 2:
            _, rec_rec, _ = stream._network.synapses(kernels.WEIGHT)
            rec_rec[0] = np.nan

    monkeypatch.setattr(CompiledStream, "go_on", spoilt)
    ending = run(config(*ONLINE, *BARE, "engine=compiled", "task.n_iter=9", "task.n_batch=1"), tmp_path)
    assert ending == Ending("FAILED", 1, "a weight of rec_rec became infinite or NaN by iteration 2")


def test_what_was_said_before_a_resume_is_kept_and_not_said_again(tmp_path, watchers):
    def stop(row):
        if row.iteration == 2:
            raise RuntimeError("stop")

    watchers.append(stop)
    run(config(*COMPILED, "task.n_iter=4", "neuron.rec.V_th=1e3"), tmp_path)
    before = Run(tmp_path).record["warnings"]
    watchers.clear()
    again = config(*COMPILED, "task.n_iter=4", "neuron.rec.V_th=1e3", f"resume='{tmp_path}'")
    assert run(again, tmp_path).status == "COMPLETED"
    assert Run(tmp_path).record["warnings"] == before
    assert warnings_of(tmp_path) == [("silent", 1)]


class TestLoss:
    """Of rows alone."""

    class Trainer:
        def __init__(self, weights):
            self._weights = {name: values + 1.0 for name, values in weights.items()}
            self.initial = weights

        def present(self):
            return self._weights

        def moments(self):
            return {}

    def said(self, losses, *overrides):
        made = config(*SMALL, *overrides)
        rates = {"rate_reg": 10.0, "rate_ad": 10.0}
        rows = [Row(n, TRAINING, {"loss": loss} | rates, 0.1) for n, loss in enumerate(losses, start=1)]
        rows.insert(1, Row(1, VALIDATION, {"loss": 5.0, "rate_reg": 1e3, "rate_ad": 0.0}, 0.1))
        diagnoses = Diagnoses(made, rows=rows)
        trainer = self.Trainer({name: np.zeros((2, 2)) for name in ("in_rec", "rec_rec", "rec_out")})
        diagnoses.conclude(trainer)
        return [(notice.kind, notice.iteration) for notice in diagnoses.notices]

    def test_that_is_the_same_for_ten_iterations(self):
        assert self.said([0.7 + 1e-9 * n for n in range(12)]) == [("loss", 10)]
        assert self.said([0.7 + 1e-9 * n for n in range(9)]) == []
        assert self.said([0.7 + 1e-9 * n for n in range(12)], "optimizer.eta=0") == []

    def test_that_does_not_fall(self):
        noise = np.random.RandomState(1).normal(0, 0.1, LONG)
        assert self.said(1 + noise) == self.said(np.linspace(1, 2, LONG) + noise) == [("loss", LONG)]
        assert self.said(1 + noise[:-1]) == []
        assert self.said(np.linspace(1, 0.5, LONG) + noise) == []
        assert self.said(np.linspace(1, 0.9, LONG) + noise) == []  # too noisy to be sure
        assert self.said(1 + noise, "synapse.weights_from=trained.npz") == []


@pytest.mark.parametrize(
    ("loss", "shown"),
    [(0.69644, "0.6964"), (0.00012345, "0.0001234"), (12.3456, "12.35"), (5230.123, "5230"), (1e9, "1.000e+09")],
)
def test_a_loss_has_four_digits_that_count(loss, shown):
    columns = config(*SMALL).columns
    assert describe_metrics({"loss": loss, "recall_error": 0.5}, columns) == f"loss {shown}, recall error 0.500"


def test_warnings_of_numpy_are_not_raised(tmp_path):
    overrides = ("task.n_iter=2", "neuron.rec.tau_m=1e6", "neuron.ad.adapt_beta_scale=1e6", "optimizer.clip_norm=1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ending = run(config(*COMPILED, *overrides), tmp_path)
    assert "Warning" not in str(ending.error)


def test_weights_that_have_changed_where_the_initial_ones_are_the_best(tmp_path):
    """The validation before training keeps the initial weights, until another is better."""
    selected = ("training.do_early_stopping=true", "training.select_weights=best", "training.n_iter_validate_every=20")
    assert run(config(*COMPILED, "task.n_batch=1", "task.n_iter=11", *selected), tmp_path).exit_status == 0
    assert "unchanged" not in dict(warnings_of(tmp_path))
