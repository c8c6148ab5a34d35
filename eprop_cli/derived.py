"""Everything that follows from the config: timing in steps and ms, and the parameters in NEST 3.10's spelling.

The one place where the paper's parametrisation is turned into NEST's.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eprop_cli.config import Adaptive, Config, Kernel, Neuron, Optimizer, Recurrent, Synapse
from eprop_cli.tasks import TaskConfig

SPIKE_MODELS = {"reg": "eprop_iaf_bsshslm_2020", "ad": "eprop_iaf_adapt_bsshslm_2020"}


@dataclass(frozen=True)
class Timing:
    """Time steps and durations of a simulation; names as in NEST's tutorial, all but resolution in steps.

    Generators emit their first signal in time step 1 (offset_gen); each stage then lags the one before by its delay.
    """

    sequence: int
    learning_window: int
    n_batch: int
    resolution: float  # ms

    offset_gen: int = 1
    delay_in_rec: int = 1
    delay_rec_out: int = 1
    delay_out_norm: int = 1
    extension_sim: int = 1  # Simulate() stops before the last step of its interval is recorded

    @classmethod
    def of(cls, task: TaskConfig, kernel: Kernel) -> "Timing":
        """Timing of a task at a resolution."""
        return cls(task.sequence_steps, task.learning_window_steps, task.n_batch, kernel.resolution)

    @property
    def iteration(self) -> int:
        """Steps of one batch."""
        return self.n_batch * self.sequence

    @property
    def delays(self) -> int:
        """Steps from the input to the normalised readout."""
        return self.delay_in_rec + self.delay_rec_out + self.delay_out_norm

    @property
    def total_offset(self) -> int:
        """Steps by which the readout lags the task's time."""
        return self.offset_gen + self.delays

    @property
    def lead(self) -> int:
        """Steps that must be simulated past the end of a sequence to have all of its readout recorded."""
        return self.total_offset + self.extension_sim

    def ms(self, steps: float) -> float:
        """Duration of a number of steps in ms."""
        return steps * self.resolution

    def steps(self, duration: float) -> int:
        """Number of steps in a duration in ms."""
        return round(duration / self.resolution)


def kernel_parameters(kernel: Kernel, timing: Timing) -> dict[str, Any]:
    """Attributes of the NEST kernel; durations in ms."""
    return {
        "resolution": kernel.resolution,
        "local_num_threads": kernel.local_num_threads,
        "eprop_update_interval": timing.ms(timing.sequence),
        "eprop_learning_window": timing.ms(timing.learning_window),
        "eprop_reset_neurons_on_update": kernel.eprop_reset_neurons_on_update,
        "print_time": False,
        "spike_buffer_shrink_limit": 0.0,  # NEST logs each resizing: with buffers that shrink, 24 bytes in every step
    }


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


def optimizer_parameters(optimizer: Optimizer, n_batch: int) -> dict[str, Any]:
    """Optimizer of the e-prop synapses for nest.SetDefaults."""
    keys = ["eta", "Wmin", "Wmax"]
    if optimizer.name == "adam":
        keys += ["beta_1", "beta_2", "epsilon"]
    return {"type": optimizer.name, "batch_size": n_batch} | {key: getattr(optimizer, key) for key in keys}


def n_rec(neuron: Neuron) -> int:
    """Number of recurrent neurons."""
    return neuron.n_reg + neuron.n_ad


def _passed_on(group: Any, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values of a config group that NEST takes as they are; null leaves NEST's default."""
    return {key: value for key, value in vars(group).items() if key not in without and value is not None}
