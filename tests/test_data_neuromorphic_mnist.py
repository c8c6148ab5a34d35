import hashlib
from pathlib import Path

import numpy as np
import pytest

from eprop_cli.data import BrokenSampleError
from eprop_cli.data.events import counts, join
from eprop_cli.data.neuromorphic_mnist import N_PIXELS, NeuromorphicMnist, active_pixels, list_files, read_events
from eprop_cli.errors import ConfigError, UserError

# of the first three images of each class, as the files were on which NEST's script gave its reference losses
KNOWN = "06bb2ca4c5208cec92e695af61bb62cabe5b8c8c1895a030df532a4c3004872b"
EVERY_PIXEL = np.arange(N_PIXELS)
ON = 34 * 34


def event(x, y, on, time):
    """An event in the bytes of the data set's own documentation."""
    return bytes([x, y, on * 128 + time // 65536, time // 256 % 256, time % 256])


@pytest.fixture
def folder(tmp_path):
    """A folder Train with one file of one event in each class; add(label, name, *events) adds one."""

    def add(label, name, *events):
        directory = tmp_path / "Train" / str(label)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(b"".join(events))
        return directory / name

    for label in range(10):
        add(label, "00002.bin", event(label, 0, 0, 1120))
    return tmp_path / "Train", add


def test_bytes_by_hand(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(bytes([3, 2, 0x80, 0x00, 0x07, 33, 33, 0x01, 0x02, 0x03]))
    pixel, time = read_events(path)
    assert pixel.tolist() == [ON + 2 * 34 + 3, 33 * 34 + 33]
    assert time.tolist() == [7, 0x010203]


def test_an_overflow_mark_is_no_event_and_moves_no_time(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(event(1, 0, 0, 10) + event(255, 240, 0, 8191) + event(2, 0, 0, 20))
    pixel, time = read_events(path)
    assert pixel.tolist() == [1, 2]
    assert time.tolist() == [10, 20]


def test_steps_are_rounded_and_two_events_of_a_pixel_in_one_are_two_spikes(folder):
    train, add = folder
    # a step lasts 1120.13 us; the edge between steps 0 and 1 lies at 560.07 us
    times = [0, 560, 561, 1000, 1680, 1681, 335479, 335480, 336040]
    add(0, "00001.bin", *(event(5, 0, 1, time) for time in times))
    events, label = NeuromorphicMnist(train, pixels=EVERY_PIXEL).sample(0)
    assert label == 0
    assert events.neuron.tolist() == [ON + 5] * 9
    assert events.step.tolist() == [0, 0, 1, 1, 1, 2, 299, 300, 300]
    assert counts([events.before(300)], 300, N_PIXELS)[0, 1, ON + 5] == 3
    first = join([events, events], 300)
    assert first.step.tolist() == [0, 0, 1, 1, 1, 2, 299, 300, 300, 300, 300, 301, 301, 301, 302, 599]


def test_events_of_pixels_without_an_input_are_left_out(folder):
    train, add = folder
    add(0, "00001.bin", event(5, 0, 0, 0), event(6, 0, 0, 0), event(7, 0, 0, 0))
    source = NeuromorphicMnist(train, pixels=np.array([5, 7]))
    assert source.n_in == 2
    assert source.sample(0)[0].neuron.tolist() == [0, 1]


def test_files_come_by_class_then_name_and_nothing_else(folder):
    train, add = folder
    add(0, "00010.bin", event(0, 0, 0, 0))
    add(0, "00001.bin", event(0, 0, 0, 0))
    add(0, "readme.txt")
    files = list_files(train)
    assert [path.name for path, _ in files[:4]] == ["00001.bin", "00002.bin", "00010.bin", "00002.bin"]
    assert [label for _, label in files] == [0, 0, *range(10)]
    assert [NeuromorphicMnist(train).sample(i)[1] for i in (2, 3)] == [0, 1]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "0 bytes"),
        (event(1, 1, 1, 1)[:-1], "4 bytes"),
        (event(34, 0, 0, 0), "34 x 34 pixels"),
        (event(0, 34, 0, 0), "34 x 34 pixels"),
        (event(0, 0, 0, 336041), "336040 us"),
    ],
)
def test_a_broken_file_is_named_in_one_line(tmp_path, content, says):
    path = tmp_path / "bad.bin"
    path.write_bytes(content)
    with pytest.raises(BrokenSampleError, match=says) as caught:
        read_events(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(BrokenSampleError, match=r"gone\.bin: No such file"):
        read_events(tmp_path / "gone.bin")


def test_a_missing_data_set_is_told_with_size_and_place(tmp_path, folder):
    with pytest.raises(ConfigError, match=r"N-MNIST.* GB .*put .* into /nowhere") as caught:
        NeuromorphicMnist(Path("/nowhere/Train"))
    assert "\n" not in str(caught.value)
    train, _ = folder
    (train / "7" / "00002.bin").unlink()
    with pytest.raises(ConfigError, match=f"no \\*\\.bin in {train / '7'}"):
        NeuromorphicMnist(train)


def test_nest_s_list_leaves_1196_pixels():
    pixels = active_pixels()
    assert len(pixels) == len(set(pixels)) == 2312 - 1116
    assert (np.diff(pixels) > 0).all()
    assert 0 not in pixels  # a corner, on the list


def test_a_list_of_one_s_own(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("0\n2311\n")
    assert active_pixels(path).tolist() == list(range(1, 2311))
    with pytest.raises(UserError, match="list of unused pixels"):
        active_pixels(tmp_path / "none.txt")


def test_the_script_s_own_reading(folder):
    """The file as NEST's script reads it, byte by byte."""
    train, add = folder
    rng = np.random.RandomState(1)
    drawn = [(rng.randint(34), rng.choice([*range(34), 240]), rng.randint(2), rng.randint(336041)) for _ in range(500)]
    path = add(0, "00001.bin", *(event(*each) for each in drawn))
    expected, content, active = [], path.read_bytes(), active_pixels().tolist()
    for i in range(0, len(content), 5):
        x, y, high, middle, low = content[i : i + 5]
        time = (high << 16 | middle << 8 | low) & 0x7FFFFF
        pixel = (high >> 7) * 34 * 34 + y * 34 + x
        if pixel in active:
            expected.append((int(np.around(time * 300.0 / 336040)), active.index(pixel)))
    events, _ = NeuromorphicMnist(train).sample(0)
    assert list(zip(events.step.tolist(), events.neuron.tolist(), strict=True)) == sorted(expected)


def test_camera_files_are_those_of_the_reference_losses(tmp_path):
    pytest.importorskip("sklearn")
    from eprop_cli.data.camera import pack, record, simulate
    from eprop_cli.data.digits import load_images

    simulate(tmp_path, 2, 1)
    files = list_files(tmp_path / "Train") + list_files(tmp_path / "Test")
    assert [path.name for path, _ in files[:4]] == ["00000.bin", "00010.bin", "00001.bin", "00011.bin"]
    assert hashlib.sha256(b"".join(path.read_bytes() for path, _ in files)).hexdigest() == KNOWN
    events = record(load_images()[0][0])
    path = tmp_path / "one.bin"
    path.write_bytes(pack(events))
    pixel, time = read_events(path)
    np.testing.assert_array_equal(pixel, events[2] * ON + events[1] * 34 + events[0])
    np.testing.assert_array_equal(time, events[3])


def test_more_camera_files_than_images_are_refused(tmp_path):
    pytest.importorskip("sklearn")
    from eprop_cli.data.camera import simulate

    with pytest.raises(ConfigError, match="174 together"):
        simulate(tmp_path, 100, 75)
