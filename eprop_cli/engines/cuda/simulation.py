"""Batches on a GPU: what engine=compiled does in a batch and optimizers in a step, with everything kept on the device.

A batch is cut into pieces that fit into the device's memory. Gradients are added up in the batch's order, so they are
the same for pieces of any size. While one batch is computed, the spikes of the next can travel.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import cuda
from numpy.typing import NDArray

from eprop_cli.engines.compiled.neurons import ALPHA, SCALE, T_REF
from eprop_cli.engines.cuda import backward, forward, optimizer
from eprop_cli.engines.cuda.device import (
    RESUME,
    SIMULATED,
    WARP,
    DeviceError,
    Floats,
    blocks,
    clear_errors,
    empty,
    exact_arithmetic,
    fill,
    free_memory,
    recorded,
)
from eprop_cli.engines.cuda.inputs import Inputs
from eprop_cli.optimizers.base import Rates

THREADS = 4 * WARP  # of a block, where nothing else decides
SLOTS = 2  # batches that can be on their way
Arrays = dict[str, tuple[Any, Any]]  # shape and type by name


class Lists(NamedTuple):
    """Connectivity onto recurrent neurons by presynaptic neuron, where it is sparse.

    rows: (n_in + n_rec + 1,); the synapses of neuron i are number rows[i] to rows[i + 1].
    posts: their postsynaptic neurons, in ascending order for each presynaptic one.
    """

    rows: NDArray[np.int64]
    posts: NDArray[np.uint32]

    def parts(self, n_post: int, span: int) -> NDArray[np.int64]:
        """Where the synapses of each presynaptic neuron onto each span of postsynaptic ones begin, and the end."""
        n_pre, n_tiles = len(self.rows) - 1, blocks(n_post, span)
        tiles = np.repeat(np.arange(n_pre) * n_tiles, np.diff(self.rows)) + self.posts // span
        return np.append(0, np.cumsum(np.bincount(tiles, minlength=n_pre * n_tiles)))


@dataclass(frozen=True)
class Layout:
    """A network without its weights: parameters, as kernels.run takes them.

    neurons (N_PARAMETERS, n_rec), readouts (N_PARAMETERS,), surrogates (n_stretches, 3).
    synapses: None if all exist but autapses. order: of the gradient's sums, as compiled.batch.summation names it.
    """

    n_in: int
    n_out: int
    neurons: Floats
    surrogates: NDArray[np.int64]
    readouts: Floats
    softmax: bool
    synapses: Lists | None = None
    order: str = "apart"

    @property
    def n_rec(self) -> int:
        """Recurrent neurons."""
        return int(self.neurons.shape[1])

    @property
    def n_synapses(self) -> int:
        """Synapses onto recurrent neurons."""
        return (self.n_in + self.n_rec) * self.n_rec if self.synapses is None else len(self.synapses.posts)

    @property
    def n_in_synapses(self) -> int:
        """Those of inputs, which come first."""
        return self.n_in * self.n_rec if self.synapses is None else int(self.synapses.rows[self.n_in])


class Shape(NamedTuple):
    """Sequences of a batch, steps of a sequence, and steps of its learning window."""

    n_batch: int
    n_steps: int
    window: int


@dataclass(frozen=True)
class Readings:
    """What a batch gave, but for gradients and signal, which stay on the device until they are asked for.

    terms: (n_batch, window), cross-entropy in each step; 0 without softmax.
    means: (n_batch, n_out), signal averaged over the learning window.
    n_spikes: (n_batch, n_rec).
    """

    terms: Floats
    means: Floats
    n_spikes: NDArray[np.int32]


@dataclass(frozen=True)
class Step:
    """An optimizer's step of some weights.

    decay: learning rate times weight decay. clip: what gradients are multiplied by. factor: what the step is.
    """

    rates: Rates
    decay: float = 0.0
    w_min: float = -np.inf
    w_max: float = np.inf
    clip: float = 1.0
    factor: float = 1.0


class _Slot:
    """A batch's way to the device and back: memory that transfers can use while the processor does something else."""

    def __init__(self, arrays: Arrays) -> None:
        """Take memory. arrays: shape and type of each, by name; pre, the input spikes, is longer where needed."""
        self.device = {name: empty(*wanted) for name, wanted in arrays.items()}
        self.host = {name: _pinned(*wanted) for name, wanted in arrays.items()}
        self.copied, self.done = cuda.event(), cuda.event()

    def make_room(self, n: int) -> bool:
        """Have memory for that many input spikes; whether it is another array."""
        if len(self.device["pre"]) >= n:
            return False
        room = (n * 5 // 4,), np.uint32  # with a reserve
        _ask("a batch", {"pre": room, "times": room})
        self.device["pre"], self.host["pre"] = empty(*room), _pinned(*room)
        return True

    def send(self, name: str, values: NDArray[Any], stream: Any) -> None:
        """Copy values to the device, to the beginning of the array if it has one dimension."""
        if not len(values):
            return
        host, device = self.host[name], self.device[name]
        if len(host) > len(values):
            host, device = host[: len(values)], device[: len(values)]
        host[:] = values
        device.copy_to_device(host, stream=stream)

    def receive(self, name: str, stream: Any) -> None:
        """Copy to the host what the stream has made by then."""
        self.device[name].copy_to_host(self.host[name], stream=stream)


def _pinned(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    if SIMULATED:
        return np.empty(shape, dtype)
    with clear_errors():
        pinned: NDArray[Any] = cuda.pinned_array(shape, dtype)
        return pinned


def _ask(what: str, *groups: Arrays) -> tuple[int, int]:
    """Bytes that arrays of some shapes and types need, and bytes that are free; raises DeviceError if too few are."""
    need = sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for arrays in groups for shape, dtype in arrays.values())
    free = free_memory()
    if need > free:
        raise DeviceError(
            f"{what} needs {need / 1e9:.2f} GB of the device's memory, of which {free / 1e9:.2f} are free; {RESUME}"
        )
    return need, free


class Simulation:
    """A network and its weights on the device, for batches of one shape."""

    def __init__(
        self,
        network: Layout,
        shape: Shape,
        n_piece: int | None = None,
        resident: bool = True,
        truncating: bool = False,
    ) -> None:
        """Take the device's memory.

        n_piece: sequences that are computed together; None: as many as fit. resident: use the kernel that simulates
        whole sequences, where the network is small enough. truncating: whether inputs can be lost, see start().
        Raises DeviceError if the memory does not suffice.
        """
        self.network, self.shape = network, shape
        self._truncating = truncating
        self._block = forward.resident_shape(network.n_rec) if resident else None
        self._densified = network.synapses is None or self._block is not None
        self._computing, self._copying = cuda.stream(), cuda.stream()
        of_batch = [self._batch_arrays()] * SLOTS
        _ask("the network", self._network_arrays(), *of_batch)
        self._own = {name: empty(*wanted) for name, wanted in self._network_arrays().items()}
        self._upload_network()
        self._slots = [_Slot(arrays) for arrays in of_batch]
        self._n_started = 0
        self._n_piece = n_piece or self._largest_piece()
        self._piece = {name: empty(*wanted) for name, wanted in self._piece_arrays(self._n_piece).items()}
        self._upload_starts()
        self._times_of_inputs = empty(1, np.int32)
        self._count = 0  # what the factors on the device divide by
        self._graphs: dict[tuple[int, bool, bool], Callable[[], None] | None] = {}  # None: launched once
        self._views: dict[int, dict[str, Any]] = {}  # parts of the pieces' arrays, by number of sequences

    def set_weights(self, weights: Floats, weights_out: Floats, feedback: Floats) -> None:
        """Put weights on the device: of synapses onto recurrent neurons, flat or (n_pre, n_rec), and as kernels.run."""
        self._put("synapses", weights)
        self._put("synapses_out", weights_out)
        with clear_errors():
            self._own["feedback"].copy_to_device(np.ascontiguousarray(feedback))

    def weights(self) -> tuple[Floats, Floats]:
        """The weights onto recurrent neurons, flat, and onto readouts (n_rec, n_out)."""
        return self._fetch("synapses"), self._fetch("synapses_out").reshape(-1, self.network.n_out)

    def set_moments(self, moments: Mapping[str, Floats]) -> None:
        """Set Adam's moments: m, v, m_out, v_out, in the order of the weights."""
        for name, values in moments.items():
            self._put(name, values)

    def moments(self) -> dict[str, Floats]:
        """Adam's moments."""
        return {name: self._fetch(name) for name in ("m", "v", "m_out", "v_out")}

    def gradients(self) -> tuple[Floats, Floats]:
        """The last batch's gradients, as average() or the kernels left them, in the order of the weights."""
        return self._fetch("gradient"), self._fetch("gradient_out").reshape(-1, self.network.n_out)

    def signal(self) -> Floats:
        """The last batch's readout signal (n_batch, window, n_out)."""
        with clear_errors():
            self._computing.synchronize()
            signal: Floats = self._own["signal"].copy_to_host()
            return signal

    def start(
        self,
        inputs: Inputs,
        targets: NDArray[Any],
        lost: NDArray[np.bool_] | None = None,
        learning: bool = True,
    ) -> int:
        """Begin to compute a batch, whose number is returned; sums of gradients and more are there later.

        targets: int (n_batch,), the readout that should win, or float64 (n_batch, window, n_out).
        lost: (n_batch, n_in), inputs whose gradient lacks the term of the last learning signal.
        """
        if inputs.filler != self.network.n_in + self.network.n_rec:
            raise ValueError(f"inputs are listed for {inputs.filler} neurons, which the network does not have")
        slot = self._slots[self._n_started % len(self._slots)]
        with clear_errors(), exact_arithmetic():
            slot.done.synchronize()
            self._send(slot, inputs, targets, lost)
            slot.copied.wait(self._computing)
            self._run(slot, learning, lost is not None)
            for name in ("terms", "means", "n_spikes"):
                slot.receive(name, self._computing)
            slot.done.record(self._computing)
        self._n_started += 1
        return self._n_started - 1

    def finish(self, number: int) -> Readings:
        """Wait for a batch that start() began; it must be one of the last two."""
        slot = self._slots[number % len(self._slots)]
        with clear_errors():
            slot.done.synchronize()
        return Readings(*(slot.host[name].copy() for name in ("terms", "means", "n_spikes")))

    def average(self, count: int) -> None:
        """Divide the sums of gradients by count, multiply them by the factor zeta, and leave autapses out."""
        network = self.network
        if count != self._count:
            self._own["factors"].copy_to_device(network.neurons[SCALE] / count)
            self._own["factors_out"].copy_to_device(np.full(network.n_out, network.readouts[SCALE] / count))
            self._count = count
        own, sparse = self._own, network.synapses is not None
        fill(own["finite"], 1, self._computing)
        onto_rec, onto_out = (own["factors"], own["gradient"]), (own["factors_out"], own["gradient_out"])
        self._for_each(optimizer.average, network.n_in, own["posts"], sparse, *onto_rec, own["finite"])
        self._for_each(optimizer.average, network.n_rec, own["posts"], False, *onto_out, own["finite"])

    def optimize(self, step: Step, step_rec: Step | None = None, step_out: Step | None = None) -> None:
        """Take a step with the gradients as average() left them.

        step: of all weights, but for those that have steps of their own: of recurrent neurons' synapses onto each other
        and onto readouts.
        """
        fill(self._own["finite"], 1, self._computing)
        n, n_in = self.network.n_synapses, self.network.n_in_synapses
        for one, suffix, begin, end in (
            (step, "", 0, n_in),
            (step_rec or step, "", n_in, n),
            (step_out or step, "_out", 0, self.network.n_rec * self.network.n_out),
        ):
            if begin < end:
                names = [f"{name}{suffix}" for name in ("gradient", "m", "v", "synapses")]
                self._take(one, *(self._own[name][begin:end] for name in names))
        if self.network.synapses is None:
            n_rec = self.network.n_rec
            grid = blocks(n_rec, THREADS), THREADS, self._computing
            optimizer.remove_autapses[grid](self.network.n_in, n_rec, self._own["synapses"])

    def _take(self, step: Step, gradient: Any, m: Any, v: Any, weights: Any) -> None:
        """Take a step of some weights."""
        rates = step.rates
        common = step.decay, step.factor, step.w_min, step.w_max, step.clip, gradient
        if rates.moments is None:
            self._for_each(optimizer.gradient_descent, rates.rate, *common, weights, self._own["finite"])
        else:
            moments = rates.moments
            self._for_each(optimizer.adam, rates.rate, *moments, *common, m, v, weights, self._own["finite"])

    def finite(self) -> bool:
        """Whether all weights were finite after the last step, or all gradients if average() was called since."""
        return bool(self._fetch("finite")[0])

    def _put(self, name: str, values: Floats) -> None:
        """Set values of synapses, of which there may be none."""
        if values.size:
            with clear_errors():
                self._own[name].copy_to_device(np.ascontiguousarray(values).reshape(-1))

    def _network_arrays(self) -> Arrays:
        """Shape and type of what does not depend on the size of pieces, by name."""
        network, (n_batch, _, window) = self.network, self.shape
        n_rec, n_out, n_pre, n_synapses = network.n_rec, network.n_out, network.n_in + network.n_rec, network.n_synapses
        floats = {
            "neurons": network.neurons.shape,
            "readouts": network.readouts.shape,
            "feedback": (n_out, n_rec),
            "weights": ((n_pre + 1) * n_rec if self._densified else 1,),
            "weights_out": ((n_rec + 1) * n_out,),
            "factors": (n_rec,),
            "factors_out": (n_out,),
            "signal": (n_batch, window, n_out),
        }
        floats |= dict.fromkeys(("synapses", "gradient", "m", "v"), (n_synapses,))
        floats |= dict.fromkeys(("synapses_out", "gradient_out", "m_out", "v_out"), (n_rec * n_out,))
        arrays: Arrays = {name: (shape, np.float64) for name, shape in floats.items()}
        n_rows, n_posts = (1, 1) if network.synapses is None else (n_pre + 1, n_synapses)
        n_parts = 1 if self._densified else n_pre * blocks(n_rec, forward.SPAN) + 1
        arrays |= {"rows": ((n_rows,), np.int64), "parts": ((n_parts,), np.int64)}
        arrays |= {"posts": ((n_posts,), np.uint32), "finite": ((1,), np.int32), "functions": ((n_rec,), np.int32)}
        return arrays

    def _batch_arrays(self) -> Arrays:
        """Shape and type of what travels with each batch, by name."""
        (n_batch, n_steps, window), network = self.shape, self.network
        return {
            "first": ((n_batch, n_steps + 1), np.uint32),
            "pre": ((1,), np.uint32),
            "classes": ((n_batch,), np.int32),
            "targets": ((n_batch, window, network.n_out), np.float64),
            "lost": ((n_batch, network.n_in), np.bool_),
            "terms": ((n_batch, window), np.float64),
            "means": ((n_batch, network.n_out), np.float64),
            "n_spikes": ((n_batch, network.n_rec), np.int32),
        }

    def _piece_arrays(self, n_piece: int) -> Arrays:
        """Shape and type of what n_piece sequences need while they are computed, by name."""
        (_, n_steps, window), n_rec, n_out = self.shape, self.network.n_rec, self.network.n_out
        # a filler of the last spike's step reads the last
        padded = blocks(n_steps + 2, backward.AHEAD) * backward.AHEAD
        n_times = self._n_times()
        per_sequence = {
            "distances": ((padded * n_rec,), np.float64),
            "truncated": ((padded * n_rec if self._truncating else 1,), np.float64),
            "words": ((n_steps * blocks(n_rec, 32),), np.uint32),
            "times": ((n_rec * n_times,), np.int32),
            "marks": ((self.network.n_in * blocks(n_steps, 32),), np.uint32),
        }
        arrays: Arrays = {name: ((n_piece * n,), dtype) for name, ((n,), dtype) in per_sequence.items()}
        if self._block is None:
            arrays |= {"state": ((n_piece, 2, n_rec), np.float64), "refractory": ((n_piece, n_rec), np.int32)}
            arrays |= {"currents": ((n_piece, n_rec), np.float64)}
        return arrays | {
            "potential": ((n_piece, n_steps, n_out), np.float64),
            "error": ((n_piece, window, n_out), np.float64),
            "trace": ((n_piece, n_steps, n_out), np.float64),
            "starts": ((n_piece, n_rec), np.uint64),
            "starts_in": ((n_piece, self.network.n_in), np.uint64),
            "counts_in": ((n_piece, self.network.n_in), np.int32),
        }

    def _n_times(self) -> int:
        """How many spikes a neuron can emit in a sequence."""
        return blocks(self.shape.n_steps, max(int(self.network.neurons[T_REF].min()), 1))

    def _largest_piece(self) -> int:
        """As many sequences as fit into the memory that is left."""
        need, free = _ask("a sequence", self._piece_arrays(1))
        return int(min(self.shape.n_batch, free // need))

    def _upload_network(self) -> None:
        network, own = self.network, self._own
        own["neurons"].copy_to_device(np.ascontiguousarray(network.neurons))
        own["readouts"].copy_to_device(np.ascontiguousarray(network.readouts))
        functions = np.zeros(network.n_rec, np.int32)
        for function, start, stop in network.surrogates:
            functions[start:stop] = function
        own["functions"].copy_to_device(functions)
        if network.synapses is not None:
            own["rows"].copy_to_device(network.synapses.rows)
            own["posts"].copy_to_device(network.synapses.posts)
            if not self._densified:
                own["parts"].copy_to_device(network.synapses.parts(network.n_rec, forward.SPAN))
        for name in ("weights", "weights_out", "m", "v", "m_out", "v_out"):
            fill(own[name], 0.0, self._computing)

    def _upload_starts(self) -> None:
        """Where the times of each recurrent neuron begin."""
        starts = np.arange(self._n_piece * self.network.n_rec, dtype=np.uint64) * np.uint64(self._n_times())
        self._piece["starts"].copy_to_device(starts.reshape(self._n_piece, -1))

    def _send(self, slot: _Slot, inputs: Inputs, targets: NDArray[Any], lost: NDArray[np.bool_] | None) -> None:
        """Begin to copy a batch to the device."""
        self._make_room(slot, len(inputs.pre))
        classes = targets if targets.ndim == 1 else np.full(self.shape.n_batch, -1)
        slot.send("first", inputs.first, self._copying)
        slot.send("pre", inputs.pre, self._copying)
        slot.send("classes", classes, self._copying)
        if targets.ndim > 1:
            slot.send("targets", targets, self._copying)
        if lost is not None:
            slot.send("lost", lost, self._copying)
        slot.copied.record(self._copying)

    def _make_room(self, slot: _Slot, n: int) -> None:
        """Have memory for that many input spikes, and their times."""
        resized = slot.make_room(n)
        if len(self._times_of_inputs) < len(slot.device["pre"]):
            self._times_of_inputs, resized = empty(len(slot.device["pre"]), np.int32), True
        if resized:
            self._computing.synchronize()
            self._graphs.clear()

    def _run(self, slot: _Slot, learning: bool, truncate: bool) -> None:
        """Start all launches of a batch: one by one at first, which compiles the kernels, and later as a graph."""
        key = self._slots.index(slot), learning, truncate

        def launches() -> None:
            self._launch(slot, learning, truncate)

        if key not in self._graphs:
            launches()
            self._graphs[key] = None
            return
        start = self._graphs[key] or recorded(self._computing, launches)
        self._graphs[key] = start
        start()

    def _launch(self, slot: _Slot, learning: bool, truncate: bool) -> None:
        self._densify()
        for name in ("gradient", "gradient_out") if learning else ():
            fill(self._own[name], 0.0, self._computing)
        for sequence in range(0, self.shape.n_batch, self._n_piece):
            n = min(self._n_piece, self.shape.n_batch - sequence)
            self._compute(slot, sequence, n, truncate, learning)

    def _densify(self) -> None:
        """Bring the weights to where spikes look for them."""
        own, network = self._own, self.network
        if network.synapses is None:
            own["weights"][: network.n_synapses].copy_to_device(own["synapses"], stream=self._computing)
        elif self._densified:
            grid = len(network.synapses.rows) - 1, THREADS, self._computing
            optimizer.densify[grid](own["rows"], own["posts"], network.n_rec, own["synapses"], own["weights"])
        n = network.n_rec * network.n_out
        own["weights_out"][:n].copy_to_device(own["synapses_out"], stream=self._computing)

    def _compute(self, slot: _Slot, sequence: int, n: int, truncate: bool, learning: bool) -> None:
        """Launch everything for n sequences from number sequence on."""
        piece = self._view(n) | {name: slot.device[name][sequence : sequence + n] for name in ("lost", "n_spikes")}
        self._forward(slot, piece, sequence, n, learning)
        self._read_out(slot, piece, sequence, n)
        if learning:
            self._backward(piece, n, truncate)
            self._gather(slot, piece, sequence, n, truncate)

    def _view(self, n: int) -> dict[str, Any]:
        """The arrays of a piece, as long as n sequences need them."""
        if n not in self._views:
            self._views[n] = {name: array[: len(array) // self._n_piece * n] for name, array in self._piece.items()}
        return self._views[n]

    def _forward(self, slot: _Slot, piece: dict[str, Any], sequence: int, n: int, learning: bool) -> None:
        (_, n_steps, _), own = self.shape, self._own
        spikes = slot.device["first"].reshape(slot.device["first"].size), slot.device["pre"]
        where = learning, sequence, n_steps, self.network.n_in, own["neurons"], own["weights"], *spikes
        filled = piece["distances"], piece["words"], piece["times"], piece["n_spikes"]
        if self._block is not None:
            forward.resident(*self._block)[n, self._block[0], self._computing](*where, *filled)
            return
        n_rec, sparse = self.network.n_rec, not self._densified
        step = forward.step[(blocks(n_rec, forward.TILE), n), forward.TILE, self._computing]
        scatter = forward.scatter[(blocks(n_rec, forward.SPAN), n), forward.SCATTERERS, self._computing]
        synapses = own["parts"], own["posts"], own["synapses"], piece["words"], piece["currents"]
        for t in range(n_steps):
            if sparse:
                scatter(t, sequence, n_steps, self.network.n_in, *spikes, *synapses)
            step(t, sparse, *where, piece["currents"], piece["state"], piece["refractory"], *filled)

    def _read_out(self, slot: _Slot, piece: dict[str, Any], sequence: int, n: int) -> None:
        own, to = self._own, slot.device
        grid = (self.shape.n_steps, n), backward.READERS, self._computing
        read = self.shape.n_steps, own["weights_out"], self.network.n_out, piece["words"], piece["potential"]
        backward.read_out_spikes[grid](*read)
        made = piece["potential"], own["signal"], piece["error"], piece["trace"], to["terms"], to["means"]
        asked = sequence, self.network.softmax, own["readouts"], to["classes"], to["targets"]
        backward.read_out[n, THREADS, self._computing](*asked, *made)

    def _backward(self, piece: dict[str, Any], n: int, truncate: bool) -> None:
        own, n_steps = self._own, self.shape.n_steps
        grid = (blocks(self.network.n_rec, THREADS), n), THREADS, self._computing
        kappa = float(self.network.readouts[ALPHA])
        network = own["functions"], own["neurons"], own["feedback"], kappa
        given = piece["error"], piece["n_spikes"], piece["distances"]
        sweep = backward.backward(min(self.network.n_out, backward.MAX_KEPT))[grid]
        if truncate:
            sweep(n_steps - 1, n_steps, *network, *given, piece["truncated"])
        sweep(n_steps, n_steps, *network, *given, piece["distances"])

    def _gather(self, slot: _Slot, piece: dict[str, Any], sequence: int, n: int, truncate: bool) -> None:
        network, own = self.network, self._own
        n_in, n_rec, n_out, sparse = network.n_in, network.n_rec, network.n_out, network.synapses is not None
        lists = piece["starts_in"], piece["counts_in"], self._times_of_inputs
        spikes = slot.device["first"].reshape(slot.device["first"].size), slot.device["pre"]
        n_steps, stream = self.shape.n_steps, self._computing
        fill(piece["marks"], 0, stream)
        where = sequence, n_steps, n_in, *spikes
        backward.mark_inputs[(blocks(n_steps, THREADS), n), THREADS, stream](*where, piece["marks"])
        listed = sequence, n_steps, spikes[0], piece["marks"], *lists
        backward.list_inputs[n, backward.LISTERS, stream](*listed)
        emitted = piece["starts"], piece["n_spikes"], piece["times"]
        onto_rec = sparse, own["rows"], own["posts"], n_rec, *lists, piece["distances"]
        from_rec = sparse, own["rows"], own["posts"], n_rec, *emitted, piece["distances"]
        onto_out = False, own["rows"], own["posts"], n_out, *emitted, piece["trace"].reshape(piece["trace"].size)
        lost = piece["truncated"], piece["lost"]
        longest = n_rec if network.synapses is None else int(np.diff(network.synapses.rows).max())
        streamed, whole = network.order == "streamed", network.order == "apart"
        self._sum(streamed, True, (n_in, longest), 0, 0, *onto_rec, truncate, *lost, own["gradient"])
        self._sum(streamed, True, (n_rec, longest), 1, n_in, *from_rec, False, *lost, own["gradient"])
        self._sum(not whole, False, (n_rec, n_out), 0, 0, *onto_out, False, *lost, own["gradient_out"])

    def _sum(self, streamed: bool, forwards: bool, size: tuple[int, int], *arguments: Any) -> None:
        """Sum gradients of a number of presynaptic neurons, and at most so many synapses of each.

        streamed: in one sum over all sequences; and forwards in time, or backwards.
        """
        n_pre, longest = size
        if streamed:
            threads = 2 * WARP
            backward.stream[(n_pre, blocks(longest, threads)), threads, self._computing](forwards, *arguments)
        else:
            grid = (n_pre, blocks(longest, backward.COLUMNS)), (backward.COLUMNS, backward.GROUP), self._computing
            backward.gather[grid](self.network.order == "tiled", self.shape.n_steps, *arguments)

    def _for_each(self, kernel: Any, *arguments: Any) -> None:
        """Launch a kernel that goes through all synapses."""
        threads = 2 * WARP if SIMULATED else 256
        n = max(argument.size for argument in arguments if hasattr(argument, "size"))
        with clear_errors(), exact_arithmetic():
            kernel[min(blocks(n, threads), 2 if SIMULATED else 4096), threads, self._computing](*arguments)

    def _fetch(self, name: str) -> NDArray[Any]:
        with clear_errors():
            self._computing.synchronize()
            values: NDArray[Any] = self._own[name].copy_to_host()
            return values
