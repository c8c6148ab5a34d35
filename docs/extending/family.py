"""A model family with its synapses: one population without adaptation. `neuron=plain synapse=plain`, files in conf/."""

from dataclasses import dataclass
from typing import Any

from eprop_cli.errors import require
from eprop_cli.models.base import NeuronConfig, Population
from eprop_cli.models.bsshslm_2020 import Bsshslm2020, Bsshslm2020Synapses, Readout, Recurrent
from eprop_cli.schema import at_least, key


@dataclass(kw_only=True)
class PlainConfig(NeuronConfig):
    """Keys of conf/neuron/plain.yaml."""

    n_lif: int = key(at_least(1))
    lif: Recurrent
    out: Readout


class Plain(Bsshslm2020):
    """NEST's models and the kernels' equations are those of Bellec et al. (2020); the populations are its own."""

    Config = PlainConfig
    fits = ("family:PlainSynapses",)

    @classmethod
    def check(cls, config: Any) -> None:
        """Nothing beyond the rules of the keys."""

    @property
    def populations(self) -> tuple[Population, ...]:
        """Only one."""
        recordables = ("V_m", "surrogate_gradient", "learning_signal")
        return (
            Population("lif", "leaky integrate-and-fire", self.neuron.n_lif, "eprop_iaf_bsshslm_2020", recordables),
        )


class PlainSynapses(Bsshslm2020Synapses):
    """Synapses whose initial weights are not rounded."""

    @classmethod
    def check(cls, config: Any) -> None:
        """Refuse single precision."""
        dtype = config.synapse.dtype_weights
        require(dtype == "float64", "synapse.dtype_weights", dtype, "must be float64 with synapse=plain")
