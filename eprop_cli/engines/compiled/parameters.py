"""Parameters of neurons as the kernels take them."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eprop_cli.config.config import Config
from eprop_cli.engines.compiled import kernels
from eprop_cli.models.bsshslm_2020 import SURROGATE_GRADIENTS, n_rec, population_parameters

Floats = NDArray[np.float64]


def neuron_parameters(config: Config) -> Floats:
    """Parameters of the recurrent neurons, float64 (N_PARAMETERS, n_rec); rows as in kernels."""
    n_reg, dt = config.neuron.n_reg, config.kernel.resolution
    parameters = np.zeros((kernels.N_PARAMETERS, n_rec(config.neuron)))
    for population, columns in {"reg": slice(n_reg), "ad": slice(n_reg, None)}.items():
        rows, values = parameters[:, columns], population_parameters(config, population)
        _set_membrane(rows, values, dt)
        rows[kernels.V_TH] = values["V_th"] - values["E_L"]
        rows[kernels.T_REF] = round(values["t_ref"] / dt)
        rows[kernels.HEIGHT] = values["surrogate_gradient_height"]
        rows[kernels.SLOPE] = 1.0 / values["surrogate_gradient_width"]
        rows[kernels.C_REG] = values["c_reg"]
        rows[kernels.F_TARGET] = values["f_target"] * dt / 1000.0
        if population == "ad":
            rows[kernels.RHO] = decay(values["adapt_tau"], dt)
            rows[kernels.BETA] = values["adapt_beta"]
    return parameters


def readout_parameters(config: Config) -> Floats:
    """Parameters of a readout neuron, float64 (N_PARAMETERS,)."""
    parameters = np.zeros((kernels.N_PARAMETERS, 1))
    _set_membrane(parameters, population_parameters(config, "out"), config.kernel.resolution)
    return parameters[:, 0].copy()


def _set_membrane(rows: Floats, values: Mapping[str, Any], dt: float) -> None:
    """Set what recurrent and readout neurons have in common."""
    alpha = decay(values["tau_m"], dt)
    rows[kernels.ALPHA] = alpha
    rows[kernels.SCALE] = 1.0 if values["regular_spike_arrival"] else 1.0 - alpha
    rows[kernels.DRIVE] = np.asarray(values["tau_m"]) / values["C_m"] * (1.0 - alpha) * values["I_e"]
    rows[kernels.E_L] = values["E_L"]
    rows[kernels.V_MIN] = values.get("V_min", -math.inf) - values["E_L"]


def decay(tau: Any, dt: float) -> Floats:
    """exp(-dt / tau) of one or several time constants in ms, rounded as in C++, which NumPy's is not always."""
    return np.array([math.exp(-dt / value) for value in np.ravel(tau)])


def surrogates(config: Config) -> NDArray[np.int64]:
    """Surrogate gradient functions, which kernels numbers as config does, and where the adaptive neurons begin."""
    neuron = config.neuron
    functions = [group.surrogate_gradient_function for group in (neuron.reg, neuron.ad)]
    return np.array([*map(SURROGATE_GRADIENTS.index, functions), neuron.n_reg])
