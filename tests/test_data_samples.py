import logging
import threading

import numpy as np
import pytest

from eprop_cli.data import BrokenSampleError, Cache, Part, Samples, Shuffled, make_events, split
from eprop_cli.data.samples import ENTRY_BYTES
from eprop_cli.errors import ConfigError, UserError


class Numbers:
    """Sample i: neuron i fires in step 0; its label is i modulo 3."""

    n_steps, n_classes = 4, 3

    def __init__(self, n=7, broken=(), n_in=None):
        self.n, self.broken, self.read = n, broken, []
        self.n_in = n if n_in is None else n_in

    def __len__(self):
        return self.n

    def sample(self, index):
        self.read.append(index)
        if index in self.broken:
            raise BrokenSampleError(f"/data/{index}.bin: 3 bytes")
        return make_events([0], [index]), index % 3


@pytest.fixture
def samples():
    """Samples of phases training (in batches of 3) and test; closed afterwards."""
    opened = []

    def make(source, seed=None, **options):
        orders = {phase: Shuffled(len(source), 3, seed) for phase in ("training", "test")}
        opened.append(Samples({"training": source, "test": source}, orders, **options))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def taken(loaded):
    return [events.neuron.tolist() for events in loaded.events], loaded.labels.tolist(), loaded.indices.tolist()


def test_a_batch_holds_events_labels_and_indices_and_the_last_one_what_is_left(samples):
    source = samples(Numbers())
    assert taken(source.load("training", 1)) == ([[3], [4], [5]], [0, 1, 2], [3, 4, 5])
    assert taken(source.load("training", 2)) == ([[6]], [0], [6])
    assert source.epoch("training", 2) == 0
    assert source.epoch("training", 3) == 1


@pytest.mark.parametrize("cache_bytes", [0, 10**6])
def test_batches_are_the_same_in_any_order_read_ahead_or_not(samples, cache_bytes):
    asked = [("training", i) for i in (0, 1, 2, 3, 1, 5)] + [("test", 0), ("training", 6), ("test", 1), ("test", 0)]
    runs = [
        [taken(source.load(*batch)) for batch in asked]
        for source in (
            samples(Numbers(), seed=5, cache_bytes=cache_bytes),
            samples(Numbers(), seed=5, ahead=False),
        )
    ]
    assert runs[0] == runs[1]


def test_the_next_batch_is_read_while_one_is_in_use(samples):
    read = threading.Event()

    class Watched(Numbers):
        def sample(self, index):
            if index == 5:
                read.set()
            return super().sample(index)

    samples(Watched()).load("training", 0)
    assert read.wait(timeout=5)
    read.clear()
    samples(Watched(), ahead=False).load("training", 0)
    assert not read.wait(timeout=0.05)


def test_each_phase_reads_ahead_for_itself_and_nothing_twice(samples):
    numbers = Numbers()
    source = samples(numbers)
    for batch in (("training", 0), ("test", 0), ("training", 1), ("test", 1)):
        source.load(*batch)
    source.close()
    assert numbers.read.count(3) == 2  # once for each phase


def test_an_error_comes_when_its_batch_is_asked_for(samples):
    source = samples(Numbers(broken=[4]))
    assert taken(source.load("training", 0))[2] == [0, 1, 2]
    for _ in range(2):
        with pytest.raises(BrokenSampleError, match=r"^/data/4\.bin: 3 bytes$"):
            source.load("training", 1)
    assert taken(source.load("training", 2))[2] == [6]


def test_skipping_leaves_out_broken_samples_and_names_each_once(samples, caplog):
    source = samples(Numbers(broken=[1, 4]), on_bad_file="skip")
    with caplog.at_level(logging.WARNING):
        found = [source.load("training", i) for i in range(6)]
    assert [loaded.indices.tolist() for loaded in found[:3]] == [[0, 2], [3, 5], [6]]
    assert found[3].skipped == ("/data/1.bin: 3 bytes",)
    assert caplog.messages == ["/data/1.bin: 3 bytes; skipped", "/data/4.bin: 3 bytes; skipped"]


def test_a_batch_of_broken_samples_alone_is_an_error(samples):
    with pytest.raises(UserError, match=r"batch 2 of training has no sample that can be read: /data/6\.bin"):
        samples(Numbers(broken=[6]), on_bad_file="skip").load("training", 2)


def test_a_choice_that_does_not_exist_is_refused(samples):
    with pytest.raises(ConfigError, match=r"task\.on_bad_file=ignore"):
        samples(Numbers(), on_bad_file="ignore")


@pytest.mark.parametrize(
    ("change", "says"),
    [({"n_in": 2}, r"sample 2: input neuron 2 .* 2 \(n_in\)"), ({"n_classes": 2}, r"sample 2: label 2 .* 2 classes")],
)
def test_a_source_that_breaks_its_word_is_refused(samples, change, says):
    source = Numbers()
    for key, value in change.items():
        setattr(source, key, value)
    with pytest.raises(UserError, match=says):
        samples(source).load("training", 0)


def test_the_cache_keeps_what_fits_and_no_more():
    numbers, each = Numbers(), ENTRY_BYTES + 2
    cache = Cache(3 * each + 1)
    for _ in range(2):
        assert [cache.get("training", i, numbers)[1] for i in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert numbers.read == [0, 1, 2, 3, 4, 5, 6, 3, 4, 5, 6]
    assert cache.nbytes == 3 * each


def test_the_cache_keeps_phases_apart():
    cache = Cache(10**6)
    first, second = Numbers(), Part(Numbers(), np.array([5]))
    assert cache.get("training", 0, first)[0].neuron.tolist() == [0]
    assert cache.get("test", 0, second)[0].neuron.tolist() == [5]


def test_a_split_is_complete_disjoint_and_frozen_by_its_seed():
    cut = [[part.indices.tolist() for part in split(Numbers(20), [0.25, 0.1], seed)] for seed in (1, 1, 2)]
    assert [len(part) for part in cut[0]] == [5, 2, 13]
    assert sorted([i for part in cut[0] for i in part]) == list(range(20))
    assert cut[0] == cut[1] != cut[2]
    assert all(part == sorted(part) for part in cut[0])  # so that a file is read from front to back


def test_a_part_renames_samples():
    part = Part(Numbers(), np.array([6, 2]))
    assert (len(part), part.n_in, part.n_steps, part.n_classes) == (2, 7, 4, 3)
    assert part.sample(1)[0].neuron.tolist() == [2]


@pytest.mark.parametrize("fractions", [[1.0], [0.5, 0.5], [-0.1]])
def test_a_split_that_leaves_nothing_is_refused(fractions):
    with pytest.raises(ConfigError, match="must leave some of the 7 samples"):
        split(Numbers(), fractions, 0)
