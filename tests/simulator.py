"""Numba's CUDA simulator, for tests of kernels without a device; it takes the place of numba.cuda in a process."""

import os
import subprocess
import sys

import numpy as np
import pytest

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"


def run_in_the_simulator(path):
    """Run a file of tests again, in a process that has the simulator for a device."""
    if SIMULATED:
        pytest.skip("this is the simulator")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", path]
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout


def _shared_array(self, shape, dtype, alignment=None):
    """An array that the threads of a block share, known by the line that asks for it.

    Numba's own gives two threads that ask at once an array each, and reads the line's source, which takes long.
    """
    frame = sys._getframe(1)
    return self._allocations.setdefault((frame.f_code, frame.f_lineno), np.empty(shape, dtype))


if SIMULATED:
    from numba.cuda.simulator import kernelapi

    kernelapi.FakeCUDAShared.array = _shared_array
    # What starts the threads of a block waits for them in a loop that keeps them from running.
    sys.setswitchinterval(1e-5)
