"""Numba's CUDA simulator, for tests of kernels without a device; it takes the place of numba.cuda in a process."""

import os
import subprocess
import sys
import threading

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
    from numba.cuda.simulator import kernel, kernelapi

    class _Thread(kernel.BlockThread):
        """A thread that tells its block when it waits for the others, and when it ends."""

        def run(self):
            super().run()
            self._manager.told.release()

        def syncthreads(self):
            if self.abort:
                raise RuntimeError("another thread has failed")
            self.syncthreads_blocked = True
            self._manager.told.release()
            self.syncthreads_event.wait()
            self.syncthreads_event.clear()
            if self.abort:
                raise RuntimeError("another thread has failed")

    class _Block(kernel.BlockManager):
        """A block that waits until its threads tell; Numba's own asks all the time, which keeps them from running."""

        def run(self, grid_point, *arguments):
            self.told = threading.Semaphore(0)
            points = np.ndindex(*self._block_dim)
            threads = [_Thread(lambda: self._f(*arguments), self, grid_point, point, self._debug) for point in points]
            for thread in threads:
                thread.start()
            running = threads
            while running:
                for _ in running:
                    self.told.acquire()
                failed = next((thread for thread in running if thread.exception), None)
                running = [thread for thread in running if thread.syncthreads_blocked]
                for thread in running:
                    thread.abort = failed is not None
                    thread.syncthreads_blocked = False
                    thread.syncthreads_event.set()
                if failed is not None:
                    raise failed.exception[0].with_traceback(failed.exception[1])

    kernel.BlockManager = _Block
    kernelapi.FakeCUDAShared.array = _shared_array
