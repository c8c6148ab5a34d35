"""What the engines cannot compute, though each value by itself is in range."""

import os

import numpy as np

from eprop_cli.config.config import Config
from eprop_cli.errors import require
from eprop_cli.models.base import GRADIENT
from eprop_cli.timing import decay

COPIES = 8  # of the weights: drawn, initial, trained, gradients, moments, and what is on its way between them


def check_limits(config: Config) -> None:
    """Raise ConfigError if the config's engine cannot compute it."""
    _check_memory(config)
    # Signals of a shorter sequence are still on their way through the network when the next but one begins.
    sequence, least = config.task.sequence_steps, config.timing.lead
    require(sequence >= least, "task.sequence_steps", sequence, f"must be at least {least}; make the sequence longer")
    for population in config.model.populations:
        _check_start(config, population.name)


def _check_memory(config: Config) -> None:
    """Refuse what does not even fit into memory as plain arrays: the system would kill the run, or others."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    task, n = config.task, config.model.n_rec
    largest = max(config.model.populations, key=lambda population: population.size)
    key = f"n_{largest.name}"
    need = COPIES * 8 * n * (n + task.n_in)
    constraint = f"must be lower: weights of {n} recurrent neurons with {task.n_in} inputs do not fit into memory"
    constraint += f", as they need about {need / 1e9:.3g} GB"
    require(need < memory, f"neuron.{key}", getattr(config.neuron, key), constraint)
    shape = f"{task.sequence_steps} steps of {task.n_in} inputs"
    constraint = f"must be lower: that many sequences of {shape} do not fit into memory"
    n_bytes = task.n_batch * task.sequence_steps * task.n_in
    require(n_bytes < memory, "task.n_batch", task.n_batch, constraint)


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
