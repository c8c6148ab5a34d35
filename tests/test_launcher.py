import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf
from synthetic_run import SMOKE, compose, write_run

from eprop_cli.sweeps.composing import ComposesOnce
from eprop_cli.sweeps.job_directory import job_name
from eprop_cli.sweeps.launcher import returned_before
from eprop_cli.sweeps.multirun import Multirun, MultirunPlan


@pytest.fixture(params=["best_loss"])
def master(tmp_path, request):
    """The config of a multirun of seeds that has begun; the parameter is the objective of its search."""
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}, "callbacks": {"sweep": {"stamp": "stamp"}}}})
    plan = MultirunPlan(["seed"], [], 3, 1, "elsewhere", tied=False, fresh=True, launcher="", beginning=None)
    plan = replace(plan, objective=request.param)
    state = Multirun.of(config).state
    state.mkdir(parents=True)
    (state / "plan.json").write_text(json.dumps(vars(plan)))
    return config


LOADER = SimpleNamespace(load_sweep_config=lambda _, overrides: compose(*SMOKE, *overrides))


def overrides_of(seed):
    return [f"seed={seed}", "objective=best_loss"]


def write_job(master, seed, **record):
    directory = Multirun.of(master).directory / job_name(overrides_of(seed), ["seed"])
    return write_run(directory, *overrides_of(seed), **record)


def test_what_is_completed_has_its_objective_and_a_number_after_the_others(master):
    write_job(master, 1)
    write_job(master, 2, status="FAILED", error="broken")
    returned = returned_before(master, LOADER, [overrides_of(seed) for seed in (1, 2, 3)], 6)
    assert {index: each.return_value for index, each in returned.items()} == {0: 0.77}
    (outcome,) = Multirun.of(master).outcomes
    assert (outcome.num, outcome.name, outcome.status) == (8, "seed-1", "SKIPPED")


@pytest.mark.parametrize("master", [None], indirect=True)
def test_without_a_search_there_is_no_objective(master):
    write_job(master, 1)
    (returned,) = returned_before(master, LOADER, [overrides_of(1)], 0).values()
    assert returned.return_value is None


def test_what_computes_something_else_is_left_to_the_job(master):
    write_run(Multirun.of(master).directory / "seed-1", "seed=2")
    assert returned_before(master, LOADER, [overrides_of(1)], 0) == {}


def test_a_config_is_composed_once_for_two_who_ask():
    asked = []
    loader = ComposesOnce(SimpleNamespace(load_sweep_config=lambda _, overrides: asked.append(overrides)))
    loader.keep(["seed=1"], OmegaConf.create({"seed": 1}))
    assert [loader.load_sweep_config(None, ["seed=1"]) for _ in range(3)] == [{"seed": 1}, {"seed": 1}, None]
    assert asked == [["seed=1"]]
