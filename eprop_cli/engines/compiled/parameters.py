"""Parameters of neurons as the kernels take them."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eprop_cli.engines.compiled import neurons
from eprop_cli.models.base import SURROGATE_GRADIENTS, Model
from eprop_cli.timing import decay

Floats = NDArray[np.float64]


def neuron_parameters(model: Model) -> Floats:
    """Parameters of the recurrent neurons, float64 (N_PARAMETERS, n_rec); rows as in neurons."""
    dt = model.timing.resolution
    parameters = np.zeros((neurons.N_PARAMETERS, model.n_rec))
    for population, columns in model.places.items():
        rows, values = parameters[:, columns], model.parameters(population)
        _set_membrane(rows, values, dt)
        rows[neurons.V_TH] = values["V_th"] - values["E_L"]
        rows[neurons.T_REF] = round(values["t_ref"] / dt)
        rows[neurons.HEIGHT] = values["surrogate_gradient_height"]
        rows[neurons.SLOPE] = 1.0 / values["surrogate_gradient_width"]
        rows[neurons.C_REG] = values["c_reg"]
        rows[neurons.F_TARGET] = values["f_target"] * dt / 1000.0
        if "adapt_tau" in values:
            rows[neurons.RHO] = decay(values["adapt_tau"], dt)
            rows[neurons.BETA] = values["adapt_beta"]
    return parameters


def readout_parameters(model: Model) -> Floats:
    """Parameters of a readout neuron, float64 (N_PARAMETERS,)."""
    parameters = np.zeros((neurons.N_PARAMETERS, 1))
    _set_membrane(parameters, model.parameters("out"), model.timing.resolution)
    return parameters[:, 0].copy()


def surrogates(model: Model) -> NDArray[np.int64]:
    """Surrogate gradient function of each stretch of neurons, int64 (n_stretches, 3): function, start, stop.

    Functions are numbered as in neurons. Neighbouring populations with the same function are one stretch.
    """
    found: list[tuple[int, int, int]] = []
    for population, place in model.places.items():
        function = SURROGATE_GRADIENTS.index(model.parameters(population)["surrogate_gradient_function"])
        if found and found[-1][0] == function:
            found[-1] = function, found[-1][1], place.stop
        else:
            found.append((function, place.start, place.stop))
    return np.array(found, dtype=np.int64)


def _set_membrane(rows: Floats, values: Mapping[str, Any], dt: float) -> None:
    """Set what recurrent and readout neurons have in common."""
    alpha = decay(values["tau_m"], dt)
    rows[neurons.ALPHA] = alpha
    rows[neurons.SCALE] = 1.0 if values["regular_spike_arrival"] else 1.0 - alpha
    rows[neurons.DRIVE] = np.asarray(values["tau_m"]) / values["C_m"] * (1.0 - alpha) * values["I_e"]
    rows[neurons.E_L] = values["E_L"]
    rows[neurons.V_MIN] = values.get("V_min", -math.inf) - values["E_L"]
