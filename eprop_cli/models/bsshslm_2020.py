"""The model family of Bellec et al. (2020), NEST's models with that suffix: reset and updated at each sequence's end.

The one place where the paper's parametrisation is turned into NEST 3.10's.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from eprop_cli.connectivity.synapses import SynapseConfig
from eprop_cli.errors import require
from eprop_cli.models.base import (
    GRADIENT,
    STREAM,
    SURROGATE_GRADIENTS,
    Model,
    NeuronConfig,
    Population,
    SynapseModel,
    passed_on,
)
from eprop_cli.models.draws import positive_values
from eprop_cli.registry import variant
from eprop_cli.schema import NON_NEGATIVE, POSITIVE, at_least, check_multiple, key, one_of
from eprop_cli.timing import decay

REGULAR, ADAPTIVE = "reg", "ad"


@dataclass(kw_only=True)
class Recurrent:
    """Parameters of a recurrent population."""

    C_m: float = key(POSITIVE, unit="pF")
    c_reg: float = key(NON_NEGATIVE)
    E_L: float = key(unit="mV")
    f_target: float = key(NON_NEGATIVE, unit="spikes/s")
    gamma: float = key(POSITIVE)
    I_e: float = key(unit="pA")
    regular_spike_arrival: bool
    surrogate_gradient_function: str = key(one_of(SURROGATE_GRADIENTS))
    t_ref: float = key(NON_NEGATIVE, unit="ms")
    tau_m: Any = key(unit="ms")  # float, or one per neuron
    V_m: float = key(unit="mV")
    V_min: float | None = key(unit="mV")
    V_th: float = key(POSITIVE, unit="mV")
    flush_event_send_interval: float | None = key(POSITIVE, unit="ms")


@dataclass(kw_only=True)
class Adaptive(Recurrent):
    """Parameters of the adaptive population."""

    adapt_tau: Any = key(unit="ms")  # float, or one per neuron
    adapt_beta_scale: float = key(NON_NEGATIVE)
    adapt_beta_tau_m: float | None = key(POSITIVE, unit="ms")
    adaptation: float


@dataclass(kw_only=True)
class Readout:
    """Parameters of the readout neurons."""

    C_m: float = key(POSITIVE, unit="pF")
    E_L: float = key(unit="mV")
    I_e: float = key(unit="pA")
    loss: str
    regular_spike_arrival: bool
    tau_m: float = key(POSITIVE, unit="ms")
    V_m: float = key(unit="mV")
    V_min: float | None = key(unit="mV")


@dataclass(kw_only=True)
class Bsshslm2020Config(NeuronConfig):
    """Keys of conf/neuron/bsshslm_2020.yaml."""

    n_reg: int = key(at_least(0))
    n_ad: int = key(at_least(0))
    rec: Recurrent
    reg: Recurrent
    ad: Adaptive
    out: Readout

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.n_reg + self.n_ad > 0, "neuron.n_reg", self.n_reg, "n_reg and n_ad must not both be 0")
        for name, size in {"rec": None, REGULAR: self.n_reg, ADAPTIVE: self.n_ad}.items():
            group = getattr(self, name)
            for tau in ("tau_m", "adapt_tau"):
                if hasattr(group, tau):
                    setattr(group, tau, positive_values(f"neuron.{name}.{tau}", getattr(group, tau), size))
            if group.V_min is not None:
                constraint = f"must be below V_th ({group.V_th})"
                require(group.V_min < group.V_th, f"neuron.{name}.V_min", group.V_min, constraint)


@dataclass(kw_only=True)
class Bsshslm2020SynapseConfig(SynapseConfig):
    """Keys of conf/synapse/bsshslm_2020.yaml."""

    average_gradient: bool


class Bsshslm2020Synapses(SynapseModel):
    """eprop_synapse_bsshslm_2020."""

    Config = Bsshslm2020SynapseConfig


class Bsshslm2020(Model):
    """Regular and adaptive neurons; weights change once per batch."""

    Config = Bsshslm2020Config
    fits = ("bsshslm_2020",)
    computes = (GRADIENT, STREAM)
    resets = True
    equations = "adjoint"
    readout = "eprop_readout_bsshslm_2020"
    synapse = "eprop_synapse_bsshslm_2020"
    learning_signal = "eprop_learning_signal_connection_bsshslm_2020"
    readout_recordables = ("V_m", "readout_signal", "readout_signal_unnorm", "target_signal", "error_signal")
    # The tutorial's 1000 is too weak where weights have been made to hold gradients (engines/nest/engine.py).
    forcing_weight = 1e200
    neuron: Bsshslm2020Config

    _kinds: ClassVar = (
        Population(REGULAR, "regular", 0, "eprop_iaf_bsshslm_2020", ("V_m", "surrogate_gradient", "learning_signal")),
        Population(
            ADAPTIVE,
            "adaptive",
            0,
            "eprop_iaf_adapt_bsshslm_2020",
            ("V_m", "surrogate_gradient", "learning_signal", "V_th_adapt", "adaptation"),
        ),
    )

    @classmethod
    def check(cls, config: Any) -> None:
        """Raise ConfigError for durations that are not whole steps, or too short."""
        dt, sequence = config.kernel.resolution, config.task.sequence_steps
        grid = f"kernel.resolution ({dt} ms)"
        for name in (REGULAR, ADAPTIVE):
            neuron = getattr(config.neuron, name)
            if neuron.t_ref:
                check_multiple(f"neuron.{name}.t_ref", neuron.t_ref, dt, grid)
            flush, key = neuron.flush_event_send_interval, f"neuron.{name}.flush_event_send_interval"
            if flush is not None:
                check_multiple(key, flush, dt, grid)
                constraint = f"must be at least one sequence ({sequence * dt:g} ms)"
                require(round(flush / dt) >= sequence, key, flush, constraint)

    @property
    def populations(self) -> tuple[Population, ...]:
        """Regular, then adaptive neurons."""
        sizes = {REGULAR: self.neuron.n_reg, ADAPTIVE: self.neuron.n_ad}
        return tuple(replace(kind, size=sizes[kind.name]) for kind in self._kinds if sizes[kind.name])

    def parameters(self, population: str) -> dict[str, Any]:
        """Parameters for nest.Create."""
        if population == "out":
            loss = variant("loss", self.neuron.out.loss)
            link = "cross_entropy" if loss.softmax else "mean_squared_error"  # all that NEST knows of losses
            return passed_on(self.neuron.out) | {"loss": link}
        neuron: Recurrent = getattr(self.neuron, population)
        parameters = passed_on(neuron, without=("gamma", "c_reg", "adapt_beta_scale", "adapt_beta_tau_m"))
        parameters["surrogate_gradient_height"] = neuron.gamma / neuron.V_th
        parameters["surrogate_gradient_width"] = abs(neuron.V_th)
        parameters["c_reg"] = self.c_reg(neuron)
        parameters.setdefault("flush_event_send_interval", self.timing.ms(self.timing.sequence))
        if isinstance(neuron, Adaptive):
            parameters["adapt_beta"] = adapt_beta(neuron, self.timing.resolution)
        return parameters

    def c_reg(self, neuron: Recurrent) -> float:
        """Firing rate regularisation in NEST 3.10's scaling: times the learning window where gradients are averaged."""
        return neuron.c_reg * (self.timing.learning_window if self.synapses.average_gradient else 1)

    def optimizer(self, n_batch: int) -> dict[str, Any]:
        """One step a batch."""
        return {"batch_size": n_batch}

    def plastic(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Parameters of the synapses; their eligibility traces are filtered as the readouts filter spikes."""
        return {"average_gradient": self.synapses.average_gradient}, {"tau_m_readout": self.neuron.out.tau_m}

    def kernel(self) -> dict[str, Any]:
        """When NEST updates weights; durations in ms."""
        timing = self.timing
        return {
            "eprop_update_interval": timing.ms(timing.sequence),
            "eprop_learning_window": timing.ms(timing.learning_window),
        }


def adapt_beta(neuron: Adaptive, resolution: float) -> Any:
    """Prefactor of the threshold adaptation; a list where what it depends on is one (NEST's tutorial)."""
    tau_m = neuron.tau_m if neuron.adapt_beta_tau_m is None else neuron.adapt_beta_tau_m
    adaptation, leak = (1.0 - decay(tau, resolution) for tau in (neuron.adapt_tau, tau_m))
    beta: NDArray[np.float64] = neuron.adapt_beta_scale * (adaptation / leak)
    several = isinstance(neuron.adapt_tau, list) or isinstance(tau_m, list)
    return beta.tolist() if several else float(beta[0])
