import pickle
import re

import numpy as np
import pytest

from eprop_cli.data import BrokenSampleError
from eprop_cli.data.shd import SpikingHeidelbergDigits, synthetic, write
from eprop_cli.errors import ConfigError, UserError

h5py = pytest.importorskip("h5py")

SAMPLES = [
    ([0.0, 0.00150, 0.0039, 0.0039, 0.5], [699, 3, 7, 7, 1], 19),
    ([0.25], [0], 4),
]


@pytest.fixture
def path(tmp_path):
    write(tmp_path / "shd_train.h5", SAMPLES, [11, 2])
    return tmp_path / "shd_train.h5"


def test_a_file_in_the_layout_of_the_data_set(path):
    with h5py.File(path) as file:
        assert file["spikes/times"][1].dtype == np.float16
        assert file["spikes/units"][0].tolist() == [699, 3, 7, 7, 1]
    source = SpikingHeidelbergDigits(path, bin_ms=2.0, n_steps=250)
    assert (len(source), source.n_in, source.n_steps, source.n_classes) == (2, 700, 250, 20)
    assert source.speaker.tolist() == [11, 2]
    events, label = source.sample(0)
    assert label == 19
    assert events.step.tolist() == [0, 0, 1, 1]  # 0 and 1.5 ms; 3.9 ms twice; 500 ms is step 250, too late
    assert events.neuron.tolist() == [3, 699, 7, 7]
    assert source.sample(1)[0].step.tolist() == [125]


def test_times_of_either_precision_are_read(tmp_path):
    path = tmp_path / "single.h5"
    with h5py.File(path, "w") as file:
        for name, dtype, values in (("times", np.float32, [0.99965, 0.99945]), ("units", np.uint16, [1, 2])):
            file.create_dataset(f"spikes/{name}", (1,), h5py.vlen_dtype(dtype))[0] = np.array(values, dtype)
        file["labels"], file["extra/speaker"] = np.array([3], np.uint8), np.array([0], np.uint16)
    events, _ = SpikingHeidelbergDigits(path, bin_ms=0.1, n_steps=10000).sample(0)
    assert events.step.tolist() == [9994, 9996]
    assert events.neuron.tolist() == [2, 1]


def test_a_source_goes_to_another_process(path):
    source = SpikingHeidelbergDigits(path)
    copied = pickle.loads(pickle.dumps(source))
    assert copied.sample(1)[0].step.tolist() == source.sample(1)[0].step.tolist() == [250]


def test_a_missing_data_set_is_told_with_size_and_place(tmp_path):
    with pytest.raises(ConfigError, match=rf"Spiking Heidelberg Digits.* GB .*put shd_train\.h5.* into {tmp_path}"):
        SpikingHeidelbergDigits(tmp_path / "shd_test.h5")


def break_whole(path):
    path.write_bytes(path.read_bytes()[:3000])


def break_layout(path):
    with h5py.File(path, "a") as file:
        del file["extra/speaker"]


def break_lengths(path):
    with h5py.File(path, "a") as file:
        del file["labels"]
        file["labels"] = np.array([1], np.uint16)


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [break_whole, break_layout, break_lengths, empty])
def test_a_broken_file_is_named_in_one_line(path, damage):
    damage(path)
    with pytest.raises(UserError, match=re.escape(f"{path}: ")) as caught:
        SpikingHeidelbergDigits(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("times", "units", "says"),
    [
        ([0.1, 0.2], [1], "2 times and 1 units"),
        ([], [], "0 times"),
        ([-0.1], [1], "negative"),
        ([np.nan], [1], "not a number"),
        ([0.1], [700], "unit 700"),
    ],
)
def test_a_broken_sample_is_named_and_others_are_read(path, times, units, says):
    write(path, [(times, units, 1), SAMPLES[1]], [0, 0])
    source = SpikingHeidelbergDigits(path)
    with pytest.raises(BrokenSampleError, match=says) as caught:
        source.sample(0)
    assert str(caught.value).startswith(f"{path}: sample 0 ")
    assert source.sample(1)[1] == 4


@pytest.mark.parametrize(("options", "key"), [({"bin_ms": 0.0}, "task.bin=0.0"), ({"n_steps": 0}, "task.steps")])
def test_impossible_bins_are_refused(path, options, key):
    with pytest.raises(ConfigError, match=re.escape(key)):
        SpikingHeidelbergDigits(path, **options)


def test_synthetic_samples_of_a_seed(tmp_path):
    samples = synthetic(3, seed=4, n_spikes=50)
    write(tmp_path / "a.h5", samples, [0] * 3)
    source = SpikingHeidelbergDigits(tmp_path / "a.h5", n_steps=1001)
    assert [len(source.sample(i)[0]) for i in range(3)] == [50] * 3
    assert [source.sample(i)[1] for i in range(3)] == [label for _, _, label in synthetic(3, seed=4, n_spikes=50)]
    assert not np.array_equal(samples[0][0], synthetic(3, seed=5, n_spikes=50)[0][0])
