"""The NEST kernel: reset and set up. nest is imported here, so that all else works without it."""

import logging
import os
from typing import Any

from eprop_cli.config.config import Config
from eprop_cli.errors import UserError
from eprop_cli.versions import nest_version


def kernel_parameters(config: Config) -> dict[str, Any]:
    """Attributes of the NEST kernel; durations in ms."""
    return {
        "resolution": config.kernel.resolution,
        "local_num_threads": config.engine.local_num_threads,
        "eprop_reset_neurons_on_update": config.kernel.eprop_reset_neurons_on_update,
        "print_time": False,
        "spike_buffer_shrink_limit": 0.0,  # NEST logs each resizing: with buffers that shrink, 24 bytes in every step
        **config.model.kernel(),
    }


def start_kernel(config: Config) -> Any:
    """Reset the NEST kernel and set it up; returns the nest module."""
    nest = import_nest()
    nest.ResetKernel()
    nest.set(**kernel_parameters(config))
    return nest


def installed_nest() -> str:
    """The version of NEST, which is imported only if nothing else tells; raises UserError if that fails."""
    try:
        return str(nest_version(ask=True))
    except ImportError as error:
        raise _cannot(error) from error


def import_nest() -> Any:
    """The nest module, without its banner unless what goes on is to be told in detail."""
    verbose = logging.getLogger(__name__).isEnabledFor(logging.DEBUG)
    if not verbose:
        os.environ.setdefault("PYNEST_QUIET", "1")
    try:
        import nest
    except ImportError as error:
        raise _cannot(error) from error
    nest.verbosity = nest.VerbosityLevel.INFO if verbose else nest.VerbosityLevel.ERROR
    return nest


def _cannot(error: ImportError) -> UserError:
    return UserError(f"engine=nest: NEST cannot be imported ({error}); use engine=compiled")
