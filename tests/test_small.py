"""That configs composed quickly for tests are those that Hydra composes."""

import hydra
import pytest
from small import BARE, SMALL, compose, config

from eprop_cli.config.files import conf_dir


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        SMALL,
        (*SMALL, *BARE, "training=data_parallel", "optimizer=gradient_descent", "task.n_iter=20", "seed=5"),
        ("optimizer.eta=1e-2", "experiment=smoke", "task.n_iter=3", "optimizer.schedule={name: step}", "resume='a=b'"),
        ("neuron.ad.tau_m=[5, 15]", "synapse.init_optimizer=[{projection: in_rec}]", "kernel.resolution=0.5"),
    ],
    ids=len,
)
def test_composed_as_by_hydra(overrides):
    quickly = compose(*overrides)
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        assert quickly == hydra.compose("config", overrides=list(overrides))


def test_a_change_of_one_config_leaves_the_next_alone():
    for make in (compose, config):
        make(*SMALL).task.steps.cue = 77
        assert make(*SMALL).task.steps.cue == 15


def test_a_key_that_does_not_exist_is_refused():
    with pytest.raises(AttributeError, match="n_itr"):
        compose("task.n_itr=5")
