import io
import os
import re
import tracemalloc
import zipfile

import numpy as np
import pytest
from small import BARE, SMALL, config

from eprop_cli.errors import ConfigError
from eprop_cli.training.base import initial_weights

SHAPES = {"in_rec": (100, 40), "rec_rec": (100, 100), "rec_out": (2, 100), "out_rec": (100, 2)}


def draw(*overrides, seed=1):
    return initial_weights(config(*overrides), np.random.RandomState(seed))


def saved(path, shapes=SHAPES, **changes):
    """A weights.npz with numbers that tell before from after."""
    arrays = {f"{name}_before": np.zeros(shapes[name]) for name in ("in_rec", "rec_rec", "rec_out")}
    arrays |= {f"{name}_after": np.full(shapes[name], 0.25) for name in ("in_rec", "rec_rec", "rec_out")}
    np.fill_diagonal(arrays["rec_rec_after"], 0.0)
    arrays |= {"out_rec": np.full(shapes["out_rec"], 0.5)} | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def test_draws_are_the_tutorials():
    rng = np.random.RandomState(7)
    expected = {
        "in_rec": np.array(rng.randn(40, 100).T / np.sqrt(40), dtype=np.float32),
        "rec_rec": np.array(rng.randn(100, 100).T / np.sqrt(100), dtype=np.float32),
        "rec_out": np.array(rng.uniform(-np.sqrt(3 / 51), np.sqrt(3 / 51), (100, 2)).T, dtype=np.float32),
        "out_rec": np.array(rng.randn(100, 2), dtype=np.float32),
    }
    np.fill_diagonal(expected["rec_rec"], 0)
    weights = draw(seed=7)
    assert list(weights) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(weights[name], values, err_msg=name)


def test_shapes_are_post_by_pre_in_double_precision():
    weights = draw()
    assert {name: values.shape for name, values in weights.items()} == SHAPES
    assert {values.dtype for values in weights.values()} == {np.dtype("float64")}
    assert all(values.flags.c_contiguous for values in weights.values())


def test_values_are_rounded_to_single_precision_unless_asked_otherwise():
    single, double = draw(), draw("synapse.dtype_weights=float64")
    for name, values in single.items():
        np.testing.assert_array_equal(values, double[name].astype(np.float32))
        assert (values != double[name]).any()


def test_no_neuron_connects_to_itself():
    assert (np.diag(draw()["rec_rec"]) == 0).all()
    assert (draw()["rec_rec"] == 0).sum() == 100


def test_standard_deviations():
    weights = draw(seed=3)
    for name, expected in {"in_rec": 40**-0.5, "rec_rec": 100**-0.5, "out_rec": 1.0}.items():
        values = weights[name][~np.eye(100, dtype=bool)] if name == "rec_rec" else weights[name].ravel()
        assert abs(values.std() / expected - 1) < 5 / np.sqrt(2 * values.size), name
        assert abs(values.mean()) < 5 * expected / np.sqrt(values.size), name


def test_readout_weights_are_within_glorots_bounds_and_fill_them():
    limit = np.sqrt(6 / (100 + 2))
    values = draw()["rec_out"]
    assert np.abs(values).max() <= np.float32(limit)
    assert values.min() < -0.95 * limit
    assert values.max() > 0.95 * limit


def test_each_projection_has_its_scale():
    scaled = draw("synapse.weight_scale={in_rec: 2, rec_rec: 0.5, rec_out: 4, out_rec: 0}")
    for name, factor in {"in_rec": 2, "rec_rec": 0.5, "rec_out": 4, "out_rec": 0}.items():
        np.testing.assert_array_equal(scaled[name], factor * draw()[name], err_msg=name)


@pytest.mark.parametrize("form", ["directory", "file"])
def test_trained_weights_are_taken_from_a_run(tmp_path, form):
    path = saved(tmp_path / "weights.npz")
    source = tmp_path if form == "directory" else path
    weights = initial_weights(config(f"synapse.weights_from={source}"), np.random.RandomState(1))
    assert {name: (values.shape, set(values.flat)) for name, values in weights.items()} == {
        "in_rec": ((100, 40), {0.25}),
        "rec_rec": ((100, 100), {0.0, 0.25}),
        "rec_out": ((2, 100), {0.25}),
        "out_rec": ((100, 2), {0.5}),
    }
    np.testing.assert_array_equal(weights["rec_rec"] == 0.0, np.eye(100, dtype=bool))


def test_later_draws_do_not_depend_on_where_weights_come_from(tmp_path):
    drawn, taken = np.random.RandomState(1), np.random.RandomState(1)
    initial_weights(config(), drawn)
    initial_weights(config(f"synapse.weights_from={saved(tmp_path / 'weights.npz')}"), taken)
    assert drawn.rand() == taken.rand()


def test_a_name_that_no_file_can_have_is_refused():
    name = "x" * 300
    with pytest.raises(ConfigError, match=f"^synapse.weights_from={name}: .* a run directory, its weights.npz"):
        initial_weights(config(f"synapse.weights_from={name}"), np.random.RandomState(1))


def test_weights_of_another_network_are_refused(tmp_path):
    source = saved(tmp_path / "weights.npz")
    reason = r"has in_rec weights of shape \(100, 40\), but the network needs \(8, 8\)"
    with pytest.raises(ConfigError, match=f"^synapse.weights_from={source}: {reason}$"):
        initial_weights(config(*SMALL, f"synapse.weights_from={source}"), np.random.RandomState(1))


OTHER = {
    "complex": (np.zeros((2, 100), complex), "has rec_out weights that are no numbers"),
    "times": (np.zeros((2, 100), "M8[s]"), "has rec_out weights that are no numbers"),
    "structured": (np.zeros((2, 100), [("a", float)]), "has rec_out weights that are no numbers"),
    "truth": (np.zeros((2, 100), bool), "has rec_out weights that are no numbers"),
    "text": (np.full((2, 100), "1"), "has rec_out weights that are no numbers"),
    "infinite": (np.full((2, 100), np.inf), "makes weights of rec_out infinite or NaN"),
    "too large": (np.full((2, 100), 1e308), "has weights of rec_out of up to 1e\\+308; at most 1e\\+09 pA"),
}


@pytest.mark.parametrize("kind", OTHER)
def test_arrays_of_something_else_are_refused(tmp_path, kind):
    values, reason = OTHER[kind]
    source = saved(tmp_path / "weights.npz", rec_out_after=values)
    with pytest.raises(ConfigError, match=f"^synapse.weights_from={source}: {reason}"):
        initial_weights(config(f"synapse.weights_from={source}"), np.random.RandomState(1))


def test_feedback_that_overflows_is_refused(tmp_path):
    source = saved(tmp_path / "weights.npz", out_rec=np.full((100, 2), 1e308))
    with pytest.raises(ConfigError, match="has weights of out_rec of up to"):
        initial_weights(config(f"synapse.weights_from={source}"), np.random.RandomState(1))


def test_autapses_are_refused(tmp_path):
    source = saved(tmp_path / "weights.npz", rec_rec_after=np.eye(100))
    with pytest.raises(ConfigError, match="weights of neurons with themselves, which must be 0"):
        initial_weights(config(f"synapse.weights_from={source}"), np.random.RandomState(1))


def replaced(path, content, flags=0):
    """An archive whose rec_out_after has this content, and these flags in its directory."""
    with zipfile.ZipFile(saved(path)) as old:
        members = {entry.filename: old.read(entry) for entry in old.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in (members | {"rec_out_after.npy": content}).items():
            new.writestr(name, data)
    if flags:
        data = bytearray(path.read_bytes())
        for at in (place.start() for place in re.finditer(b"PK\x01\x02", bytes(data))):
            data[at + 8] |= flags
        path.write_bytes(data)
    return path


def declared(*shape):
    """The header of an array, and hardly anything of it."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return file.getvalue() + bytes(8)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: replaced(path, declared(10**9, 10**9)),
        lambda path: replaced(path, declared(2, 100)),
        lambda path: replaced(path, declared(-2, -100)),
        lambda path: replaced(path, b"\x93NUMPY\x01\x00v\x00" + b"(" * 118),
        lambda path: replaced(path, b"rubbish"),
        lambda path: replaced(path, declared(2, 100), flags=1),
        lambda path: os.mkfifo(path),
    ],
    ids=["declared too large", "cut off", "negative", "no header", "rubbish", "encrypted", "a named pipe"],
)
def test_archives_that_are_not_what_they_say_are_refused(tmp_path, make):
    make(tmp_path / "weights.npz")
    with pytest.raises(ConfigError, match=f"^synapse.weights_from={tmp_path}: ") as caught:
        initial_weights(config(f"synapse.weights_from={tmp_path}"), np.random.RandomState(1))
    assert "\n" not in str(caught.value)


def test_what_unpacks_to_more_than_is_wanted_is_not_unpacked(tmp_path):
    path = replaced(tmp_path / "weights.npz", declared(2**27) + bytes(2**28))  # 1 GB declared, 256 MB there
    tracemalloc.start()
    with pytest.raises(ConfigError, match="has rec_out weights of shape"):
        initial_weights(config(f"synapse.weights_from={path}"), np.random.RandomState(1))
    assert tracemalloc.get_traced_memory()[1] < 2**25
    tracemalloc.stop()


def damage(path, how):
    if how == "cut off":
        path.write_bytes(saved(path).read_bytes()[:1000])
    elif how == "not an archive":
        path.write_text("weights")
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "a pickle":
        saved(path, rec_out_after=np.array([object()]))
    elif how == "a single array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))


@pytest.mark.parametrize(
    "how",
    [
        "cut off",
        "not an archive",
        "empty",
        "a pickle",
        "a single array",
        "absent",
    ],
)
def test_what_is_not_whole_weights_is_refused(tmp_path, how):
    path = tmp_path / "weights.npz"
    damage(path, how)
    with pytest.raises(
        ConfigError, match=f"^synapse.weights_from={tmp_path}: must be a run directory, its weights.npz"
    ):
        initial_weights(config(f"synapse.weights_from={tmp_path}"), np.random.RandomState(1))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "optimizer.Wmin=-0.1",
            r"^optimizer.Wmin=-0.1: must not be above the smallest initial weight of in_rec \(-0.4986\)",
        ),
        (
            "optimizer.Wmax=0.1",
            r"^optimizer.Wmax=0.1: must not be below the largest initial weight of in_rec \(0.6259\)",
        ),
    ],
)
def test_initial_weights_must_lie_within_the_optimizers_bounds(override, message):
    with pytest.raises(ConfigError, match=message):
        initial_weights(config(override), np.random.RandomState(1))


def test_the_feedback_is_not_optimized_so_it_has_no_bounds():
    weights = initial_weights(config("optimizer.Wmin=-1", "optimizer.Wmax=1"), np.random.RandomState(1))
    assert np.abs(weights["out_rec"]).max() > 1


COMPILED_SMOKE = ("experiment=smoke", "engine=compiled", "training=data_parallel", *BARE)


def test_weights_of_ones_own(eprop_run, tmp_path):
    assert eprop_run(*COMPILED_SMOKE, "task.n_iter=2", "hydra.run.dir=run").returncode == 0
    with np.load(tmp_path / "run" / "weights.npz") as file:
        names = ("in_rec", "rec_rec", "rec_out")
        weights = {name: file[f"{name}_after"] for name in names} | {"out_rec": file["out_rec"]}
    np.savez(tmp_path / "mine.npz", **weights)
    for source, place in {"run": "a", "mine.npz": "b"}.items():
        assert eprop_run(*COMPILED_SMOKE, f"synapse.weights_from={source}", f"hydra.run.dir={place}").returncode == 0
    losses = [
        [line.split(",")[:3] for line in (tmp_path / place / "metrics.csv").read_text().split()] for place in "ab"
    ]
    assert losses[0] == losses[1]
    np.savez(tmp_path / "some.npz", **{name: weights[name] for name in ("in_rec", "rec_out")})
    done = eprop_run(*COMPILED_SMOKE, "synapse.weights_from=some.npz", "hydra.run.dir=c")
    assert (done.returncode, done.stderr) == (
        2,
        "eprop-run: synapse.weights_from=some.npz: lacks rec_rec, out_rec; it needs in_rec, rec_rec, rec_out, out_rec, "
        "each of shape (n_post, n_pre), in pA\n",
    )
    assert not (tmp_path / "c").exists()
