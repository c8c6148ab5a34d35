"""Optimizers on weight dictionaries: NEST's arithmetic to the bit, and what NEST lacks: schedules, decay, clipping.

Pure functions: weights and state go in, new ones come out.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from eprop_cli.connectivity.base import InitialMoments
from eprop_cli.optimizers.config import Adam, Optimizer, Schedule
from eprop_cli.values import Weights


@dataclass(frozen=True)
class OptimizerState:
    """What an optimizer remembers between steps.

    step: steps taken.
    m, v: moments per plastic projection, float64 (n_post, n_pre); empty for gradient descent.
    beta_1_power, beta_2_power: the decay rates to the power of step, multiplied up as NEST does.
    """

    step: int
    m: Weights
    v: Weights
    beta_1_power: float = 1.0
    beta_2_power: float = 1.0


def initial_state(optimizer: Optimizer, weights: Weights, entries: list[InitialMoments]) -> OptimizerState:
    """State before the first step, with the initial moments of synapse.init_optimizer."""
    if not isinstance(optimizer, Adam):
        return OptimizerState(0, {}, {})
    plastic = [projection for projection in weights if projection != "out_rec"]
    m, v = ({projection: np.zeros_like(weights[projection]) for projection in plastic} for _ in range(2))
    for entry in entries:
        m[entry.projection][entry.post, entry.pre] = entry.m
        v[entry.projection][entry.post, entry.pre] = entry.v
    return OptimizerState(0, m, v)


def optimize(
    optimizer: Optimizer, state: OptimizerState, weights: Weights, gradients: Weights
) -> tuple[Weights, OptimizerState]:
    """Take one step. gradients: batch means per plastic projection, 0 where there is no synapse."""
    eta = learning_rate(optimizer.schedule, optimizer.eta, state.step)
    gradients = _clipped(gradients, optimizer.clip_norm)
    if isinstance(optimizer, Adam):
        steps, state = _adam(optimizer, state, gradients, eta)
    else:
        steps = {projection: eta * gradient for projection, gradient in gradients.items()}
        state = OptimizerState(state.step + 1, {}, {})
    updated = dict(weights)
    for projection, step in steps.items():
        if optimizer.weight_decay:  # decoupled from the gradient (Loshchilov & Hutter 2019)
            step = step + eta * optimizer.weight_decay * weights[projection]
        updated[projection] = np.clip(weights[projection] - step, optimizer.Wmin, optimizer.Wmax)
    np.fill_diagonal(updated["rec_rec"], 0.0)  # no autapses, even where 0 lies outside Wmin and Wmax
    return updated, state


def learning_rate(schedule: Schedule, eta: float, step: int) -> float:
    """Learning rate of step number step, from 0."""
    if step < schedule.warmup:
        return eta * (step + 1) / schedule.warmup
    if schedule.name == "step":
        return eta * schedule.step_factor ** (step // schedule.step_every)
    if schedule.name == "cosine":
        span = max(1, schedule.cosine_iter - schedule.warmup)
        phase = min(1.0, (step - schedule.warmup) / span)
        return schedule.eta_min + (eta - schedule.eta_min) * 0.5 * (1.0 + math.cos(math.pi * phase))
    return eta


def _adam(adam: Adam, state: OptimizerState, gradients: Weights, eta: float) -> tuple[Weights, OptimizerState]:
    """Kingma & Ba (2015) with the bias corrections in the learning rate; operations in NEST's order."""
    beta_1_power, beta_2_power = state.beta_1_power * adam.beta_1, state.beta_2_power * adam.beta_2
    alpha = eta * math.sqrt(1.0 - beta_2_power) / (1.0 - beta_1_power)
    m = {key: adam.beta_1 * state.m[key] + (1.0 - adam.beta_1) * g for key, g in gradients.items()}
    v = {key: adam.beta_2 * state.v[key] + (1.0 - adam.beta_2) * g * g for key, g in gradients.items()}
    steps = {key: alpha * m[key] / (np.sqrt(v[key]) + adam.epsilon) for key in gradients}
    return steps, OptimizerState(state.step + 1, m, v, beta_1_power, beta_2_power)


def _clipped(gradients: Weights, clip_norm: float | None) -> Weights:
    """Gradients scaled down so that their norm over all projections is at most clip_norm."""
    if clip_norm is None:
        return gradients
    norm = math.sqrt(sum(float(np.sum(gradient**2)) for gradient in gradients.values()))
    return gradients if norm <= clip_norm else {key: clip_norm / norm * g for key, g in gradients.items()}


def optimizer_parameters(optimizer: Optimizer, n_batch: int) -> dict[str, Any]:
    """Optimizer of the e-prop synapses for nest.SetDefaults."""
    keys = ["eta", "Wmin", "Wmax"]
    if optimizer.name == "adam":
        keys += ["beta_1", "beta_2", "epsilon"]
    return {"type": optimizer.name, "batch_size": n_batch} | {key: getattr(optimizer, key) for key in keys}
