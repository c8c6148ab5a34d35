"""What a model family is: populations of neurons, what NEST calls them and their parameters, and what they can do."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from eprop_cli.connectivity.synapses import SynapseConfig
from eprop_cli.schema import Group
from eprop_cli.timing import Timing
from eprop_cli.values import Weights

# What an engine can compute of a model, and a way of training needs.
GRADIENT = "gradient"  # the gradient of a batch from weights that do not change meanwhile
STREAM = "stream"  # a simulation that goes on and on, weights changing as spikes pass

SURROGATE_GRADIENTS = ("piecewise_linear", "exponential", "fast_sigmoid_derivative", "arctan_derivative")


@dataclass(kw_only=True)
class NeuronConfig(Group):
    """The keys that every family's neurons have; out: those of the readouts, with the name of the loss."""

    GROUP = "neuron"

    name: str
    out: Any


@dataclass(frozen=True)
class Population:
    """Recurrent neurons of one kind.

    name: of its keys under neuron. label: in figures and lines. model: NEST's. recordables: its dynamic variables.
    """

    name: str
    label: str
    size: int
    model: str
    recordables: tuple[str, ...]


class SynapseModel:
    """The synapses that go with one or several families; all that they say is their config."""

    Config: ClassVar[type[SynapseConfig]] = SynapseConfig

    @classmethod
    def check(cls, config: Any) -> None:
        """Raise ConfigError for what does not go with the rest of a config."""


class Model:
    """A model family with its config.

    fits: names of the synapse files that go with it.
    computes: what can be computed of it at all, GRADIENT or STREAM; refusals: of the others, why not.
    resets: whether its neurons are reset when a sequence begins.
    softmax: whether its readouts can take the softmax of their potentials, which some losses need.
    equations: which of the compiled engine's kernels have its dynamics; empty: none.
    readout, synapse, learning_signal: NEST's models. readout_recordables: the readouts' dynamic variables.
    window_receptor: of the readouts, where the learning window comes as a signal; None where NEST's kernel has it.
    forcing_weight: pA, makes neurons fire when all is over, to have synapses apply what they have learned.
    """

    Config: ClassVar[type[NeuronConfig]] = NeuronConfig
    fits: ClassVar[tuple[str, ...]] = ()
    computes: ClassVar[tuple[str, ...]] = ()
    refusals: ClassVar[Mapping[str, str]] = {}
    resets: ClassVar[bool] = False
    softmax: ClassVar[bool] = True
    equations: ClassVar[str] = ""
    readout: ClassVar[str]
    synapse: ClassVar[str]
    learning_signal: ClassVar[str]
    readout_recordables: ClassVar[tuple[str, ...]]
    window_receptor: ClassVar[int | None] = None
    forcing_weight: ClassVar[float]

    def __init__(self, neuron: Any, synapses: Any, timing: Timing) -> None:
        self.neuron, self.synapses, self.timing = neuron, synapses, timing

    @classmethod
    def make_timing(cls, sequence: int, learning_window: int, resolution: float) -> Timing:
        """When things happen in a sequence (steps; resolution in ms)."""
        return Timing(sequence, learning_window, resolution)

    @classmethod
    def check(cls, config: Any) -> None:
        """Raise ConfigError for what does not go with the rest of a config."""

    @property
    def populations(self) -> tuple[Population, ...]:
        """The recurrent populations that there are, in the order of their neurons; none of them empty."""
        raise NotImplementedError

    @property
    def n_rec(self) -> int:
        """Number of recurrent neurons."""
        return sum(population.size for population in self.populations)

    @property
    def places(self) -> dict[str, slice]:
        """Where the neurons of each population are among the recurrent ones."""
        ends = 0
        places = {}
        for population in self.populations:
            places[population.name] = slice(ends, ends + population.size)
            ends += population.size
        return places

    def parameters(self, population: str) -> dict[str, Any]:
        """Parameters of a population, or "out", in NEST's spelling; a list has a value per neuron."""
        raise NotImplementedError

    def optimizer(self, n_batch: int) -> dict[str, Any]:
        """Parameters of NEST's optimizer that are the family's. n_batch: sequences in a batch."""
        raise NotImplementedError

    def learning_rate(self, eta: float) -> float:
        """The synapses' learning rate, from that of the config."""
        return eta

    def rescaled(self, weights: Weights) -> Weights:
        """Initial weights, from those that were drawn."""
        return weights

    def plastic(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Parameters of NEST's plastic synapse: its defaults, without the optimizer, and those of each connection."""
        raise NotImplementedError

    def kernel(self) -> dict[str, Any]:
        """Attributes of the NEST kernel that the family needs."""
        return {}


def passed_on(group: Any, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values of a config group that NEST takes as they are; null leaves NEST's default."""
    return {key: value for key, value in vars(group).items() if key not in without and value is not None}
