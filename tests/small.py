"""Configs small enough to simulate in a test."""

import hydra
from omegaconf import DictConfig

from eprop_cli.config.composed import without_hydra
from eprop_cli.config.config import Config
from eprop_cli.config.files import conf_dir
from eprop_cli.config.load import load

# Sequences of 100 steps, 8 input and 8 recurrent neurons that fire a lot. The noise and a cue that begins at once put
# spikes next to most sequence boundaries, where splitting a batch is difficult.
SMALL = (
    "task.n_in=8",
    "task.n_cues=3",
    "task.input_spike_prob=0.3",
    "task.steps={cue: 15, spacing: 0, bg_noise: 25, recall: 30}",
    "neuron.n_reg=4",
    "neuron.n_ad=4",
)
SEQUENCE = 100  # steps of SMALL
BARE = ("recording=none", "plots=none")


def compose(*overrides: str) -> DictConfig:
    """A config as Hydra composes it, without Hydra's own part."""
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return without_hydra(hydra.compose("config", overrides=list(overrides)))


def config(*overrides: str) -> Config:
    """The typed config of some overrides."""
    return load(compose(*overrides))


class Here:
    """Takes the place of the NEST engine's workers: simulates in this process, which is not a second away."""

    def __init__(self, training):
        pass

    def map(self, function, items, builds):
        return [function(item) for item in items]

    def close(self, at_once=False):
        pass
