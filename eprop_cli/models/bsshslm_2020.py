"""The model family of Bellec et al. (2020): its neurons' config, and their parameters in NEST 3.10's spelling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eprop_cli.connectivity.base import Synapse
from eprop_cli.errors import require
from eprop_cli.losses import LOSSES
from eprop_cli.schema import check_choice, check_kinds, number_or_list
from eprop_cli.timing import Timing

if TYPE_CHECKING:
    from eprop_cli.config.config import Config

SURROGATE_GRADIENTS = ("piecewise_linear", "exponential", "fast_sigmoid_derivative", "arctan_derivative")


@dataclass
class Recurrent:
    """Parameters of a recurrent population."""

    C_m: float
    c_reg: float
    E_L: float
    f_target: float
    gamma: float
    I_e: float
    regular_spike_arrival: bool
    surrogate_gradient_function: str
    t_ref: float
    tau_m: Any  # float, or one per neuron
    V_m: float
    V_min: float | None
    V_th: float
    flush_event_send_interval: float | None


@dataclass
class Adaptive(Recurrent):
    """Parameters of the adaptive population."""

    adapt_tau: Any  # float, or one per neuron
    adapt_beta_scale: float
    adaptation: float


@dataclass
class Readout:
    """Parameters of the readout neurons."""

    C_m: float
    E_L: float
    I_e: float
    loss: str
    regular_spike_arrival: bool
    tau_m: float
    V_m: float
    V_min: float | None


@dataclass
class Neuron:
    """The three populations behind the input."""

    name: str
    n_reg: int
    n_ad: int
    rec: Recurrent
    reg: Recurrent
    ad: Adaptive
    out: Readout

    def __post_init__(self) -> None:
        for key in ("n_reg", "n_ad"):
            require(getattr(self, key) >= 0, f"neuron.{key}", getattr(self, key), "must be at least 0")
        require(self.n_reg + self.n_ad > 0, "neuron.n_reg", self.n_reg, "n_reg and n_ad must not both be 0")
        for name, size in {"rec": None, "reg": self.n_reg, "ad": self.n_ad}.items():
            self._check_recurrent(f"neuron.{name}", getattr(self, name), size)
        check_kinds(self.out, "neuron.out", {"C_m": "positive", "tau_m": "positive"})
        check_choice("neuron.out.loss", self.out.loss, LOSSES)

    @staticmethod
    def _check_recurrent(key: str, group: Recurrent, size: int | None) -> None:
        for name in ("tau_m", "adapt_tau"):
            if hasattr(group, name):
                setattr(group, name, number_or_list(f"{key}.{name}", getattr(group, name), size))
        positive = dict.fromkeys(("C_m", "gamma", "t_ref", "V_th", "flush_event_send_interval"), "positive")
        check_kinds(group, key, positive | dict.fromkeys(("c_reg", "f_target", "adapt_beta_scale"), "non-negative"))
        check_choice(f"{key}.surrogate_gradient_function", group.surrogate_gradient_function, SURROGATE_GRADIENTS)
        if group.V_min is not None:
            require(group.V_min < group.V_th, f"{key}.V_min", group.V_min, f"must be below V_th ({group.V_th})")


RECORDABLES = {
    "reg": ("V_m", "surrogate_gradient", "learning_signal"),
    "ad": ("V_m", "surrogate_gradient", "learning_signal", "V_th_adapt", "adaptation"),
    "out": ("V_m", "readout_signal", "readout_signal_unnorm", "target_signal", "error_signal"),
}
SPIKE_MODELS = {"reg": "eprop_iaf_bsshslm_2020", "ad": "eprop_iaf_adapt_bsshslm_2020"}


def population_parameters(config: Config, population: str) -> dict[str, Any]:
    """Parameters of a population ("reg", "ad", "out") for nest.Create."""
    if population == "out":
        return _passed_on(config.neuron.out)
    neuron: Recurrent = getattr(config.neuron, population)
    parameters = _passed_on(neuron, without=("gamma", "c_reg", "adapt_beta_scale"))
    parameters["surrogate_gradient_height"] = neuron.gamma / neuron.V_th
    parameters["surrogate_gradient_width"] = abs(neuron.V_th)
    timing = Timing.of(config.task, config.kernel)
    parameters["c_reg"] = c_reg(neuron, config.synapse, timing)
    parameters.setdefault("flush_event_send_interval", timing.ms(timing.sequence))
    if isinstance(neuron, Adaptive):
        parameters["adapt_beta"] = adapt_beta(neuron, config.kernel.resolution)
    return parameters


def c_reg(neuron: Recurrent, synapse: Synapse, timing: Timing) -> float:
    """Firing rate regularisation in NEST 3.10's scaling: times the learning window where gradients are averaged."""
    return neuron.c_reg * (timing.learning_window if synapse.average_gradient else 1)


def adapt_beta(neuron: Adaptive, resolution: float) -> Any:
    """Prefactor of the threshold adaptation; a list where tau_m or adapt_tau is one (NEST's tutorial)."""
    decay = 1.0 - np.exp(-resolution / np.asarray(neuron.adapt_tau, dtype=float))
    leak = 1.0 - np.exp(-resolution / np.asarray(neuron.tau_m, dtype=float))
    beta: NDArray[np.float64] = neuron.adapt_beta_scale * (decay / leak)
    return beta.tolist()


def n_rec(neuron: Neuron) -> int:
    """Number of recurrent neurons."""
    return neuron.n_reg + neuron.n_ad


def _passed_on(group: Any, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values of a config group that NEST takes as they are; null leaves NEST's default."""
    return {key: value for key, value in vars(group).items() if key not in without and value is not None}
