"""Many random subsets of the same size at once."""

import numpy as np
from numpy.typing import NDArray

MOST_AT_A_TIME = 2**22  # numbers, for which some temporary arrays are held


def subsets(rng: np.random.RandomState, n: int, size: int, among: int, without_self: bool) -> NDArray[np.uint32]:
    """n subsets of 0 to among - 1, uint32 (n, size), each increasing; without_self: none holds its own number."""
    found = np.empty((n, size), dtype=np.uint32)
    choices = among - without_self
    rows = max(1, MOST_AT_A_TIME // choices if 2 * size > choices else MOST_AT_A_TIME // (2 * size + 16))
    for begin in range(0, n, rows):
        end = min(begin + rows, n)
        drawn = _complements(rng, end - begin, size, choices) if 2 * size > choices else None
        drawn = _distinct(rng, end - begin, size, choices) if drawn is None else drawn
        if without_self:
            drawn += drawn >= np.arange(begin, end)[:, None]
        found[begin:end] = drawn
    return found


def _distinct(rng: np.random.RandomState, n: int, size: int, choices: int) -> NDArray[np.int64]:
    """The first distinct ones among numbers drawn with replacement; rows with too few are drawn again whole."""
    found = np.empty((n, size), dtype=np.int64)
    if size == 0:
        return found
    expected = choices * np.log(choices / max(choices - size, 0.5))
    n_drawn = int(expected + 4.0 * np.sqrt(expected) + 4)
    missing = np.arange(n)
    while len(missing):
        drawn = rng.randint(0, choices, (len(missing), n_drawn))
        order = np.argsort(drawn, axis=1, kind="stable")
        ordered = np.take_along_axis(drawn, order, axis=1)
        first_in_order = np.ones(drawn.shape, dtype=bool)
        first_in_order[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
        first = np.empty_like(first_in_order)
        np.put_along_axis(first, order, first_in_order, axis=1)
        rank = np.cumsum(first, axis=1)
        enough = rank[:, -1] >= size
        kept = drawn[enough][(first & (rank <= size))[enough]].reshape(-1, size)
        found[missing[enough]] = np.sort(kept, axis=1)
        missing = missing[~enough]
    return found


def _complements(rng: np.random.RandomState, n: int, size: int, choices: int) -> NDArray[np.int64]:
    """What subsets leave."""
    left = np.ones((n, choices), dtype=bool)
    np.put_along_axis(left, _distinct(rng, n, choices - size, choices), False, axis=1)
    return np.nonzero(left)[1].reshape(n, size)
