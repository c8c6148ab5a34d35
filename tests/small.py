"""Configs small enough to simulate in a test."""

import functools
import pickle
import re

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from eprop_cli.config.config import Config
from eprop_cli.config.files import conf_dir
from eprop_cli.config.load import load
from eprop_cli.config.sources import remembered

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
# The same for the online family.
ONLINE = (
    "experiment=sine_waves_eprop_iaf",
    "task.n_in=12",
    "task.steps.sequence=100",
    "task.periods=[100,50]",
    "task.frozen_input=false",
    "neuron.n_rec=10",
    "synapse.weight_scale.in_rec=2.0",
)
SEQUENCE = 100  # steps of SMALL
BARE = ("recording=none", "plots=none")


def compose(*overrides: str) -> DictConfig:
    """A config as Hydra composes it, without Hydra's own part.

    Hydra takes 0.1 s to put the files of a choice of groups together, so that is done once for each; the keys are set
    as it sets them.
    """
    groups = tuple(override for override in overrides if (conf_dir() / override.partition("=")[0]).is_dir())
    composed = pickle.loads(_composed(groups))
    keys = [override for override in overrides if override not in groups]
    for key in keys:
        override = _parsed(key)
        OmegaConf.update(composed, override.key_or_group, override.value(), merge=True)
    OmegaConf.set_struct(composed, False)
    return composed


@functools.cache
def _parsed(override: str) -> Override:
    return OverridesParser.create().parse_override(override)


@functools.cache
def _composed(groups: tuple[str, ...]) -> bytes:
    with remembered(), hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return pickle.dumps(hydra.compose("config", overrides=list(groups)))


def config(*overrides: str) -> Config:
    """The typed config of some overrides; a copy, as many tests have the same."""
    own = any(re.search(r"=[\w.]+:\w+$", override) for override in overrides)  # module:Class, found from where one is
    return load(compose(*overrides)) if own else pickle.loads(_loaded(overrides))


@functools.cache
def _loaded(overrides: tuple[str, ...]) -> bytes:
    return pickle.dumps(load(compose(*overrides)))


class Here:
    """Takes the place of the NEST engine's workers: simulates in this process, which is not a second away."""

    def __init__(self, training):
        pass

    def map(self, function, items, builds):
        return [function(item) for item in items]

    def close(self, at_once=False):
        pass
