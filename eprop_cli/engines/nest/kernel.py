"""The NEST kernel: reset and set up."""

import logging
import os
from typing import Any

from eprop_cli.config.config import Config
from eprop_cli.config.groups import Kernel
from eprop_cli.errors import UserError
from eprop_cli.timing import Timing


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


def start_kernel(config: Config) -> Any:
    """Reset the NEST kernel and set it up; returns the nest module."""
    verbose = logging.getLogger(__name__).isEnabledFor(logging.DEBUG)
    if not verbose:
        os.environ.setdefault("PYNEST_QUIET", "1")
    try:
        import nest
    except ImportError as error:
        raise UserError(f"engine=nest: NEST cannot be imported ({error}); use engine=compiled") from error
    nest.verbosity = nest.VerbosityLevel.INFO if verbose else nest.VerbosityLevel.ERROR
    nest.ResetKernel()
    nest.set(**kernel_parameters(config.kernel, Timing.of(config.task, config.kernel)))
    return nest
