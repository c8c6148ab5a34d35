"""A search, with trials that are made up: their losses follow from their values, so nothing is trained."""

import json
import math
import os
import platform
import signal
from dataclasses import asdict, replace

import hydra
import optuna
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf
from small import config as typed
from synthetic_run import training_rows

from eprop_cli.config.files import conf_dir
from eprop_cli.errors import ConfigError, UserError
from eprop_cli.runs.files import COMPLETED, FAILED, INTERRUPTED, PRUNED
from eprop_cli.runs.record import describe
from eprop_cli.runs.trials import read_trials
from eprop_cli.runs.writer import RunWriter
from eprop_cli.sweeps.job_directory import job_name
from eprop_cli.sweeps.multirun import Multirun, MultirunPlan
from eprop_cli.sweeps.optuna_study import importances
from eprop_cli.sweeps.pruning import judge_of
from eprop_cli.sweeps.search import Search, check_search

SMOKE = ("experiment=smoke", "task.n_iter=6")
ETA, GAMMA = "optimizer.eta=tag(log,interval(1e-4,1e-1))", "neuron.rec.gamma=interval(0.1,0.6)"
POINTS = ("optimizer.eta=1e-4,1e-3,1e-2", "neuron.rec.gamma=range(0.1,0.5,0.1)")


@pytest.fixture(scope="module")
def composed():
    """The config of a multirun with the sweeper optuna."""
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        given = ["hydra/sweeper=optuna", "hydra.sweep.dir=sweep", *SMOKE]
        return GlobalHydra.instance().hydra.compose_config("config", given, run_mode=RunMode.MULTIRUN)


class MadeUp:
    """Takes the place of a launcher: of a trial's curve the distance of log(eta) from -2.5 is what it falls to.

    stop_after: jobs after which it is stopped, in the midst of the next one. Trials with the eta in broken fail.
    """

    def __init__(self, config, stop_after=math.inf, broken=()):
        self.multirun, self.pruner = Multirun.of(config), OmegaConf.to_container(config.hydra.sweeper.pruner)
        self.stop_after, self.broken, self.launched = stop_after, broken, []
        self.job = typed(*SMOKE)  # of any of them
        self.described = describe(self.job)

    def launch(self, jobs, first):
        for overrides in jobs:
            name = job_name(overrides, self.multirun.plan.swept)
            directory = self.multirun.directory / name
            if directory.exists() and Broken(directory).status in (COMPLETED, PRUNED):
                continue  # as the launcher of the rest has it
            self.launched.append(name)
            given = dict(text.split("=", 1) for text in overrides)
            eta, gamma = float(given["optimizer.eta"]), float(given.get("neuron.rec.gamma", 0.3))
            stopped = len(self.launched) > self.stop_after
            status, rows = self._train(eta, gamma, directory, 2 if stopped else 6)
            if stopped:
                status = INTERRUPTED
                self.multirun.stop(signal.SIGINT)
            directory.mkdir(exist_ok=True)
            (directory / "metrics.csv").unlink(missing_ok=True)
            writer = RunWriter(directory, {"format": 2} | self.described)
            for row in rows:
                writer.row(row)
            writer.finish(FAILED if eta in self.broken else status, error=None)
            if stopped:
                return

    def _train(self, eta, gamma, directory, n_iter):
        reach = 0.1 * (math.log10(eta) + 2.5) ** 2 + 0.01 * gamma
        is_hopeless = judge_of(directory, self.job, self.pruner) if self.pruner["_target_"] else None
        rows = training_rows(n_iter)
        for row in rows:
            row.metrics["loss"] = reach + 1 / row.iteration
            if is_hopeless and is_hopeless(row):
                return PRUNED, rows[: row.iteration]
        return COMPLETED, rows


class Broken:
    def __init__(self, directory):
        self.status = json.loads((directory / "run.json").read_text())["status"]


@pytest.fixture
def begin(composed, tmp_path, monkeypatch):
    """Begin, or go on with, the search in the directory sweep: what its trials came to, and what was launched."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # which takes longer than all else here

    def begin(*overrides, stop_after=math.inf, broken=(), sampler="tpe", pruner="none", sweep="sweep", **keys):
        config = composed.copy()
        OmegaConf.set_readonly(config, False)
        OmegaConf.set_struct(config, False)
        files = conf_dir() / "hydra" / "sweeper"
        sweeper = config.hydra.sweeper
        sweeper.sampler = OmegaConf.load(files / "sampler" / f"{sampler}.yaml")
        sweeper.pruner = OmegaConf.load(files / "pruner" / f"{pruner}.yaml")
        sweeper.sampler.seed = 1
        for key, value in ({"n_trials": 10} | keys).items():
            OmegaConf.update(sweeper, key, value)
        config.hydra.sweep.dir = str(tmp_path / sweep)
        config.hydra.overrides.task = [*SMOKE, *overrides]
        launcher = MadeUp(config, stop_after, broken)
        with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
            check_search(config, launcher.job)
            multirun = Multirun.of(config)
            multirun.remove()
            multirun.state.mkdir(parents=True)
            swept = [text.split("=")[0] for text in overrides]
            plan = MultirunPlan(swept, [], None, os.getpid(), platform.node(), True, True, "", None, objective="loss")
            (multirun.state / "plan.json").write_text(json.dumps(asdict(plan)))
            try:
                Search(config, launcher).run()
            except KeyboardInterrupt:
                assert multirun.stopped == signal.SIGINT
        return read_trials(multirun.directory), launcher.launched

    return begin


SAMPLERS = {
    "tpe": (ETA, GAMMA), "random": (ETA, GAMMA), "cmaes": (ETA, GAMMA), "qmc": (ETA, GAMMA), "nsgaii": (ETA, GAMMA),
    "grid": POINTS, "brute_force": POINTS,
}  # fmt: skip


@pytest.mark.parametrize(
    ("sampler", "pruner"),
    [*((each, "median") for each in SAMPLERS), ("tpe", "successive_halving"), ("cmaes", "hyperband")],
)
def test_one_that_was_interrupted_goes_on_as_if_it_had_not_been(begin, sampler, pruner):
    given = {"sampler": sampler, "pruner": pruner, "n_jobs": 2, "n_trials": 12}
    if sampler in ("tpe", "cmaes"):
        given["sampler.n_startup_trials"] = 3
    if pruner == "median":
        given["pruner.n_startup_trials"] = 2
    whole, launched = begin(*SAMPLERS[sampler], sweep="whole", **given)
    assert len(whole.trials) == 12
    assert {trial.status for trial in whole.trials} == {COMPLETED, PRUNED}
    first, before = begin(*SAMPLERS[sampler], stop_after=5, **given)
    assert [trial.status for trial in first.trials[4:]] == ["RUNNING", "RUNNING"]
    again, after = begin(*SAMPLERS[sampler], **given)
    assert again.trials == whole.trials
    assert [*before[:5], *after] == launched


def test_of_a_grid_each_point_is_tried_once(begin):
    record, launched = begin(*POINTS, sampler="grid", n_trials=100, n_jobs=5)
    assert len(record.trials) == len(set(launched)) == 12
    assert {trial.params["optimizer.eta"] for trial in record.trials} == {1e-4, 1e-3, 1e-2}
    assert {round(trial.params["neuron.rec.gamma"], 12) for trial in record.trials} == {0.1, 0.2, 0.3, 0.4}
    best = record.trials[record.best]
    assert (best.params["optimizer.eta"], best.params["neuron.rec.gamma"]) in {(1e-3, 0.1), (1e-2, 0.1)}


def test_what_is_found_is_better_than_chance(begin):
    spread = [begin(ETA, GAMMA, sampler=each, n_trials=20, sweep=each)[0] for each in ("random", "tpe")]
    means = [sum(trial.value for trial in record.trials[11:]) / 9 for record in spread]
    assert means[1] < 0.7 * means[0]


@pytest.mark.parametrize("pruner", ["median", "successive_halving"])
def test_those_that_are_pruned_are_the_bad_ones(begin, pruner):
    unpruned, _ = begin(ETA, sampler="random", sweep="whole", n_trials=16)
    keys = {"pruner.reduction_factor": 2} if pruner == "successive_halving" else {}
    pruned, _ = begin(ETA, sampler="random", pruner=pruner, n_trials=16, **keys)
    assert [trial.run for trial in pruned.trials] == [trial.run for trial in unpruned.trials]
    values = {trial.run: trial.value for trial in unpruned.trials}
    kept = {trial.run for trial in pruned.trials if trial.status == COMPLETED}
    lost = [values[trial.run] for trial in pruned.trials if trial.status == PRUNED]
    assert 4 <= len(lost) < 14
    assert all(trial.value == values[trial.run] for trial in pruned.trials if trial.status == COMPLETED)
    assert min(lost) > min(values.values())  # the best is not among them
    assert sum(lost) / len(lost) > sum(values[run] for run in kept) / len(kept)
    for trial in pruned.trials:
        assert [iteration for iteration, _ in trial.values] == list(range(1, len(trial.values) + 1))
        assert (len(trial.values) < 6) == (trial.status == PRUNED)


def test_as_optuna_prunes_within_one_process(begin):
    """The judgement by files is that of an optimize() with the same values."""
    record, _ = begin(ETA, sampler="random", pruner="median", n_trials=16, **{"pruner.n_startup_trials": 3})
    etas = iter([trial.params["optimizer.eta"] for trial in record.trials])

    def train(trial):
        eta = next(etas)
        for iteration in range(1, 7):
            value = 0.1 * (math.log10(eta) + 2.5) ** 2 + 0.01 * 0.3 + 1 / iteration
            trial.report(value, iteration)
            if trial.should_prune() and iteration < 6:
                raise optuna.TrialPruned
        return value

    study = optuna.create_study(pruner=optuna.pruners.MedianPruner(3))
    study.optimize(train, 16)
    states = {"COMPLETE": COMPLETED, "PRUNED": PRUNED}
    expected = [(states[trial.state.name], max(trial.intermediate_values)) for trial in study.trials]
    assert [(trial.status, trial.values[-1][0]) for trial in record.trials] == expected
    assert {status for status, _ in expected} == {COMPLETED, PRUNED}


class TestStored:
    KEYS = {"storage": "sqlite:///study.db", "pruner": "median", "pruner.n_startup_trials": 2}  # noqa: RUF012

    def test_optuna_reads_the_study(self, begin, tmp_path):
        record, _ = begin(ETA, **self.KEYS)
        study = optuna.load_study(study_name="sweep", storage="sqlite:///study.db")
        states = {"COMPLETE": COMPLETED, "PRUNED": PRUNED}
        assert [states[trial.state.name] for trial in study.trials] == [trial.status for trial in record.trials]
        assert [trial.params for trial in study.trials] == [trial.params for trial in record.trials]
        assert study.trials[3].intermediate_values == dict(record.trials[3].values)
        assert study.best_value == record.trials[record.best].value
        assert study.best_trial.user_attrs["run"] == str(tmp_path / "sweep" / record.trials[record.best].run)

    def test_each_trial_is_there_once_however_often_it_goes_on(self, begin):
        whole, _ = begin(ETA, sweep="whole", pruner="median", **{"pruner.n_startup_trials": 2})
        begin(ETA, stop_after=4, **self.KEYS)
        begin(ETA, stop_after=3, **self.KEYS)
        record, _ = begin(ETA, **self.KEYS)
        assert record.trials == whole.trials
        study = optuna.load_study(study_name="sweep", storage="sqlite:///study.db")
        assert [trial.user_attrs["trial"] for trial in study.trials] == list(range(10))

    def test_another_search_begins_with_what_is_known(self, begin):
        first, _ = begin(ETA, study_name="both", **self.KEYS)
        second, launched = begin(ETA, study_name="both", sweep="second", **self.KEYS)
        assert [trial.params for trial in second.earlier] == [trial.params for trial in first.trials]
        assert not {trial.run for trial in first.trials} & set(launched)
        again, after = begin(ETA, study_name="both", sweep="second", **self.KEYS)
        assert (again.trials, after) == (second.trials, [])
        assert len(optuna.load_study(study_name="both", storage="sqlite:///study.db").trials) == 20

    def test_a_study_of_something_else_is_refused(self, begin):
        optuna.create_study(storage="sqlite:///study.db", study_name="sweep", direction="maximize")
        with pytest.raises(ConfigError) as refused:
            begin(ETA, **self.KEYS)
        there = "is the name of a study there that has maximize, not minimize; choose another"
        assert str(refused.value) == f"hydra.sweeper.study_name=sweep: {there}"


def test_without_a_seed_it_goes_on_with_what_is_known(begin):
    first, launched = begin(ETA, stop_after=3, **{"sampler.seed": None})
    again, after = begin(ETA, **{"sampler.seed": None})
    assert again.trials[:3] == first.trials[:3]
    assert after[0] == launched[-1]  # what was interrupted comes first
    assert len(again.trials) == 10
    assert len({*launched, *after}) == 10


def test_more_trials_go_on_from_those_that_there_are(begin):
    first, _ = begin(ETA, n_trials=4)
    more, launched = begin(ETA, n_trials=7)
    assert more.trials[:4] == first.trials
    assert launched == [trial.run for trial in more.trials[4:]]
    whole, _ = begin(ETA, n_trials=7, sweep="whole")
    assert more.trials == whole.trials


def test_values_that_are_suggested_twice_are_run_once(begin):
    record, launched = begin("optimizer.eta=1e-3,1e-2", sampler="random", n_trials=8, n_jobs=4)
    assert len(record.trials) == 8
    assert len(launched) == len({trial.run for trial in record.trials}) == 2
    assert len({(trial.run, trial.value) for trial in record.trials}) == 2


class TestFailures:
    def test_beyond_the_rate_it_gives_up_and_goes_on_later(self, begin):
        with pytest.raises(UserError, match=r"^the search gave up: 1 of 1 trials failed, more than"):
            begin("optimizer.eta=1e-3,1e-2", sampler="grid", broken=(1e-2,))
        record, launched = begin("optimizer.eta=1e-3,1e-2", sampler="grid")
        assert {trial.params["optimizer.eta"]: trial.status for trial in record.trials} == {
            1e-3: COMPLETED,
            1e-2: COMPLETED,
        }
        assert any("1e-2" in name or "0.01" in name for name in launched)

    def test_within_it_goes_on_and_runs_them_again_when_resumed(self, begin):
        given = {"sampler": "grid", "max_failure_rate": 1.0}
        record, _ = begin(*POINTS, broken=(1e-2,), **given)
        failed = [trial.run for trial in record.trials if trial.status == FAILED]
        assert len(failed) > 1
        assert record.trials[record.best].params["optimizer.eta"] == 1e-3
        again, launched = begin(*POINTS, **given)
        assert launched == failed
        assert {trial.status for trial in again.trials} == {COMPLETED}

    def test_without_a_result_there_is_an_end(self, begin):
        with pytest.raises(UserError, match=r"^the search has no result: none of its jobs returned an objective$"):
            begin("optimizer.eta=1e-3,1e-2", sampler="grid", broken=(1e-3, 1e-2), max_failure_rate=1.0)


def test_the_key_that_makes_the_difference_is_the_important_one(begin):
    record, _ = begin(ETA, GAMMA, sampler="random", n_trials=30)
    found = importances(record)
    assert list(found) == ["optimizer.eta", "neuron.rec.gamma"]
    assert found["optimizer.eta"] > 0.7
    assert sum(found.values()) == pytest.approx(1)
    assert importances(record.with_trials(record.trials[:1])) == {}
    assert importances(record.with_trials([replace(trial, value=0.5) for trial in record.trials])) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is damaged (JSONDecodeError"),
        ('{"format": 2}', "has format 2, and this eprop-cli reads up to 1; update it"),
        ('{"format": 1, "begun": "", "objective": "loss", "direction": "up"}', "is damaged (KeyError: 'space')"),
        ("[1]", "is damaged (TypeError"),
    ],
)
def test_a_record_that_is_none_is_refused(tmp_path, content, message):
    (tmp_path / "search.json").write_text(content)
    with pytest.raises(UserError) as refused:
        read_trials(tmp_path)
    assert str(refused.value).startswith(f"{tmp_path}/search.json: {message}")


@pytest.mark.parametrize("run", ["../elsewhere", "/etc", ""])
def test_a_trial_elsewhere_is_refused(begin, tmp_path, run):
    begin(ETA, n_trials=1)
    read = json.loads((tmp_path / "sweep" / "search.json").read_text())
    read["trials"][0]["run"] = run
    (tmp_path / "sweep" / "search.json").write_text(json.dumps(read))
    if run:
        with pytest.raises(UserError, match="one of its trials is none"):
            read_trials(tmp_path / "sweep")
