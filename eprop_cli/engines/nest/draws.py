"""Parameters that a NEST script draws with NEST's own generator: the same values, from a fresh kernel."""

import importlib.util

from eprop_cli.engines.nest.kernel import import_nest
from eprop_cli.errors import require
from eprop_cli.models.draws import Draw, Drawn, checked

LEAST_SEED = 1  # NEST takes no 0


def draw_with_nest(draw: Draw, seed: int) -> Drawn:
    """Values of a parameter as nest.Create gives them with rng_seed = seed and one virtual process."""
    key = f"{draw.key}.generator"
    installed = importlib.util.find_spec("nest") is not None
    require(installed, key, "nest", "needs NEST, which is not installed; use generator: numpy")
    require(seed >= LEAST_SEED, "seed", seed, f"must be at least {LEAST_SEED}, as {key}=nest; or use numpy")
    nest = import_nest()
    nest.ResetKernel()
    nest.set(total_num_virtual_procs=1, rng_seed=seed)
    distribution = draw.distribution
    values = nest.random.normal(mean=distribution["mean"], std=distribution["std"])
    # Any model with a membrane time constant: the generator draws once a neuron.
    nodes = nest.Create("iaf_psc_delta", draw.size, {"tau_m": values})
    drawn = checked(draw, nodes.get("tau_m") if draw.size > 1 else [nodes.get("tau_m")])
    nest.ResetKernel()
    return drawn
