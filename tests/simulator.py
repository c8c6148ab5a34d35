"""Numba's CUDA simulator, for tests of kernels without a device; it takes the place of numba.cuda in a process."""

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"


def run_in_the_simulator(*paths):
    """Run files of tests again, in a process that has the simulator for a device."""
    if SIMULATED:
        pytest.skip("this is the simulator")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *paths]
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
    from greenlet import getcurrent, greenlet
    from numba.cuda.simulator import kernel, kernelapi

    class _Thread(greenlet):
        """A thread of a block, which goes on until it waits for the others. Numba's are the system's, and slower."""

        syncthreads_count = kernel.BlockThread.syncthreads_count

        def __init__(self, run, block, block_index, thread_index):
            super().__init__(run)
            self._manager = block
            self.blockIdx, self.threadIdx = kernel.Dim3(*block_index), kernel.Dim3(*thread_index)

        def syncthreads(self):
            self.parent.switch()

    class _Block(kernel.BlockManager):
        """A block, whose threads go on in turn, each time the other way round: a wait that is missing shows.

        What one raises is raised here.
        """

        def run(self, grid_point, *arguments):
            points = np.ndindex(*self._block_dim)
            running = [_Thread(lambda: self._f(*arguments), self, grid_point, point) for point in points]
            while running:
                for thread in running:
                    thread.switch()
                running = [thread for thread in reversed(running) if not thread.dead]

    kernel.BlockManager = _Block
    kernelapi.FakeCUDAShared.array = _shared_array
    kernelapi.threading = SimpleNamespace(current_thread=getcurrent)
