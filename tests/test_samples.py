"""Tasks that read samples, from config to run directory."""

import functools
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small import BARE, config

from eprop_cli.data import BrokenSampleError
from eprop_cli.data.camera import simulate
from eprop_cli.data.shd import synthetic, write
from eprop_cli.engines.base import make_engine
from eprop_cli.errors import ConfigError
from eprop_cli.runs.reader import Run
from eprop_cli.runs.run import run
from eprop_cli.training.base import check_ready, initial_weights, make_task

OWN = Path(__file__).resolve().parent.parent / "docs" / "own_data"
# 25 short images a batch: 48 batches of training and one of 3 are an epoch
DIGITS = (
    "experiment=digits", "training.do_early_stopping=true", "task.validation=0.167", *BARE,
    "task.n_batch=25", "task.steps.sequence=20", "neuron.n_reg=10",
)  # fmt: skip
PHASES = ("training", "validation", "early-stopping", "test")


@pytest.fixture
def task():
    """The checked task of some overrides, drawn for; closed in the end."""
    made = []

    def make(*overrides):
        settings = config(*overrides)
        rng = np.random.RandomState(settings.seed)
        initial_weights(settings, rng)
        made.append(make_task(settings, rng))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(scope="module")
def camera(tmp_path_factory):
    """N-MNIST files of the simulated camera, 20 a class: those on which NEST's script gave the reference losses."""
    folder = tmp_path_factory.mktemp("nmnist")
    simulate(folder, 20, 20)
    return folder


@pytest.fixture(scope="module")
def shd_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shd")
    for name, seed, n in (("shd_train.h5", 1, 50), ("shd_test.h5", 2, 21)):
        write(folder / name, synthetic(n, seed, n_spikes=200), [0] * n)
    return folder


def batches(task, phase, n):
    return [task.batch_at(None, phase, index) for index in range(n)]


def classes(batch):
    return batch.targets[:, :, 0].argmax(axis=0)


def is_same(one, other):
    return np.array_equal(one.spikes, other.spikes) and np.array_equal(one.targets, other.targets)


class TestBatches:
    def test_an_epoch_has_every_sample_once_and_ends_with_a_smaller_batch(self, task):
        made = task(*DIGITS)
        sizes = [len(batch.spikes) for batch in batches(made, "training", 49)]
        assert sizes == [25] * 47 + [22, 25]
        assert made.epochs(48) == 1.0
        assert [made.n_batches(phase) for phase in ("validation", "early-stopping", "test")] == [10, 10, 15]

    def test_the_order_is_the_same_each_time_and_another_one_in_each_epoch(self, task):
        made = task(*DIGITS)
        found = batches(made, "training", 50)
        assert all(is_same(*pair) for pair in zip(found, batches(task(*DIGITS), "training", 50), strict=True))
        assert is_same(made.batch_at(None, "training", 3), found[3])  # whatever was asked for before
        assert not np.array_equal(classes(found[0]), classes(found[48]))
        assert not is_same(found[0], task(*DIGITS, "seed=2").batch_at(None, "training", 0))

    def test_validation_and_test_are_the_same_for_every_seed(self, task):
        for phase in ("validation", "test"):
            one, other = (task(*DIGITS, f"seed={seed}").batch_at(None, phase, 2) for seed in (1, 2))
            assert is_same(one, other)

    def test_full_batches_go_over_the_end_of_an_epoch(self, task):
        made = task(*DIGITS, "task.last_batch=full")
        assert {len(batch.spikes) for batch in batches(made, "training", 49)} == {25}
        assert [len(batch.spikes) for batch in batches(made, "validation", 10)] == [25] * 9 + [15]  # a split ends
        assert made.epochs(48) == pytest.approx(48 * 25 / 1197)

    def test_images_are_shifted_another_way_in_each_epoch(self, task):
        # one batch is an epoch: order and shifts change
        few = ("task.validation=0.99", "task.n_batch=14", "task.shift=1.0")
        made = task(*DIGITS, *few)
        first, second = batches(made, "training", 2)
        assert sorted(classes(first)) == sorted(classes(second))
        assert first.spikes.sum(axis=(1, 2)).tolist() != sorted(second.spikes.sum(axis=(1, 2)).tolist())
        assert is_same(first, task(*DIGITS, *few).batch_at(None, "training", 0))
        assert is_same(made.batch_at(None, "test", 0), task(*DIGITS).batch_at(None, "test", 0)) is False

    def test_nothing_to_validate_on_is_refused(self, task):
        with pytest.raises(ConfigError, match=r"^task\.validation=0\.0: sets no samples apart"):
            task(*DIGITS, "task.validation=0.0").batch_at(None, "validation", 0)

    @pytest.mark.parametrize(
        ("override", "says"),
        [
            ("task.n_in=64", r"task\.n_in=64: must be 128, as the data have it"),
            ("task.n_out=9", r"task\.n_out=9: must be at least 10, one readout for each class"),
            ("task.encoding.start=20", r"task\.encoding\.start=20"),
            ("task.encoding.kind=loud", r"task\.encoding\.kind=loud: must be one of latency, regular, poisson"),
            ("task.on_bad_file=hope", r"task\.on_bad_file=hope: must be one of error, skip"),
            ("task.validation=0.0001", r"task\.validation=0\.0001: must leave some"),
        ],
    )
    def test_what_does_not_fit_the_data_is_refused(self, override, says):
        with pytest.raises(ConfigError, match=f"^{says}"):
            check_ready(config(*DIGITS, override))

    def test_the_online_family_on_nest_takes_one_batch_after_another(self):
        given = ("experiment=neuromorphic_mnist", "task.whole_split=true")
        with pytest.raises(ConfigError, match=r"^task\.whole_split=true: needs training\.evaluation=aside"):
            config(*given)
        config(*given, "engine=compiled", "training.evaluation=aside")


def test_spikes_are_counts_without_those_that_a_reset_loses(task):
    spikes = task(*DIGITS).batch_at(None, "training", 0).spikes
    assert spikes.dtype == np.uint8
    assert not spikes[:, 0].any()  # neurons are reset there


composed = functools.cache(config)


class TestRuns:
    SHORT = (*DIGITS, "task.validation=0.9", "task.n_iter=9", "training.n_iter_validate_every=4")  # 6 are an epoch

    def test_splits_are_evaluated_whole(self, tmp_path, watchers):
        assert run(composed(*self.SHORT), tmp_path).error is None
        metrics = Run(tmp_path).metrics
        assert metrics["phase"].value_counts().to_dict() == {"training": 9, "validation": 3, "test": 1}
        test = metrics[metrics["phase"] == "test"].iloc[0]
        assert test["epoch"] == pytest.approx(9 / 6)
        confusion = Run(tmp_path).confusion
        assert confusion["sequences"].sum() == 360
        right = confusion["actual"] == confusion["predicted"]
        assert confusion["sequences"][right].sum() / 360 == pytest.approx(test["accuracy"])
        recall = Run(tmp_path).recall
        assert recall["class"].tolist() == list(range(10))
        assert (recall["recall"] * recall["sequences"]).sum() == pytest.approx(test["accuracy"] * 360)

    def test_a_resume_in_the_middle_of_an_epoch_is_exact(self, tmp_path, watchers):
        given = (*self.SHORT, "task.shift=0.5")
        for name in ("whole", "part"):
            (tmp_path / name).mkdir()
        run(composed(*given), tmp_path / "whole")
        seen = []

        def stop(row):
            seen.append(row)
            if (row.iteration, row.phase) == (8, "training"):  # in the second epoch
                raise RuntimeError("stopped")

        watchers[:] = [stop]
        assert run(composed(*given), tmp_path / "part").status == "FAILED"
        watchers[:] = []
        assert run(replace(composed(*given), resume=str(tmp_path / "part")), tmp_path / "part").error is None
        one, other = (Run(tmp_path / name) for name in ("whole", "part"))
        pd.testing.assert_frame_equal(one.metrics.drop(columns="seconds"), other.metrics.drop(columns="seconds"))
        for name, pair in one.weights.items():
            np.testing.assert_array_equal(pair.after, other.weights[name].after)
        assert one.confusion.equals(other.confusion)

    def test_digits_are_learned_sample_after_sample_and_a_resume_is_exact(self, tmp_path, watchers):
        given = ("experiment=digits_eprop_iaf", "neuron.n_rec=60", "task.n_batch=24", "task.n_iter=40", *BARE)
        given = (*given, "training.checkpoint_every=16")
        for name in ("whole", "part"):
            (tmp_path / name).mkdir()
        assert run(composed(*given), tmp_path / "whole").error is None
        metrics = Run(tmp_path / "whole").metrics
        test = metrics.iloc[-1]
        assert (test["phase"], Run(tmp_path / "whole").confusion["sequences"].sum()) == ("test", 360)
        assert metrics["recall_error"].iloc[:3].mean() > 0.7  # chance is 0.9
        assert test["recall_error"] < 0.4
        assert 15 < test["rate_rec"] < 60  # spikes/s; f_target is 60

        def stop(row):
            if (row.iteration, row.phase) == (25, "training"):
                raise RuntimeError("stopped")

        watchers[:] = [stop]
        assert run(composed(*given), tmp_path / "part").status == "FAILED"
        watchers[:] = []
        assert run(replace(composed(*given), resume=str(tmp_path / "part")), tmp_path / "part").error is None
        pd.testing.assert_frame_equal(
            metrics.drop(columns="seconds"), Run(tmp_path / "part").metrics.drop(columns="seconds")
        )

    def test_a_task_of_ones_own(self, tmp_path, monkeypatch, eprop_run):
        shutil.copytree(OWN, tmp_path / "own")
        choice = ("--config-dir", "conf", "task=which_half", "training=data_parallel", "engine=compiled")
        result = eprop_run(*choice, "neuron.n_reg=10", "neuron.n_ad=0", "hydra.run.dir=run", cwd=tmp_path / "own")
        assert result.returncode == 0, result.stdout + result.stderr
        metrics = Run(tmp_path / "own" / "run").metrics
        assert metrics["epoch"].iloc[-1] == pytest.approx(50 / 5)
        assert metrics["accuracy"].iloc[-1] >= 0.9
        assert len((OWN / "halves.py").read_text().splitlines()) < 40


class TestFiles:
    @staticmethod
    def small(folder, *more):
        given = ("experiment=neuromorphic_mnist", "task.n_batch=10", f"task.data={folder}", "neuron.n_rec=10")
        return (*given, "engine=compiled", "task.cache=0", *BARE, *more)

    def break_one(self, camera, folder, content):
        shutil.copytree(camera, folder)
        path = sorted((folder / "Train" / "3").glob("*.bin"))[0]
        path.write_bytes(content(path.read_bytes()))
        return path

    @pytest.mark.parametrize(
        "content",
        [lambda whole: b"", lambda whole: whole[:-2], lambda whole: bytes([200]) + whole[1:]],
        ids=["empty", "cut short", "not of this kind"],
    )
    def test_a_broken_file_is_named(self, task, camera, tmp_path, content):
        path = self.break_one(camera, tmp_path / "data", content)
        with pytest.raises(BrokenSampleError, match=f"^{path}: ") as raised:
            batches(task(*self.small(tmp_path / "data")), "training", 20)
        assert "\n" not in str(raised.value)
        skipping = task(*self.small(tmp_path / "data", "task.on_bad_file=skip"))
        assert sum(len(batch.spikes) for batch in batches(skipping, "training", 20)) == 199

    @pytest.mark.parametrize(("key", "value"), [("last_batch", "full"), ("on_bad_file", "error")])
    def test_batches_are_whole_where_synapses_count_sequences(self, key, value):
        other = {"last_batch": "short", "on_bad_file": "skip"}[key]
        given = ("task=digits", "training=continuous", f"task.{key}={other}")
        with pytest.raises(ConfigError, match=rf"^task\.{key}={other}: must be {value} with training=continuous"):
            config(*given)
        config(*given, "training=data_parallel")

    def test_a_data_set_that_is_not_there(self):
        with pytest.raises(ConfigError) as raised:
            check_ready(config("experiment=neuromorphic_mnist", "engine=compiled"))
        message = str(raised.value)
        assert message.startswith("task.data=468j46mzdv-1: ")
        assert "1.4 GB" in message
        assert "task.data=simulated" in message

    def test_simulated_files_are_made_once(self, task, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        given = self.small("simulated", "task.simulated={training: 2, test: 1}")
        first = task(*given).batch_at(None, "training", 0)
        (folder,) = (tmp_path / "eprop-cli").iterdir()
        assert len(list(folder.glob("Train/*/*.bin"))) == 20
        monkeypatch.setattr("eprop_cli.tasks.neuromorphic_mnist.simulate", None)
        assert is_same(first, task(*given).batch_at(None, "training", 0))

    def test_validation_goes_on_where_the_test_left_off(self, task, camera):
        made, drawn = task(*self.small(camera)), dict.fromkeys(PHASES, 0)
        found = [made.draw(None, phase, drawn) for phase in ("validation", "early-stopping", "validation", "test")]
        expected = [made.batch_at(None, "test", index) for index in range(4)]
        assert all(is_same(*pair) for pair in zip(found, expected, strict=True))
        assert drawn == {"training": 0, "validation": 2, "early-stopping": 1, "test": 1}


class TestShd:
    @staticmethod
    def given(folder, *more):
        return ("experiment=shd", f"task.data={folder}", "neuron.n_ad=8", "task.n_batch=16", *BARE, *more)

    def test_files_in_the_layout_of_the_data_set(self, shd_files, tmp_path, watchers):
        ending = run(composed(*self.given(shd_files, "task.n_iter=4", "training.n_iter_validate_every=3")), tmp_path)
        assert ending.error is None
        metrics = Run(tmp_path).metrics
        assert metrics["phase"].tolist() == ["validation", *["training"] * 3, "validation", "training", "test"]
        assert Run(tmp_path).confusion["sequences"].sum() == 21

    def test_a_folder_without_them(self, tmp_path):
        with pytest.raises(ConfigError, match=r"^task\.data=.*: has no shd_train\.h5: the Spiking Heidelberg Digits"):
            check_ready(config(*self.given(tmp_path)))

    def test_a_file_that_is_none(self, shd_files, tmp_path):
        shutil.copytree(shd_files, tmp_path / "data")
        path = tmp_path / "data" / "shd_test.h5"
        path.write_bytes(path.read_bytes()[:2000])
        with pytest.raises(Exception, match=f"^{path}: not a file of the Spiking Heidelberg Digits"):
            check_ready(config(*self.given(tmp_path / "data")))


@pytest.mark.nest
@pytest.mark.usefixtures("nest_here")
def test_counts_weigh_as_often_and_leave_one_trace_in_both_engines(camera):
    # with 100 readouts, as many classes go through the same softmax
    settings = config(
        "task=neuromorphic_mnist", f"task.data={camera}", "training=data_parallel", "neuron.n_reg=6", "neuron.n_ad=6",
        "task.n_batch=2", "task.n_out=100", "task.validation=0.1", "task.last_batch=short",
        "task.steps.learning_window=100", *BARE,
    )  # fmt: skip
    rng = np.random.RandomState(1)
    weights, task = initial_weights(settings, rng), make_task(settings, rng)
    batch = task.batch_at(rng, "training", 0)
    task.close()
    batch = replace(batch, spikes=batch.spikes * rng.randint(1, 4, batch.spikes.shape).astype(np.uint8))
    outcomes = []
    for name in ("nest", "compiled"):
        engine = make_engine(config_with_engine(settings, name))
        outcomes.append(engine.gradient(weights, batch, None, False))
        engine.close()
    one, other = outcomes
    np.testing.assert_allclose(one.readout, other.readout, rtol=1e-12)
    assert one.n_spikes == other.n_spikes
    for projection, gradient in one.gradients.items():
        np.testing.assert_allclose(gradient, other.gradients[projection], rtol=1e-8, atol=1e-15)


def config_with_engine(settings, name):
    return replace(settings, engine=config(f"engine={name}", "training=data_parallel").engine)
