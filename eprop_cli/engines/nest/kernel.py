"""The NEST kernel: reset and set up. nest is imported here, so that all else works without it."""

import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from eprop_cli.config.config import Config
from eprop_cli.errors import UserError
from eprop_cli.versions import nest_version

OPTIONAL = ("pandas", "matplotlib")  # that NEST imports where it finds them, which takes more than half of its import

_only_simulates = False


def only_simulate() -> None:
    """Have NEST do without its tables and plots in this process, and be there so much sooner."""
    global _only_simulates
    _only_simulates = True


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
        with _not_found(OPTIONAL if _only_simulates else ()):
            import nest
    except ImportError as error:
        raise _cannot(error) from error
    nest.verbosity = nest.VerbosityLevel.INFO if verbose else nest.VerbosityLevel.ERROR
    return nest


@contextmanager
def _not_found(modules: Iterable[str]) -> Iterator[None]:
    """Have modules not be found that are not imported yet."""
    hidden: dict[str, Any] = {name: None for name in modules if name not in sys.modules}
    sys.modules.update(hidden)
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def _cannot(error: ImportError) -> UserError:
    return UserError(f"engine=nest: NEST cannot be imported ({error}); use engine=compiled")
