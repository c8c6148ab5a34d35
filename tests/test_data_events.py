import numpy as np
import pytest

from eprop_cli.data.events import bins, counts, join, make_events, spikes
from eprop_cli.errors import UserError


def pairs(events):
    return list(zip(events.step.tolist(), events.neuron.tolist(), strict=True))


def test_events_are_sorted_by_step_then_neuron_and_repeats_stay():
    events = make_events([3, 0, 3, 3], [1, 9, 0, 1])
    assert pairs(events) == [(0, 9), (3, 0), (3, 1), (3, 1)]
    assert len(events) == 4


@pytest.mark.parametrize(("most", "bytes_each"), [(255, 1), (256, 2), (65535, 2), (65536, 4)])
def test_events_take_the_smallest_integers(most, bytes_each):
    assert make_events([0, most], [0, 1]).nbytes == 2 * bytes_each + 2


@pytest.mark.parametrize(
    ("step", "neuron", "says"),
    [
        ([0, 1], [0], "one length"),
        ([[0]], [[0]], "one length"),
        ([-1], [0], "step must be whole"),
        ([0], [0.5], "neuron must be whole"),
    ],
)
def test_what_is_not_an_event_is_refused(step, neuron, says):
    with pytest.raises(UserError, match=says):
        make_events(step, neuron)


def test_rasters_of_two_samples():
    samples = [make_events([0, 2, 2], [1, 0, 0]), make_events([1], [1])]
    expected = np.zeros((2, 3, 2), np.uint8)
    expected[0, 0, 1], expected[0, 2, 0], expected[1, 1, 1] = 1, 2, 1
    found = counts(samples, 3, 2)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)
    found = spikes(samples, 3, 2)
    assert found.dtype == bool
    np.testing.assert_array_equal(found, expected > 0)


def test_a_sample_without_events_is_silent():
    silent = make_events([], [])
    assert not counts([silent], 3, 2).any()
    assert pairs(join([silent, make_events([1], [0])], 3)) == [(4, 0)]
    assert len(join([], 3)) == 0


@pytest.mark.parametrize("raster", [counts, spikes])
@pytest.mark.parametrize(("step", "neuron", "says"), [(3, 0, "step 3"), (0, 2, "neuron 2")])
def test_events_outside_of_a_raster_are_refused(raster, step, neuron, says):
    with pytest.raises(UserError, match=says):
        raster([make_events([step], [neuron])], 3, 2)


def test_more_spikes_than_can_be_counted_are_refused():
    assert counts([make_events([0] * 255, [0] * 255)], 1, 1) == 255
    with pytest.raises(UserError, match="256 spikes"):
        counts([make_events([0] * 256, [0] * 256)], 1, 1)


def test_an_event_past_the_end_falls_into_the_next_sample_or_is_lost():
    samples = [make_events([0, 3], [5, 6]), make_events([0, 2, 3], [7, 8, 9])]
    assert pairs(join(samples, 3)) == [(0, 5), (3, 6), (3, 7), (5, 8)]
    assert pairs(samples[1].before(3)) == [(0, 7), (2, 8)]


def test_an_edge_belongs_to_the_bin_it_begins():
    assert bins([0.0, 1.9, 2.0, 7.99], 2.0).tolist() == [0, 0, 1, 3]
