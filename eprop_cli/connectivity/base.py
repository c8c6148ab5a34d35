"""The projections, and the config of their synapses."""

from dataclasses import dataclass

from eprop_cli.schema import check_choice, check_kinds

PROJECTIONS = ("in_rec", "rec_rec", "rec_out")  # plastic ones, in the tutorial's order


@dataclass
class WeightScale:
    """Factors on the initial weights, per projection."""

    in_rec: float
    rec_rec: float
    rec_out: float
    out_rec: float


@dataclass
class InitialMoments:
    """Initial Adam moments of the synapses from neuron pre to the neurons post (indices within populations)."""

    projection: str
    pre: int
    post: list[int]
    m: float
    v: float


@dataclass
class Synapse:
    """Plastic synapses and their initial weights."""

    name: str
    average_gradient: bool
    weight_scale: WeightScale
    dtype_weights: str
    weights_from: str | None
    init_optimizer: list[InitialMoments]

    def __post_init__(self) -> None:
        check_kinds(self.weight_scale, "synapse.weight_scale", dict.fromkeys(vars(self.weight_scale), "non-negative"))
        check_choice("synapse.dtype_weights", self.dtype_weights, ("float32", "float64"))
