"""Every group can be chosen from by name, and takes a class of the user's own."""

import sys
from dataclasses import dataclass

import pytest
from small import BARE, SMALL, compose, config

from eprop_cli.config.load import load
from eprop_cli.errors import ConfigError
from eprop_cli.registry import BASES, KEYS, VARIANTS, is_known, variant
from eprop_cli.schema import POSITIVE, Group, key
from eprop_cli.training.base import make_trainer

PARALLEL = (*SMALL, *BARE, "training=data_parallel", "engine=compiled", "training.n_iter_test=0", "task.n_iter=2")
# What a user writes for each group: a class that says what differs, and gets the rest from the group's base.
OWN = """
from dataclasses import dataclass

import numpy as np

from eprop_cli.connectivity.rule import RuleConfig
from eprop_cli.engines.compiled.engine import CompiledEngine
from eprop_cli.losses import Loss as AnyLoss
from eprop_cli.losses import MeanSquaredError
from eprop_cli.models.base import SynapseModel
from eprop_cli.models.bsshslm_2020 import Bsshslm2020, Bsshslm2020SynapseConfig
from eprop_cli.optimizers.base import OptimizerConfig, OptimizerState
from eprop_cli.schema import POSITIVE, key
from eprop_cli.tasks.evidence_accumulation import EvidenceAccumulation
from eprop_cli.training.data_parallel import DataParallel


class Task(EvidenceAccumulation):
    losses = ("mine:Loss", "cross_entropy")


class Loss(MeanSquaredError):
    name, label = "mine", "my error"

    @staticmethod
    def value(readout, target):
        return float(np.abs(readout - target).mean())


class Stranger(AnyLoss):
    name, label, softmax = "stranger", "unknown", False


class Neuron(Bsshslm2020):
    fits = ("bsshslm_2020", "mine:Synapse")


class Synapse:
    Config = Bsshslm2020SynapseConfig


@dataclass(kw_only=True)
class SignConfig(OptimizerConfig):
    strength: float = key(POSITIVE, unit="pA")


class Optimizer:
    Config = SignConfig

    def initial_state(self, weights):
        return OptimizerState(0)

    def step(self, state, gradients, eta):
        steps = {name: self.config.strength * np.sign(gradient) for name, gradient in gradients.items()}
        return steps, OptimizerState(state.step + 1)


class Engine(CompiledEngine):
    pass


class Training(DataParallel):
    pass


class Figure:
    @staticmethod
    def draw(run):
        from matplotlib.figure import Figure

        yield "mine", Figure()


class Connectivity:
    Config = RuleConfig

    def draw(self, rng, n_pre, n_post):
        pass


class NoBase:
    pass
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module of the user's in the working directory."""
    (tmp_path / "mine.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    yield tmp_path
    sys.modules.pop("mine", None)


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in VARIANTS for name in VARIANTS[group]])
def test_every_name_means_a_class_that_descends_from_its_groups_base(group, name):
    module, _, base = BASES[group].partition(":")
    found = variant(group, name)
    assert issubclass(found, getattr(sys.modules[module], base))
    assert is_known(group, name)
    assert issubclass(getattr(found, "Config", Group), Group)


@pytest.mark.parametrize("group", VARIANTS)
def test_a_name_that_means_nothing_is_refused_in_one_line(group):
    with pytest.raises(ConfigError) as error:
        variant(group, "nosuch")
    assert str(error.value).startswith(f"{KEYS.get(group, f'{group}.name')}=nosuch: must be one of ")
    assert all(name in str(error.value) for name in VARIANTS[group])
    assert "\n" not in str(error.value)


CLASSES = {group: group.capitalize() for group in VARIANTS}


@pytest.mark.parametrize("group", VARIANTS)
def test_a_class_of_ones_own_gets_what_it_does_not_say_from_the_base(mine, group):
    module, _, base = BASES[group].partition(":")
    found = variant(group, f"mine:{CLASSES[group]}")
    assert issubclass(found, getattr(sys.modules[module], base))
    assert (found.__name__, found.__module__) == (CLASSES[group], "mine")
    assert not is_known(group, f"mine:{CLASSES[group]}")


@pytest.mark.parametrize("group", VARIANTS)
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nosuch:Class", "cannot be imported (No module named 'nosuch')"),
        ("mine:Nothing", "cannot be imported (module 'mine' has no attribute 'Nothing')"),
        ("mine:np", "must be one of "),
        ("json:loads", "must be one of "),
    ],
)
def test_what_is_no_class_is_refused_in_one_line(mine, group, name, why):
    with pytest.raises(ConfigError) as error:
        variant(group, name)
    assert str(error.value).startswith(f"{KEYS.get(group, f'{group}.name')}={name}: {why}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("group", sorted(set(VARIANTS) - {"loss", "figure"}))
def test_a_class_without_the_groups_config_is_refused(mine, group):
    with pytest.raises(ConfigError) as error:
        variant(group, "mine:NoBase")
    module, _, base = BASES[group].partition(":")
    wanted = getattr(sys.modules[module], base).Config
    needs = f"with a Config that extends {wanted.__module__}:{wanted.__name__} (docs/extending.md)"
    assert str(error.value).startswith(f"{KEYS.get(group, f'{group}.name')}=mine:NoBase: must be one of ")
    assert str(error.value).endswith(f"or module:Class {needs}")


def losses_of(*overrides):
    trainer = make_trainer(config(*PARALLEL, *overrides))
    try:
        return [record.row.metrics for record in trainer.records()], trainer.weights(), trainer.initial
    finally:
        trainer.close()


@pytest.mark.parametrize(
    "choice", ["neuron.name=mine:Neuron", "engine.name=mine:Engine", "training.name=mine:Training"]
)
def test_a_class_that_changes_nothing_trains_alike(mine, choice):
    assert losses_of(choice)[0] == losses_of()[0]


def test_synapses_of_ones_own_go_with_a_family_that_says_so(mine):
    assert losses_of("neuron.name=mine:Neuron", "synapse.name=mine:Synapse")[0] == losses_of()[0]
    with pytest.raises(ConfigError) as error:
        config(*PARALLEL, "synapse.name=mine:Synapse")
    line = "synapse=mine:Synapse: does not go with neuron=bsshslm_2020; choose synapse=bsshslm_2020"
    assert str(error.value) == line


def test_a_task_and_a_loss_of_ones_own(mine):
    given = config(*PARALLEL, "task.name=mine:Task")
    assert given.neuron.out.loss == "mine:Loss"
    assert given.columns[0].label == "my error"
    rows, _, _ = losses_of("task.name=mine:Task")
    assert len({row["loss"] for row in rows}) == 2


def test_a_loss_of_ones_own_fits_where_the_one_that_it_extends_does(mine):
    given = config(*PARALLEL, "neuron.out.loss=mine:Loss")
    assert given.columns[0].label == "my error"
    refusal = r"^neuron\.out\.loss=mine:Stranger: does not fit task=evidence_accumulation, which"
    with pytest.raises(ConfigError, match=refusal):
        config(*PARALLEL, "neuron.out.loss=mine:Stranger")


def test_an_optimizer_of_ones_own_with_keys_and_rules_of_its_own(mine):
    def given(strength):
        composed = compose(*PARALLEL, "optimizer=gradient_descent", "optimizer.name=mine:Optimizer")
        composed.optimizer.strength = strength
        return load(composed)

    trainer = make_trainer(given(0.125))
    list(trainer.records())
    trainer.close()
    moved = (trainer.weights()["in_rec"] - trainer.initial["in_rec"]) / 0.125
    assert set(moved.round(9).flat) <= {-2.0, -1.0, 0.0, 1.0, 2.0}
    assert moved.any()
    with pytest.raises(ConfigError, match=r"^optimizer\.strength=0\.0: must be positive$"):
        given(0.0)


def test_an_optimizer_that_nest_does_not_have_needs_data_parallel_training(mine):
    composed = compose(*SMALL, *BARE, "optimizer=gradient_descent", "optimizer.name=mine:Optimizer")
    composed.optimizer.strength = 0.1
    with pytest.raises(ConfigError) as error:
        load(composed)
    line = "needs training=data_parallel; NEST's own optimizer does not have it"
    assert str(error.value) == f"optimizer=mine:Optimizer: {line}"


def test_a_figure_of_ones_own_is_drawn(mine):
    from eprop_cli.runs.run import run

    (mine / "run").mkdir()
    given = [*PARALLEL, "plots.figures=[mine:Figure,learning]", "plots.dpi=40"]
    assert run(config(*given), mine / "run").exit_status == 0
    assert {path.name for path in (mine / "run" / "figures").iterdir()} == {"mine.png", "learning.png"}
    with pytest.raises(ConfigError) as error:
        config(*PARALLEL, "plots.figures=[mine:Nothing]")
    line = "cannot be imported (module 'mine' has no attribute 'Nothing')"
    assert str(error.value) == f"plots.figures=mine:Nothing: {line}"


def test_rules_of_a_group_of_ones_own():
    @dataclass(kw_only=True)
    class Mine(Group):
        GROUP = "task"

        width: float = key(POSITIVE, unit="mV")

    assert Mine(width=1.0).width == 1.0
    with pytest.raises(ConfigError, match=r"^task\.width=0: must be positive$"):
        Mine(width=0)
