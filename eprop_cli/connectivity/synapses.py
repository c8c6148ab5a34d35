"""Config of the plastic synapses: the weights and the optimizer's moments that they begin with."""

from dataclasses import dataclass

from eprop_cli.connectivity.base import PLASTIC
from eprop_cli.errors import ConfigError
from eprop_cli.schema import NON_NEGATIVE, Group, Rule, key, one_of


@dataclass(kw_only=True)
class WeightScale:
    """Factors on the initial weights, per projection."""

    in_rec: float = key(NON_NEGATIVE)
    rec_rec: float = key(NON_NEGATIVE)
    rec_out: float = key(NON_NEGATIVE)
    out_rec: float = key(NON_NEGATIVE)


DISTRIBUTIONS = ("normal", "standard_normal", "glorot_uniform")
FROM_FILE = "file:"
DISTRIBUTION = Rule(
    f"one of {', '.join(DISTRIBUTIONS)}, or {FROM_FILE}PATH of an array",
    lambda name: name in DISTRIBUTIONS or (name.startswith(FROM_FILE) and name != FROM_FILE),
)


@dataclass(kw_only=True)
class WeightDistribution:
    """What the initial weights are drawn from, per projection."""

    in_rec: str = key(DISTRIBUTION)
    rec_rec: str = key(DISTRIBUTION)
    rec_out: str = key(DISTRIBUTION)
    out_rec: str = key(DISTRIBUTION)


@dataclass(kw_only=True)
class InitialMoments:
    """Initial Adam moments of the synapses from neuron pre to the neurons post (indices within populations)."""

    projection: str = key(one_of(PLASTIC))
    pre: int
    post: list[int]
    m: float
    v: float


def no_such_synapse(entry: InitialMoments) -> ConfigError:
    """The error of moments for a synapse that does not exist."""
    constraint = f"names synapses of {entry.projection} from neuron {entry.pre} that connectivity does not give"
    return ConfigError("synapse.init_optimizer.post", entry.post, constraint)


@dataclass(kw_only=True)
class SynapseConfig(Group):
    """The keys that every family's synapses have."""

    GROUP = "synapse"

    name: str
    weight_distribution: WeightDistribution
    weight_scale: WeightScale
    dtype_weights: str = key(one_of(("float32", "float64")))
    weights_from: str | None
    init_optimizer: list[InitialMoments]
