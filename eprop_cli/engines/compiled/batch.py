"""Losses and gradients of a batch, with threads that share out first its sequences and then the synapses.

Small dense networks are simulated by the dense kernels, some sequences at a time, whose gradients are then added up.
In others threads simulate sequences, one or a few each, forward and backward; then each adds up the gradient of its own
part of the synapses, sequence by sequence in the batch's order. So there is one gradient whatever the batch, and it is
the same to the bit for any number of threads. They are Python's threads: kernels release the interpreter's lock.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from eprop_cli.engines.compiled import backward, events
from eprop_cli.engines.compiled.events import InputSpikes
from eprop_cli.engines.compiled.forward import count, forward
from eprop_cli.engines.compiled.kernels import _signal, run
from eprop_cli.engines.compiled.neurons import (
    ALPHA,
    C_REG,
    E_L,
    F_TARGET,
    SCALE,
    T_REF,
    Bools,
    Counts,
    Floats,
    Ints,
)
from eprop_cli.engines.compiled.synapses import Indices, Synapses, scale_by_target

APART_BYTES = 2**20  # of a dense gradient, up to which each sequence has its own
APART_SEQUENCES = 16  # for each thread at a time then
SHARE_SEQUENCES = 2  # that one of several threads takes at once
TOGETHER_BYTES = 2**23  # of surrogate gradients; up to it a thread simulates several sequences before they are summed
SHARED_VALUES = 2**16  # from which on threads share work on flat values
TILED_SYNAPSES = 64  # of a presynaptic neuron in a tile, from which on sums by tiles are the faster ones


class Circuit(NamedTuple):
    """What a batch is simulated with.

    neurons, surrogates, readouts, softmax: as in kernels.run.
    rec: synapses of n_in + n_rec presynaptic neurons, inputs first, onto recurrent ones.
    out: from recurrent neurons to readouts. feedback: from readouts to recurrent neurons.
    """

    neurons: Floats
    surrogates: Ints
    readouts: Floats
    softmax: bool
    rec: Synapses
    out: Synapses
    feedback: Synapses


class Simulated(NamedTuple):
    """What comes of a batch; the first five as in kernels.run, but fired is of the watched neurons only, and signal
    lies in memory as outcomes have it, (n_out, n_batch, learning_window), and potential may be empty.

    gradient, gradient_out: sums over the batch without the factor zeta, in the order of rec.weights and out.weights;
    empty where nothing is to be learned.
    """

    potential: Floats
    signal: Floats
    n_spikes: Ints
    fired: Bools
    dynamics: Floats
    gradient: Floats
    gradient_out: Floats


class Spikes(NamedTuple):
    """Arriving spikes of a sequence by step (first, pre: see forward) and by neuron (start, steps: sort_by_neuron)."""

    first: Ints
    pre: Indices
    start: Ints
    steps: Indices


class Learned(NamedTuple):
    """What a sequence adds to the gradient.

    error: (learning_window, n_out).
    whole: (n_pre,), False for inputs whose gradient lacks the term of the last error.
    mu, truncated: adjoints (n_steps, n_rec), and those without that term, empty if no input lost it.
    """

    spikes: Spikes
    error: Floats
    whole: Bools
    mu: Floats
    truncated: Floats

    def adjoints(self) -> Iterator[tuple[Floats, Bools]]:
        """The adjoints, and for which presynaptic neurons they are meant."""
        yield self.mu, self.whole
        if len(self.truncated):
            yield self.truncated, ~self.whole


def summation(network: Circuit) -> str:
    """Fastest order in which to sum a network's gradient.

    tiled, streamed: see backward. apart: of each sequence alone, as in kernels.run.
    """
    rec, n_rec = network.rec, network.neurons.shape[1]
    if rec.dense:
        small = rec.weights.nbytes <= APART_BYTES
        return "apart" if small and network.out.dense and network.feedback.dense else "tiled"
    tiles = rec.n_pre * -(-n_rec // backward.TILE)
    return "tiled" if len(rec.weights) >= TILED_SYNAPSES * tiles else "streamed"


class Simulator:
    """Threads, and the memory they work in, which is kept from batch to batch."""

    def __init__(self, n_threads: int) -> None:
        self._n_threads = n_threads
        self._threads = ThreadPoolExecutor(n_threads)
        self._closing = False
        self._rooms: dict[str, Floats] = {}

    def close(self) -> None:
        """Stop the threads as soon as they have finished a sequence, free the memory."""
        self._closing = True
        self._threads.shutdown()
        self._rooms.clear()

    def run(
        self,
        network: Circuit,
        inputs: InputSpikes | Bools | Counts,
        targets: Floats,
        *,
        learn: bool = True,
        lost: Bools | None = None,
        recorded: Ints | None = None,
        watched: Ints | None = None,
        traced: bool = True,
        order: str | None = None,
    ) -> Simulated:
        """Simulate a batch forward, and backward if it is to learn.

        inputs: InputSpikes or a raster (n_batch, n_steps, n_in), bool or uint8, how many spikes.
        targets: (n_batch, learning_window, n_out), in memory in any order.
        lost: (n_batch, n_in), inputs whose gradient lacks the term of the last learning signal.
        recorded: recurrent neurons whose dynamics are kept. watched: those of which it is told when they fired.
        traced: whether the readouts' potentials are kept.
        order: of summation, if not the fastest one.
        """
        if not isinstance(inputs, InputSpikes):  # kernels would be compiled anew for arrays of another kind
            inputs = np.require(inputs, requirements=["C", "W"]).view(np.uint8)
        n_in = inputs.n_in if isinstance(inputs, InputSpikes) else inputs.shape[2]
        n_steps = inputs.first.shape[1] - 1 if isinstance(inputs, InputSpikes) else inputs.shape[1]
        n_batch, n_rec, n_out = len(targets), network.neurons.shape[1], targets.shape[2]
        recorded = np.empty(0, dtype=np.int64) if recorded is None else recorded
        watched = np.empty(0, dtype=np.int64) if watched is None else watched
        lost = np.zeros((n_batch, n_in), dtype=bool) if lost is None else lost
        simulated = Simulated(
            potential=np.empty((n_batch if traced else 0, n_steps, n_out)),
            signal=np.empty((n_out, *targets.shape[:2])).transpose(1, 2, 0),
            n_spikes=np.empty((n_batch, n_rec), dtype=np.int64),
            fired=np.zeros((n_batch, n_steps, len(watched)), dtype=bool),
            dynamics=np.empty((n_batch, n_steps, len(recorded), 3)),
            gradient=np.zeros(len(network.rec.weights) if learn else 0),
            gradient_out=np.zeros(len(network.out.weights) if learn else 0),
        )
        order = order or summation(network)
        if order == "apart":
            spikes = events.raster(inputs) if isinstance(inputs, InputSpikes) else inputs
            self._run_apart(network, spikes, targets, lost, recorded, watched, simulated, learn)
        else:
            self._run_together(network, inputs, targets, lost, recorded, watched, simulated, learn, order)
        return simulated

    def _run_apart(
        self, network: Circuit, spikes: Counts, targets: Floats, lost: Bools, recorded: Ints, watched: Ints,
        simulated: Simulated, learn: bool,
    ) -> None:  # fmt: skip
        """Fill simulated by the dense kernels."""
        n_batch, n_threads = len(targets), self._n_threads
        at_once = min(n_batch, n_threads * APART_SEQUENCES)
        n_steps, n_rec = (spikes.shape[1] if len(watched) else 0), network.neurons.shape[1]
        traced = len(simulated.potential) > 0
        potentials = simulated.potential if traced else np.empty((at_once, spikes.shape[1], targets.shape[2]))
        matrices = [part.weights.reshape(part.n_pre, -1) for part in network[4:]]
        room = [np.empty((at_once if learn else 0, *matrix.shape)) for matrix in matrices[:2]]
        for begin in range(0, n_batch, at_once):
            n = min(at_once, n_batch - begin)
            part = slice(begin, begin + n)
            own_targets = np.ascontiguousarray(targets[part], dtype=np.float64)
            signal = np.empty(own_targets.shape)
            fired = np.zeros((n, n_steps, n_rec), dtype=bool)
            arguments = (
                *network[:4], *matrices, spikes[part], own_targets, lost[part], recorded,
                potentials[part if traced else slice(n)], signal, simulated.n_spikes[part],
                fired, simulated.dynamics[part], *room,
            )  # fmt: skip
            few = n if n_threads == 1 else SHARE_SEQUENCES  # threads that other work holds up have fewer such shares
            shares = [(np.arange(share, min(share + few, n)), *arguments) for share in range(0, n, few)]
            self._map(lambda share: run(*share), shares)
            simulated.signal[part] = signal
            if len(watched):
                simulated.fired[part] = fired[:, :, watched]
            for total, gradients in zip(simulated[5:], room, strict=True):
                for gradient in gradients[:n]:
                    np.add(total, gradient.reshape(-1), out=total)

    def _run_together(
        self, network: Circuit, inputs: InputSpikes | Counts, targets: Floats, lost: Bools, recorded: Ints,
        watched: Ints, simulated: Simulated, learn: bool, order: str,
    ) -> None:  # fmt: skip
        """Fill simulated by the sparse kernels, some sequences at a time."""
        n_batch, n_steps, n_rec = len(targets), simulated.dynamics.shape[1], network.neurons.shape[1]
        each = max(1, TOGETHER_BYTES // (8 * n_steps * n_rec))  # so that threads seldom wait for each other
        at_once = min(self._n_threads * each, n_batch)

        traced = len(simulated.potential) > 0

        def sequence(b: int) -> Learned | None:
            slot = b % at_once
            psi = self._room(f"psi {slot}", n_steps if learn else 1, n_rec)
            potential = simulated.potential[b] if traced else self._room(f"potential {slot}", n_steps, targets.shape[2])
            first, pre, signal = _forward(network, inputs, b, recorded, watched, psi, potential, simulated)
            error = signal - np.ascontiguousarray(targets[b], dtype=np.float64)
            n_spikes = simulated.n_spikes[b]
            return _backward(network, order, first, pre, error, n_spikes, lost[b], psi) if learn else None

        for begin in range(0, n_batch, at_once):
            learned = self._map(sequence, range(begin, min(begin + at_once, n_batch)))
            if learn:
                self._sum(network, lost.shape[1], learned, order, simulated)

    def average(self, network: Circuit, simulated: Simulated, count: int) -> None:
        """Turn the sums of gradients in simulated into means, in place: times zeta, divided by count."""
        rec, factor = network.rec, network.neurons[SCALE] / count
        if rec.dense:
            by_target = simulated.gradient.reshape(rec.n_pre, -1)
            np.multiply(by_target, factor, out=by_target)
        else:
            self.share(
                lambda begin, end: scale_by_target(begin, end, rec.post, factor, simulated.gradient),
                len(rec.weights),
            )
        np.multiply(simulated.gradient_out, network.readouts[SCALE] / count, out=simulated.gradient_out)

    def share(self, function: Callable[[int, int], None], n: int, at_least: int = SHARED_VALUES) -> None:
        """Call a function for ranges that make up n values, each in a thread where there are at least so many."""
        ranges = _even(n, self._n_threads if n >= at_least else 1)
        self._map(lambda bounds: function(*bounds), ranges)

    def _room(self, name: str, n_steps: int, n: int) -> Floats:
        """Memory (n_steps, n), with anything in it, that is kept under a name."""
        size = n_steps * n
        if name not in self._rooms or self._rooms[name].size < size:  # evaluation needs little and leaves it as it is
            self._rooms.pop(name, None)  # before there are two
            self._rooms[name] = np.zeros(size)
        return self._rooms[name][:size].reshape(n_steps, n)

    def _map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """Results of a function for each item, in threads if there are several."""
        if self._closing:
            raise CancelledError
        return list(self._threads.map(function, items)) if self._n_threads > 1 else [function(item) for item in items]

    def _sum(self, network: Circuit, n_in: int, learned: list[Learned], order: str, simulated: Simulated) -> None:
        """Add sequences' gradients to the batch's; each thread has its own part of the synapses."""
        n_rec, kappa = network.neurons.shape[1], network.readouts[ALPHA]
        columns = _even(n_rec, self._n_threads)

        def read_out(share: tuple[int, int]) -> None:
            for found in learned:
                first, pre = found.spikes.first, found.spikes.pre
                backward.read_out(*share, n_in, kappa, network.out, first, pre, found.error, simulated.gradient_out)

        self._map(read_out, columns)
        if not len(network.rec.weights):
            return
        if order == "tiled":
            tiles = _even(-(-n_rec // backward.TILE), self._n_threads)
            rooms = [self._room(f"tile {slot}", len(learned[0].mu), backward.TILE) for slot in range(len(tiles))]
            shares = list(zip(tiles, rooms, strict=True))
            self._map(lambda share: _sum_tiles(network.rec, share[0], share[1], learned, simulated.gradient), shares)
        else:
            rows = _even_by_events(network.rec, learned, self._n_threads)
            self._map(lambda share: _sum_streams(network.rec, share, learned, simulated.gradient), rows)


def _forward(
    network: Circuit,
    inputs: InputSpikes | Counts,
    b: int,
    recorded: Ints,
    watched: Ints,
    psi: Floats,
    potential: Floats,
    simulated: Simulated,
) -> tuple[Ints, Indices, Floats]:
    """Simulate sequence b forward; returns its arriving spikes by step, and its signal."""
    listed = inputs if isinstance(inputs, InputSpikes) else events.events(inputs[b : b + 1])
    input_first = listed.first[b if listed is inputs else 0]
    n_steps = len(input_first) - 1
    intervals = np.maximum(network.neurons[T_REF], 1.0)  # no neuron fires more often
    most = int(np.ceil(n_steps / intervals).sum() + input_first[-1] - input_first[0])
    first, pre = np.empty(n_steps + 2, dtype=np.int64), np.empty(most + 1, dtype=np.uint32)
    forward(
        network.neurons, network.surrogates, network.readouts, network.rec, network.out,
        input_first, listed.neuron, listed.n_in, recorded,
        first, pre, psi, potential, simulated.dynamics[b],
    )  # fmt: skip
    signal = np.empty(simulated.signal.shape[1:])
    _signal(network.softmax, network.readouts[E_L], potential, signal)
    simulated.signal[b] = signal
    count(listed.n_in, first, pre, watched, simulated.n_spikes[b], simulated.fired[b])
    return first, pre, signal


def _backward(
    network: Circuit, order: str, first: Ints, pre: Indices, error: Floats, n_spikes: Ints, lost: Bools, psi: Floats
) -> Learned:
    """Run the adjoint through a sequence; psi becomes mu. lost: (n_in,)."""
    neurons, (n_steps, n_rec), n_pre = network.neurons, psi.shape, network.rec.n_pre
    rate_term = neurons[C_REG] * (n_spikes / n_steps - neurons[F_TARGET]) / n_steps
    truncated = psi.copy() if lost.any() else np.empty((0, n_rec))
    backward.sweep(neurons, network.readouts[ALPHA], network.feedback, error, rate_term, psi)
    if len(truncated):
        others = np.vstack([error[:-1], np.zeros_like(error[-1:])])
        backward.sweep(neurons, network.readouts[ALPHA], network.feedback, others, rate_term, truncated)
    start, steps = np.zeros(n_pre + 1, dtype=np.int64), np.empty(first[n_steps] if order == "tiled" else 0, np.uint32)
    if order == "tiled":
        backward.sort_by_neuron(first, pre, start, steps)
    whole = np.ones(n_pre, dtype=bool)
    whole[: len(lost)] = ~lost
    return Learned(Spikes(first, pre, start, steps), error, whole, psi, truncated)


def _sum_tiles(
    synapses: Synapses, share: tuple[int, int], columns: Floats, learned: list[Learned], gradient: Floats
) -> None:
    """Add sequences' gradients of the synapses onto a range of tiles. columns: room (n_steps, TILE)."""
    begin, end = (tile * backward.TILE for tile in share)
    starts = backward.first_onto(begin, synapses)
    for found in learned:
        n_rec = found.mu.shape[1]
        for mu, rows in found.adjoints():
            cursor = starts.copy()
            for j0 in range(begin, min(end, n_rec), backward.TILE):
                j1 = min(j0 + backward.TILE, n_rec)
                backward.tiled(
                    j0, j1, synapses, found.spikes.start, found.spikes.steps, rows, mu, columns, cursor, gradient
                )


def _sum_streams(synapses: Synapses, share: tuple[int, int], learned: list[Learned], gradient: Floats) -> None:
    """Add sequences' gradients of the synapses from a range of presynaptic neurons."""
    for found in learned:
        for mu, rows in found.adjoints():
            backward.streamed(*share, synapses, found.spikes.first, found.spikes.pre, rows, mu, gradient)


def _even(n: int, n_shares: int) -> list[tuple[int, int]]:
    """n things as ranges of about equal length."""
    return list(pairwise(n * share // n_shares for share in range(n_shares + 1)))


def _even_by_events(synapses: Synapses, learned: list[Learned], n_shares: int) -> list[tuple[int, int]]:
    """Presynaptic neurons as ranges with about as many synaptic events each."""
    spikes = np.zeros(synapses.n_pre)
    for found in learned:
        first, pre = found.spikes.first, found.spikes.pre
        spikes += np.bincount(pre[: first[-2]], minlength=synapses.n_pre)
    cost = np.cumsum(spikes * np.diff(synapses.row))
    inner = np.searchsorted(cost, cost[-1] * np.arange(1, n_shares) / n_shares).tolist()
    bounds = [0, *inner, synapses.n_pre]
    return list(pairwise(bounds))
