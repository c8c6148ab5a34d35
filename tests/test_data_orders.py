import numpy as np
import pytest

from eprop_cli.data.orders import Shuffled, Wrapped


def test_every_epoch_holds_every_sample_once_in_another_order_and_the_last_batch_the_rest():
    order = Shuffled(10, 4, seed=3)
    assert order.n_batches == 3
    epochs = [[order.batch(3 * epoch + i).tolist() for i in range(3)] for epoch in range(2)]
    for batches in epochs:
        assert [len(batch) for batch in batches] == [4, 4, 2]
        assert sorted([i for batch in batches for i in batch]) == list(range(10))
    assert epochs[0] != epochs[1]
    assert [order.epoch(i) for i in range(7)] == [0, 0, 0, 1, 1, 1, 2]


def test_a_batch_depends_on_its_index_and_the_seed_alone():
    forwards = [Shuffled(10, 4, seed=3).batch(i).tolist() for i in range(9)]
    order = Shuffled(10, 4, seed=3)
    assert [order.batch(i).tolist() for i in reversed(range(9))] == forwards[::-1]
    assert [Shuffled(10, 4, seed=4).batch(i).tolist() for i in range(9)] != forwards


def test_the_order_of_a_seed_never_changes():
    assert Shuffled(8, 8, seed=1).batch(0).tolist() == KNOWN[0]
    assert Shuffled(8, 8, seed=1).batch(1).tolist() == KNOWN[1]


KNOWN = [[1, 6, 0, 3, 7, 4, 2, 5], [3, 2, 4, 0, 7, 1, 5, 6]]


def test_without_a_seed_samples_come_in_order():
    assert [Shuffled(5, 2).batch(i).tolist() for i in range(4)] == [[0, 1], [2, 3], [4], [0, 1]]


@pytest.mark.parametrize("n_batch", [2, 3, 7])
def test_groups_go_round_one_permutation_as_in_the_script(n_batch):
    permutation = np.random.RandomState(1).permutation(5)
    order, current = Wrapped(permutation, n_batch), 0
    for index in range(12):
        expected = np.take(permutation, range(current, current + n_batch), mode="wrap")
        current = (current + n_batch) % 5
        assert order.batch(index).tolist() == expected.tolist()
    assert [Wrapped(permutation, 2).epoch(i) for i in range(6)] == [0, 0, 0, 1, 1, 2]
    assert Wrapped(permutation, 2).n_batches == 3
