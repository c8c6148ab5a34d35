"""What the engines cannot compute, though each value by itself is in range."""

import os
import resource

import numpy as np

from eprop_cli.config.config import Config
from eprop_cli.errors import require
from eprop_cli.models.base import GRADIENT
from eprop_cli.registry import variant
from eprop_cli.timing import decay

GIB = 2**30


def check_limits(config: Config) -> None:
    """Raise ConfigError if the config's engine cannot compute it."""
    _check_memory(config)
    # Signals of a shorter sequence are still on their way through the network when the next but one begins.
    sequence, least = config.task.sequence_steps, config.timing.lead
    require(sequence >= least, "task.sequence_steps", sequence, f"must be at least {least}; make the sequence longer")
    for population in config.model.populations if config.model.resets else ():
        _check_start(config, population.name)


def _check_memory(config: Config) -> None:
    """Refuse what does not fit into memory: the system would kill the run, or others."""
    memory, needed = _memory(), memory_needed(config)
    n_synapses = sum(config.connectivity.expected(config.sizes).values())
    task = config.task
    shape = f"{task.sequence_steps} steps of {task.n_in} inputs"
    constraint = f"must be lower: that many sequences of {shape} do not fit into memory"
    n_bytes = task.n_batch * task.sequence_steps * task.n_in
    require(n_bytes < memory, "task.n_batch", task.n_batch, constraint)
    largest = max(config.model.populations, key=lambda population: population.size)
    key = f"n_{largest.name}"
    constraint = (
        f"must be lower, or connectivity.rec_rec sparser: {n_synapses:.3g} synapses, and {config.engine.n_workers} x "
        f"{task.sequence_steps} steps of {config.model.n_rec} neurons, need about {needed / GIB:.3g} GiB and do not "
        f"fit into memory ({memory / GIB:.3g} GiB)"
    )
    require(needed < memory, f"neuron.{key}", largest.size, constraint)


def memory_needed(config: Config) -> float:
    """Bytes that a run will about need: of its synapses, and of what it keeps of each neuron and step."""
    per_synapse = int(variant("engine", config.engine.name).bytes_per_synapse(config.needs))
    n_synapses = sum(config.connectivity.expected(config.sizes).values())
    per_sequence = 8 * config.task.sequence_steps * config.model.n_rec
    return float(per_synapse * n_synapses + config.engine.n_workers * per_sequence)


def _memory() -> int:
    """Bytes there are: the machine's, or what this process may take."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    return min([memory, *(limit for limit in limits if limit != resource.RLIM_INFINITY)])


def _check_start(config: Config, population: str) -> None:
    """Refuse neurons that fire without input in the first step of the simulation or of a sequence.

    The former NEST takes for an error; the latter makes a sequence's gradient depend on its neighbours.
    """
    values, dt = config.model.parameters(population), config.kernel.resolution
    key, e_l = f"neuron.{population}", values["E_L"]
    threshold = np.asarray(values["V_th"] - e_l)  # potentials are relative to E_L
    tau_m = np.asarray(values["tau_m"])
    alpha = decay(tau_m, dt)
    drive = tau_m / values["C_m"] * (1.0 - alpha) * values["I_e"]
    quiet = bool(np.all(drive < threshold))
    if config.needs == GRADIENT:
        constraint = f"must be below V_th ({values['V_th']}), or neurons fire in the first step of each sequence"
        require(bool(threshold > 0), f"{key}.E_L", e_l, constraint)
        constraint = "must not make neurons fire in the first step of a sequence; lower it, or raise V_th"
        require(quiet, f"{key}.I_e", values["I_e"], constraint)
    v = drive + alpha * (values["V_m"] - e_l)
    cause = "E_L" if threshold <= 0 else "V_m" if quiet else "I_e"
    if "adapt_tau" in values:
        adaptation = decay(values["adapt_tau"], dt) * values["adaptation"]
        cause = "adaptation" if bool(np.all(v < threshold)) else cause
        threshold = threshold + np.asarray(values["adapt_beta"]) * adaptation
    remedy = "raise it" if cause == "adaptation" else "lower it, or raise V_th"
    constraint = f"must not make neurons fire in the first step; {remedy}"
    require(bool(np.all(v < threshold)), f"{key}.{cause}", values[cause], constraint)
