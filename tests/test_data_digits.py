import numpy as np
import pytest

from eprop_cli.data.digits import Digits, Encoding, encode, parts
from eprop_cli.data.events import counts
from eprop_cli.errors import ConfigError

BRIGHTNESS = np.array([0.0, 0.25, 0.5, 1.0])


def test_the_brighter_the_earlier_and_black_is_silent():
    events = encode(BRIGHTNESS, Encoding("latency", n_steps=20, start=3, stop=12))
    assert events.neuron.tolist() == [3, 2, 1]
    assert events.step.tolist() == [3, 7, 9]  # 3 + 8 (1 - brightness)


def test_regular_rates():
    encoding = Encoding("regular", n_steps=50, start=10, stop=50, rate=0.2)
    events = encode(BRIGHTNESS, encoding)
    raster = counts([events], 50, 4)[0]
    assert raster.sum(axis=0).tolist() == [0, 2, 4, 8]  # 40 steps of 0.05, 0.1, 0.2 spikes
    assert not raster[:10].any()
    assert set(np.diff(np.flatnonzero(raster[:, 3]))) == {5}


def test_poisson_rates_depend_on_seed_and_sample_alone():
    encoding = Encoding("poisson", n_steps=4000, start=0, stop=4000, rate=0.2)
    events = encode(BRIGHTNESS, encoding, index=1)
    number = np.bincount(events.neuron, minlength=4)
    expected = 4000 * 0.2 * BRIGHTNESS
    assert number[0] == 0
    assert (np.abs(number - expected) <= 4 * np.sqrt(expected)).all()
    again = [encode(BRIGHTNESS, encoding, 1), encode(BRIGHTNESS, encoding, 2)]
    again.append(encode(BRIGHTNESS, Encoding("poisson", 4000, 0, 4000, 0.2, seed=7), 1))
    assert [np.array_equal(events.step, other.step) for other in again] == [True, False, False]


@pytest.mark.parametrize(
    ("options", "key"),
    [({"kind": "rate"}, "kind=rate"), ({"start": 50}, "start=50"), ({"stop": 60}, "start=1"), ({"rate": 0}, "rate=0")],
)
def test_impossible_encodings_are_refused(options, key):
    with pytest.raises(ConfigError, match=f"task.encoding.{key}"):
        Encoding(**options)


def test_the_digits_and_their_split():
    pytest.importorskip("sklearn")
    found = parts(Encoding())
    assert {phase: len(part) for phase, part in found.items()} == {"training": 1197, "validation": 240, "test": 360}
    indices = np.concatenate([part.indices for part in found.values()])
    assert sorted(indices.tolist()) == list(range(1797))
    labels = {found["test"].sample(i)[1] for i in range(360)}
    assert labels == set(range(10))


def test_darkness_has_inputs_of_its_own():
    pytest.importorskip("sklearn")
    source = Digits(Encoding("latency", n_steps=17, start=0, stop=17, off=True))
    assert source.n_in == 128
    events, label = source.sample(0)
    assert label == 0
    first = dict(zip(events.neuron.tolist(), events.step.tolist(), strict=True))
    assert first[2] == 11  # the third pixel of the first image has brightness 5 of 16
    assert first[64 + 2] == 5
    assert 0 not in first  # black
    assert first[64] == 0
