"""How Numba compiles the kernels: when they are first called, and kept on disk.

Arithmetic is C++'s: division by zero gives inf, and without fastmath sums round as NEST's do.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """A function that is called as it stands."""
    return _compile(function)


def inlined(function: Function) -> Function:
    """A function that becomes part of its callers: for what is called per spike, as passing arrays takes a while."""
    return _compile(function, forceinline=True)


def _compile(function: Function, **options: Any) -> Function:
    options |= {"nogil": True, "error_model": "numpy"}
    try:
        return cast(Function, numba.njit(cache=True, **options)(function))
    except RuntimeError:  # there is nowhere to keep it, as in a read-only installation without a home directory
        return cast(Function, numba.njit(**options)(function))
