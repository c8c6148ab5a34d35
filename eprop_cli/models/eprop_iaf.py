"""NEST's online e-prop family, "e-prop+": never reset, weights change at every presynaptic spike.

Korcsak-Gorzo et al. 2025, arXiv:2511.21674. The one place where values are rescaled as in NEST's scripts, which have
those of the family bsshslm_2020 and take out what only that one has: the factor 1 - kappa on the spikes that arrive.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from eprop_cli.connectivity.base import FEEDBACK
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
from eprop_cli.schema import NON_NEGATIVE, POSITIVE, Rule, at_least, check_multiple, key, one_of
from eprop_cli.timing import Timing
from eprop_cli.values import Weights

FILTER = Rule("from 0 to 1", lambda kappa: 0 <= kappa <= 1)
ETA, C_REG = "eta", "c_reg"
RESCALED = ("in_rec", "rec_rec", "rec_out", FEEDBACK, ETA, C_REG)


@dataclass(kw_only=True)
class Recurrent:
    """Parameters of the recurrent neurons."""

    C_m: float = key(POSITIVE, unit="pF")
    c_reg: float = key(NON_NEGATIVE)
    E_L: float = key(unit="mV")
    eprop_isi_trace_cutoff: float | None = key(POSITIVE, unit="ms")
    f_target: float = key(NON_NEGATIVE, unit="spikes/s")
    flush_event_send_interval: float | None = key(POSITIVE, unit="ms")
    I_e: float = key(unit="pA")
    kappa: float = key(FILTER)
    kappa_reg: float = key(FILTER)
    surrogate_gradient_function: str = key(one_of(SURROGATE_GRADIENTS))
    surrogate_gradient_height: float = key(NON_NEGATIVE)
    surrogate_gradient_width: float = key(POSITIVE)
    t_ref: float = key(NON_NEGATIVE, unit="ms")
    tau_m: float = key(POSITIVE, unit="ms")
    V_m: float = key(unit="mV")
    V_min: float | None = key(unit="mV")
    V_th: float = key(unit="mV")


@dataclass(kw_only=True)
class Adaptation:
    """Parameters of an adaptive threshold."""

    adapt_beta: float = key(NON_NEGATIVE)
    adapt_tau: float = key(POSITIVE, unit="ms")
    adaptation: float


@dataclass(kw_only=True)
class Reset:
    """Parameters of neurons that are reset to a potential, and whose input jumps it."""

    V_reset: float = key(unit="mV")
    refractory_input: bool


@dataclass(kw_only=True)
class RecurrentAdapt(Recurrent, Adaptation):
    """Parameters of eprop_iaf_adapt."""


@dataclass(kw_only=True)
class RecurrentPscDelta(Recurrent, Reset):
    """Parameters of eprop_iaf_psc_delta."""


@dataclass(kw_only=True)
class RecurrentPscDeltaAdapt(RecurrentPscDelta, Adaptation):
    """Parameters of eprop_iaf_psc_delta_adapt."""


@dataclass(kw_only=True)
class Readout:
    """Parameters of the readout neurons."""

    C_m: float = key(POSITIVE, unit="pF")
    E_L: float = key(unit="mV")
    eprop_isi_trace_cutoff: float | None = key(POSITIVE, unit="ms")
    I_e: float = key(unit="pA")
    loss: str
    tau_m: float = key(POSITIVE, unit="ms")
    V_m: float = key(unit="mV")
    V_min: float | None = key(unit="mV")


@dataclass(kw_only=True)
class EpropIafConfig(NeuronConfig):
    """Keys of conf/neuron/eprop_iaf.yaml."""

    n_rec: int = key(at_least(1))
    rec: Recurrent
    out: Readout

    def __post_init__(self) -> None:
        super().__post_init__()
        least, v_th = self.rec.V_min, self.rec.V_th
        e_l = self.rec.E_L
        require(e_l < v_th, "neuron.rec.E_L", e_l, f"must be below V_th ({v_th})")
        require(least is None or least < v_th, "neuron.rec.V_min", least, f"must be below V_th ({v_th})")
        if isinstance(self.rec, Reset):
            require(self.rec.V_reset < v_th, "neuron.rec.V_reset", self.rec.V_reset, f"must be below V_th ({v_th})")
            constraint = f"must be at least V_min ({least})"
            require(least is None or self.rec.V_reset >= least, "neuron.rec.V_reset", self.rec.V_reset, constraint)


@dataclass(kw_only=True)
class EpropIafAdaptConfig(EpropIafConfig):
    """Keys of conf/neuron/eprop_iaf_adapt.yaml."""

    rec: RecurrentAdapt


@dataclass(kw_only=True)
class EpropIafPscDeltaConfig(EpropIafConfig):
    """Keys of conf/neuron/eprop_iaf_psc_delta.yaml."""

    rec: RecurrentPscDelta


@dataclass(kw_only=True)
class EpropIafPscDeltaAdaptConfig(EpropIafPscDeltaConfig):
    """Keys of conf/neuron/eprop_iaf_psc_delta_adapt.yaml."""

    rec: RecurrentPscDeltaAdapt


@dataclass(kw_only=True)
class EpropSynapseConfig(SynapseConfig):
    """Keys of conf/synapse/eprop_synapse.yaml."""

    batch_size: int = key(at_least(1))
    optimize_each_step: bool
    rescale: list[str] = key(one_of(RESCALED))


class EpropSynapses(SynapseModel):
    """eprop_synapse."""

    Config = EpropSynapseConfig


class EpropIaf(Model):
    """Neurons whose potential is lowered by the threshold when they fire; weights change at every spike.

    variables: the recurrent neurons' dynamic variables.
    powers: of 1 - kappa, by which synapse.rescale multiplies.
    """

    Config: ClassVar[type[EpropIafConfig]] = EpropIafConfig
    fits = ("eprop_synapse",)
    computes = (STREAM,)
    refusals: ClassVar = {
        GRADIENT: "each spike changes a weight, so a batch has no gradient to share out; choose training=continuous"
    }
    softmax = False
    equations = "online"
    readout = "eprop_readout"
    synapse = "eprop_synapse"
    learning_signal = "eprop_learning_signal_connection"
    window_receptor = 1
    forcing_weight = 1000.0  # as NEST's scripts: more than any threshold, and little enough that V_th is taken off it
    readout_recordables = ("V_m", "readout_signal", "target_signal", "error_signal")
    neuron: EpropIafConfig
    synapses: EpropSynapseConfig

    model: ClassVar[str] = "eprop_iaf"
    variables: ClassVar[tuple[str, ...]] = ("V_m", "surrogate_gradient", "learning_signal")
    powers: ClassVar[Mapping[str, int]] = {"in_rec": 1, "rec_rec": 1, "rec_out": 1, FEEDBACK: 1, ETA: 2, C_REG: 0}

    @classmethod
    def make_timing(cls, sequence: int, learning_window: int, resolution: float) -> Timing:
        """Readouts are recorded in the step of the spikes that caused them; there is no softmax to wait for.

        Two steps past the task forced spikes have reached the synapses. NEST's script forces them a step earlier, into
        the last step of the task, and lets neurons that are lowered by V_th only fire on and on.
        """
        return Timing(sequence, learning_window, resolution, delay_rec_out=0, delay_out_norm=0, extension_sim=2)

    @classmethod
    def check(cls, config: Any) -> None:
        """Raise ConfigError for durations that are not whole steps, and for what cannot be rescaled."""
        dt, rec = config.kernel.resolution, config.neuron.rec
        durations = {
            "rec.t_ref": rec.t_ref or None,
            "rec.eprop_isi_trace_cutoff": rec.eprop_isi_trace_cutoff,
            "rec.flush_event_send_interval": rec.flush_event_send_interval,
            "out.eprop_isi_trace_cutoff": config.neuron.out.eprop_isi_trace_cutoff,
        }
        for name, duration in durations.items():
            if duration is not None:
                check_multiple(f"neuron.{name}", duration, dt, f"kernel.resolution ({dt} ms)")
        constraint = "must be below 1 where synapse.rescale has anything; set synapse.rescale=[]"
        require(rec.kappa < 1 or not config.synapse.rescale, "neuron.rec.kappa", rec.kappa, constraint)

    @property
    def populations(self) -> tuple[Population, ...]:
        """One."""
        return (Population("rec", "recurrent", self.neuron.n_rec, self.model, self.variables),)

    def parameters(self, population: str) -> dict[str, Any]:
        """Parameters for nest.Create."""
        if population == "out":
            return passed_on(self.neuron.out, without=("loss",))
        parameters = passed_on(self.neuron.rec)
        if C_REG in self.synapses.rescale:
            # First to that of a step, as this family adds up in each step what the other one does once a sequence.
            c_reg = parameters["c_reg"] / self.timing.ms(self.timing.sequence)
            parameters["c_reg"] = self._rescaled(C_REG, c_reg)
        parameters.setdefault("flush_event_send_interval", self.timing.ms(self.timing.sequence))
        return parameters

    def optimizer(self, n_batch: int) -> dict[str, Any]:
        """What NEST's optimizer needs of the family; batch_size counts time steps."""
        return {"batch_size": self.synapses.batch_size, "optimize_each_step": self.synapses.optimize_each_step}

    def learning_rate(self, eta: float) -> float:
        """The learning rate for rescaled weights."""
        return float(self._rescaled(ETA, eta)) if ETA in self.synapses.rescale else eta

    def rescaled(self, weights: Weights) -> Weights:
        """Weights as they were drawn, rescaled in their precision."""
        dtype = np.dtype(self.synapses.dtype_weights).type
        return {
            key: self._rescaled(key, values.astype(dtype)).astype(np.float64)
            if key in self.synapses.rescale
            else values
            for key, values in weights.items()
        }

    def plastic(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The synapses have no parameters of their own."""
        return {}, {}

    def _rescaled(self, name: str, value: Any) -> Any:
        """Divided where the power is negative, as the scripts do: that rounds in another way."""
        scale, power = 1.0 - self.neuron.rec.kappa, self.powers[name]
        return value * scale**power if power >= 0 else value / scale**-power


ADAPTATION = ("V_th_adapt", "adaptation")


class EpropIafAdapt(EpropIaf):
    """With an adaptive threshold."""

    Config = EpropIafAdaptConfig
    model = "eprop_iaf_adapt"
    variables = (*EpropIaf.variables, *ADAPTATION)


class EpropIafPscDelta(EpropIaf):
    """Neurons whose potential is set to V_reset when they fire. Their weights are not rescaled, as V_th is larger."""

    Config: ClassVar[type[EpropIafPscDeltaConfig]] = EpropIafPscDeltaConfig
    model = "eprop_iaf_psc_delta"
    powers: ClassVar = {"in_rec": 0, "rec_rec": 0, "rec_out": 1, FEEDBACK: -1, ETA: 2, C_REG: -2}


class EpropIafPscDeltaAdapt(EpropIafPscDelta):
    """With an adaptive threshold."""

    Config = EpropIafPscDeltaAdaptConfig
    model = "eprop_iaf_psc_delta_adapt"
    variables = (*EpropIafPscDelta.variables, *ADAPTATION)
