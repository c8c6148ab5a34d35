"""Asking for memory ahead of its use: rows of synapses lie far apart, and a core does not guess the next one."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from eprop_cli.engines.compiled.compiling import compiled
from eprop_cli.engines.compiled.neurons import Floats, Ints
from eprop_cli.engines.compiled.synapses import Indices

MOST = 256  # synapses of a row; of longer ones the core guesses what follows


@intrinsic  # type: ignore[untyped-decorator]
def _ask_for(context: Any, array: Any, index: Any) -> Any:
    """Begin to load an array's value into the cache; changes nothing."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.bitcast(builder.gep(values.data, [arguments[1]]), ir.IntType(8).as_pointer())
        i32 = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [place.type, i32, i32, i32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [place, i32(0), i32(3), i32(1)])  # to read, keep near, data
        return context.get_dummy_value()

    return types.void(array, index), generate


@compiled
def ask_for_row(e: int, end: int, pre: Indices, row: Ints, post: Indices, values: Floats) -> None:
    """Ask for the synapses of an arriving spike's neuron pre[e], if e is below end and they are listed."""
    if e < end:
        begin = np.uint64(row[pre[e]])
        stop = min(np.uint64(row[pre[e] + 1]), begin + np.uint64(MOST))
        for s in range(begin, stop, np.uint64(8)):  # lines of 64 bytes
            _ask_for(values, s)
        for s in range(begin, stop, np.uint64(16)):
            _ask_for(post, s)
