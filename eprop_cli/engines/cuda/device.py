"""What the kernels need of a CUDA device: arithmetic as the CPU's, memory that is asked for first, one clear error."""

import os
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numba import cuda
from numpy.typing import NDArray

from eprop_cli.errors import TrainingError

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"  # Numba's simulator: each thread of a block is Python's
WARP = 1 if SIMULATED else 32  # threads come in multiples of this; fewer where each costs milliseconds
SPARE = 0.1  # share of the free memory that is left to others, and to what the driver takes by itself

# most launches here are small, one after the other; Numba would say so of each
warnings.filterwarnings("ignore", message=".*Grid size .* low occupancy")
RESUME = "resume=DIR goes on from the last checkpoint, with engine=compiled too"

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]
Words = NDArray[np.uint32]


class DeviceError(TrainingError):
    """The device cannot do what is asked, or can do nothing more."""


def kernel(function: Callable[..., Any], **options: Any) -> Any:
    """A kernel without link-time optimization, which fuses multiplications and additions whatever NVVM is told."""
    # as a decorator with options, cuda.jit forgets lto (numba-cuda 0.30)
    return cuda.jit(function) if SIMULATED else cuda.jit(function, lto=False, **options)


def device_function(function: Callable[..., Any]) -> Any:
    """A function for kernels to call; it becomes part of them."""
    return cuda.jit(function, device=True) if SIMULATED else cuda.jit(function, device=True, forceinline=True)


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Kernels that are compiled meanwhile, at their first launch, round after each operation, as the CPU does.

    Numba has no option for it, only NVVM.
    """
    if SIMULATED:
        yield
        return
    from numba.cuda.cudadrv import nvvm

    compile_ir = nvvm.compile_ir
    nvvm.compile_ir = lambda ir, **options: compile_ir(ir, **options, fma=0)
    try:
        yield
    finally:
        nvvm.compile_ir = compile_ir


@contextmanager
def clear_errors() -> Iterator[None]:
    """Raise DeviceError in place of what Numba and the driver raise."""
    try:
        yield
    except (cuda.cudadrv.driver.CudaAPIError, cuda.cudadrv.error.CudaSupportError) as error:
        if "OUT_OF_MEMORY" in str(error):
            raise DeviceError(f"the device is out of memory, which another process may have taken; {RESUME}") from error
        raise DeviceError(f"the device is lost ({' '.join(str(error).split())}); {RESUME}") from error


@kernel
def _multiply_and_add(x: Floats, y: Floats, z: Floats, out: Floats) -> None:
    i = cuda.grid(1)
    if i < out.size:
        out[i] = x[i] * y[i] + z[i]


def check_arithmetic() -> None:
    """Raise DeviceError unless the device rounds products before it adds to them."""
    x, y, z = np.random.RandomState(0).standard_normal((3, 1 if SIMULATED else 1024))
    out = cuda.device_array(x.size, np.float64)
    with clear_errors(), exact_arithmetic():
        _multiply_and_add[1, x.size](*map(cuda.to_device, (x, y, z)), out)
        if not np.array_equal(out.copy_to_host(), x * y + z):
            raise DeviceError("numba-cuda fuses multiplications and additions here, so results would not be the CPU's")


def why_not() -> str:
    """Why there is no device to compute on; empty if there is one."""
    if SIMULATED:
        return ""
    try:
        cuda.current_context()
    except (cuda.cudadrv.driver.CudaAPIError, cuda.cudadrv.error.CudaSupportError) as error:
        return " ".join(str(error).split()).removeprefix("Error at driver init: ").rstrip(" :.")
    return ""


def name() -> str:
    """What the device is called."""
    if SIMULATED:
        return "simulator"
    found = cuda.get_current_device().name
    return found.decode() if isinstance(found, bytes) else str(found)


def free_memory() -> int:
    """Bytes that can be taken, at the time."""
    if SIMULATED:
        return 1 << 30
    with clear_errors():
        return int((1.0 - SPARE) * cuda.current_context().get_memory_info().free)


def empty(shape: tuple[int, ...] | int, dtype: Any) -> Any:
    """An array on the device; it has at least one element, which Numba needs."""
    with clear_errors():
        return cuda.device_array(tuple(max(n, 1) for n in np.atleast_1d(shape)), dtype)


def blocks(n: int, size: int) -> int:
    """How many blocks of some size cover n; at least one."""
    return max(1, -(-n // size))


@kernel
def _fill(value: float, array: Any) -> None:
    for i in range(cuda.grid(1), array.size, cuda.gridsize(1)):
        array[i] = value


def fill(array: Any, value: float, stream: Any) -> None:
    """Set a flat array on the device to a value."""
    threads = 4 * WARP
    _fill[min(blocks(array.size, threads), 1024), threads, stream](value, array)


def recorded(stream: Any, launches: Callable[[], None]) -> Callable[[], None]:
    """Record launches and copies on a stream as a graph; what is returned starts it, as fast as a single launch.

    Kernels must have been launched before, at which they are compiled; arrays must stay where they are.
    """
    if SIMULATED:
        return launches
    from cuda.bindings import driver

    handle = driver.CUstream(int(stream.handle))
    _result(driver.cuStreamBeginCapture(handle, driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED))
    launches()
    graph = _result(driver.cuStreamEndCapture(handle))
    executable = _result(driver.cuGraphInstantiate(graph, 0))
    _result(driver.cuGraphDestroy(graph))

    def start() -> None:
        _result(driver.cuGraphLaunch(executable, handle))

    weakref.finalize(start, driver.cuGraphExecDestroy, executable)
    return start


def _result(returned: tuple[Any, ...]) -> Any:
    """What a function of the driver returns besides its status."""
    status, *values = returned
    if int(status):
        raise DeviceError(f"the device is lost ({status.name}); {RESUME}")
    return values[0] if values else None
