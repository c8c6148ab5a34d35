import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small import BARE, SMALL, config

from eprop_cli.errors import ConfigError, UserError
from eprop_cli.tasks.base import CheckedTask, TaskConfig, task_class
from eprop_cli.tasks.evidence_accumulation import DRAWS, EvidenceAccumulation
from eprop_cli.training.base import initial_weights, make_task, make_trainer
from eprop_cli.values import Window

however_drawn = pytest.mark.parametrize("draws", [f"task.input_draws={name}" for name in DRAWS])
OWN_TASK = Path(__file__).resolve().parent.parent / "docs" / "own_task"


def draw(*overrides, seed=1, batches=1):
    """Batches of evidence accumulation, and the config they come from."""
    given = config(*overrides).task
    rng, task = np.random.RandomState(seed), CheckedTask(given)
    drawn = [task.batch_at(rng, "training", index) for index in range(batches)]
    return (drawn[0] if batches == 1 else drawn), given


def loops(task, rng):
    """Spikes and winners as the tutorial draws them: from the global generator's functions, in nested loops."""
    size = task.n_in // task.n_input_symbols
    favoured = rng.choice([0, 1], task.n_batch)
    choices = np.array([task.prob_group, 1 - task.prob_group], dtype=np.float32)
    cues = []
    for side in favoured:
        p = np.array([choices[side], choices[1 - side]], dtype=np.float32)
        cues.append(rng.choice([0, 1], task.n_cues, p=p))
    probability = np.zeros((task.n_batch, task.sequence_steps, task.n_in))
    for b in range(task.n_batch):
        time = 0
        for cue in cues[b]:
            time += task.steps.spacing
            for step in range(time, time + task.steps.cue):
                for neuron in range(size):
                    probability[b, step, cue * size + neuron] = task.input_spike_prob
            time += task.steps.cue
        for step in range(task.sequence_steps - task.steps.recall, task.sequence_steps):
            probability[b, step, 2 * size : 3 * size] = task.input_spike_prob
        probability[b, :, 3 * size :] = task.input_spike_prob / 4.0
    spikes = probability > rng.rand(*probability.shape)
    spikes[:, 0] = False
    return spikes, [int(sum(sequence) > task.n_cues / 2) for sequence in cues]


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["task.n_batch=3"],
        [*SMALL, "task.n_batch=5"],
        [*SMALL, "task.n_in=12", "task.n_input_symbols=6", "task.n_batch=2"],
        [*SMALL, "task.steps.spacing=4", "task.n_cues=1", "task.prob_group=0.1", "task.n_batch=4"],
        [*SMALL, "task.steps.bg_noise=0", "task.prob_group=0.5", "task.steps.learning_window=7", "task.n_batch=2"],
    ],
    ids=lambda overrides: " ".join(overrides[len(SMALL) :] if len(overrides) > 1 else overrides),
)
@pytest.mark.parametrize("seed", [1, 5, 1234])
def test_draws_are_the_tutorials(overrides, seed):
    batches, task = draw(*overrides, seed=seed, batches=2)
    rng = np.random.RandomState(seed)
    for batch in batches:
        spikes, winners = loops(task, rng)
        np.testing.assert_array_equal(batch.spikes, spikes)
        np.testing.assert_array_equal(batch.targets.argmax(axis=0)[:, 0], winners)


def test_shapes_and_types():
    batch, task = draw("task.n_batch=3")
    assert (batch.spikes.shape, batch.spikes.dtype) == ((3, 2250, 40), bool)
    assert (batch.targets.shape, batch.targets.dtype) == ((2, 3, 2250), np.float64)
    assert len(batch.windows) == 3
    assert task.sequence_steps == 2250
    assert task.learning_window_steps == 150


def test_a_target_is_one_for_the_winner_all_along():
    batch, _ = draw(*SMALL, "task.n_batch=20")
    np.testing.assert_array_equal(batch.targets.sum(axis=0), 1.0)
    np.testing.assert_array_equal(batch.targets, np.repeat(batch.targets[:, :, :1], 100, axis=2))
    assert set(np.unique(batch.targets)) == {0.0, 1.0}


def cues_of(batch):
    """Side of each cue, from the windows: 0 left, 1 right."""
    sides = {"left cue": 0, "right cue": 1}
    return np.array([[sides[window.kind] for window in shown if window.kind in sides] for shown in batch.windows])


def test_the_winner_is_the_side_with_more_cues():
    batch, _ = draw(*SMALL, "task.n_cues=5", "task.n_batch=50", "task.prob_group=0.5")
    cues = cues_of(batch)
    assert set(cues.sum(axis=1)) >= {1, 2, 3, 4}  # close and clear decisions
    np.testing.assert_array_equal(batch.targets[1, :, 0] == 1, cues.sum(axis=1) >= 3)


@however_drawn
def test_certain_spikes_are_where_the_windows_say(draws):
    batch, task = draw(*SMALL, draws, "task.steps.spacing=5", "task.input_spike_prob=1", "task.n_batch=4")
    size = 2
    for spikes, cues in zip(batch.spikes, cues_of(batch), strict=True):
        expected = np.zeros((task.sequence_steps, 8), dtype=bool)
        for index, side in enumerate(cues):
            start = 5 + index * 20
            expected[start : start + 15, side * size : (side + 1) * size] = True
        expected[-30:, 2 * size : 3 * size] = True
        np.testing.assert_array_equal(spikes[:, : 3 * size], expected[:, : 3 * size])


@however_drawn
def test_the_first_step_of_a_sequence_is_silent(draws):
    batch, _ = draw(*SMALL, draws, "task.input_spike_prob=1", "task.n_batch=10")
    assert not batch.spikes[:, 0].any()
    assert batch.spikes[:, 1].any(axis=1).all()  # the first cue


@however_drawn
def test_nothing_fires_at_probability_zero(draws):
    batch, _ = draw(*SMALL, draws, "task.input_spike_prob=0", "task.n_batch=10")
    assert not batch.spikes.any()


def within(count, n, p, deviations=5):
    return abs(count - n * p) <= deviations * np.sqrt(n * p * (1 - p))


@however_drawn
def test_each_group_fires_at_its_rate_in_its_windows(draws):
    batch, _ = draw(draws, "task.n_batch=40")
    groups = batch.spikes.reshape(40, 2250, 4, 10)
    in_cue = np.zeros((40, 2250, 2), dtype=bool)
    for sequence, cues in enumerate(cues_of(batch)):
        for index, side in enumerate(cues):
            start = index * 150 + 50
            in_cue[sequence, start : start + 100, side] = True
    recall, noise = groups[:, -150:, 2], groups[:, 1:, 3]
    assert within(groups[:, :, :2][in_cue].sum(), 40 * 7 * 100 * 10, 0.04)
    assert not groups[:, :, :2][~in_cue].any()
    assert within(recall.sum(), recall.size, 0.04)
    assert not groups[:, :-150, 2].any()
    assert within(noise.sum(), noise.size, 0.01)
    for neurons, p in ((recall, 0.04), (noise, 0.01)):  # one step knows nothing of the next
        assert within((neurons[:, 1:] & neurons[:, :-1]).sum(), neurons[:, 1:].size, p**2)
    for neurons in (recall, noise):  # no neuron is favoured
        counts = neurons.sum(axis=(0, 1))
        n, p = neurons.size / 10, neurons.mean()
        assert all(within(count, n, p) for count in counts)


@pytest.mark.parametrize("p", [1e-300, 1e-12])
def test_a_spike_may_be_as_unlikely_as_it_likes(p):
    batch, _ = draw(*SMALL, "task.input_draws=per_spike", f"task.input_spike_prob={p}")
    assert not batch.spikes.any()


# Number of right cues of a sequence: half the time Binomial(n_cues, p), half Binomial(n_cues, 1 - p).
@pytest.mark.parametrize("p", [0.1, 0.3, 0.5])
def test_cues_favour_one_side_and_each_equally_often(p):
    n, n_cues = 4000, 7
    batch, _ = draw(*SMALL, f"task.prob_group={p}", "task.n_cues=7", "task.steps.cue=1", f"task.n_batch={n}")
    right = cues_of(batch).sum(axis=1)
    variance = n_cues * p * (1 - p) + n_cues**2 * (0.5 - p) ** 2
    assert abs(right.mean() - n_cues / 2) < 5 * np.sqrt(variance / n)
    assert abs(right.var() - variance) < 0.1 * variance  # the spread of a variance estimate is 2 to 3 %
    assert within((right > n_cues / 2).sum(), n, 0.5)


def test_without_chance_all_cues_are_on_one_side():
    batch, _ = draw(*SMALL, "task.prob_group=0", "task.n_batch=100")
    right = cues_of(batch).sum(axis=1)
    assert set(right) == {0, 3}


def test_windows():
    batch, _ = draw("task.n_cues=3", "task.prob_group=0", "task.steps.learning_window=60")
    side = "right cue" if batch.targets[1, 0, 0] else "left cue"
    assert batch.windows == (
        (
            Window(side, 50, 150),
            Window(side, 200, 300),
            Window(side, 350, 450),
            Window("recall", 1500, 1650),
            Window("learning window", 1590, 1650),
        ),
    )


def test_a_batch_goes_on_where_the_one_before_left_the_generator():
    (first, second), _ = draw(*SMALL, batches=2)
    again, _ = draw(*SMALL)
    np.testing.assert_array_equal(first.spikes, again.spikes)
    assert (second.spikes != first.spikes).any()


def test_tasks_by_name():
    assert task_class("evidence_accumulation") is EvidenceAccumulation
    assert task_class("eprop_cli.tasks.evidence_accumulation:EvidenceAccumulation") is EvidenceAccumulation


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "evidence",
            "must be one of evidence_accumulation, sine_waves, lemniscate, handwriting, digits, shd, "
            "neuromorphic_mnist, or module:Class",
        ),
        ("no_such_module:Task", "cannot be imported.*no_such_module"),
        ("eprop_cli.tasks.base:NoSuchTask", "cannot be imported.*NoSuchTask"),
        ("pathlib:Path", ".*module:Class with a Config"),
    ],
)
def test_a_name_without_a_task_is_refused(name, reason):
    with pytest.raises(ConfigError, match=f"^task.name={name}: {reason}"):
        task_class(name)


@pytest.fixture
def own_task(tmp_path, monkeypatch):
    """The documentation's example of a task of one's own, in the working directory."""
    shutil.copytree(OWN_TASK, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "outputs"))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("sine_wave", None)


@pytest.mark.nest
@pytest.mark.parametrize("training", ["continuous", "data_parallel"])
def test_the_documented_task_of_ones_own_learns(own_task, eprop_run, training):
    overrides = ["task=sine_wave", "neuron.out.loss=mean_squared_error", "synapse.average_gradient=false"]
    overrides += [f"training={training}", "task.n_iter=10", "plots=none", "hydra.run.dir=run"]
    done = eprop_run("--config-dir", "conf", *overrides)
    assert done.returncode == 0, done.stderr
    rows = [line.split(",") for line in (own_task / "run" / "metrics.csv").read_text().splitlines()]
    losses = [float(row[2]) for row in rows if row[1] == "training"]
    assert len(losses) == 10
    assert losses[-1] < 0.9 * losses[0]
    assert "accuracy" not in rows[0]  # no classes
    assert not {"nan", "inf"}.intersection(cell for row in rows for cell in row)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spikes": lambda batch: batch.spikes[:, :50]}, "spikes must be bool (2, 100, 8), but are bool (2, 50, 8)"),
        ({"spikes": lambda batch: batch.spikes * 0.3}, "spikes must be bool (2, 100, 8), but are float64 (2, 100, 8)"),
        (
            {"targets": lambda batch: batch.targets[:1]},
            "targets must be float64 (2, 2, 100), but are float64 (1, 2, 100)",
        ),
        ({"targets": lambda batch: batch.targets * np.nan}, "targets must be finite"),
        (
            {"targets": lambda batch: batch.targets * 2},
            "targets of cross_entropy must be probabilities that add up to 1 over the readouts; or set "
            "neuron.out.loss=mean_squared_error",
        ),
        (
            {"targets": lambda batch: batch.targets * 3 - 1},
            "targets of cross_entropy must be probabilities that add up to 1 over the readouts; or set "
            "neuron.out.loss=mean_squared_error",
        ),
        ({"windows": lambda batch: None}, "windows must have an entry for each of the 2 sequences"),
    ],
)
def test_a_batch_that_is_not_one_is_refused(change, message, monkeypatch):
    draws = EvidenceAccumulation.batch

    def changed(self, rng):
        batch = draws(self, rng)
        return replace(batch, **{name: alter(batch) for name, alter in change.items()})

    monkeypatch.setattr(EvidenceAccumulation, "batch", changed)
    task = make_task(config(*SMALL, "task.n_batch=2"), np.random.RandomState(1))
    with pytest.raises(UserError) as error:
        task.batch_at(np.random.RandomState(1), "training", 0)
    assert str(error.value) == f"task.name=evidence_accumulation: {message}"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("class Mine:\n  x = (", "SyntaxError: '(' was never closed (broken.py, line 2)"),
        ("raise RuntimeError('not today')", "RuntimeError: not today"),
        ("raise SystemExit(0)", "SystemExit: 0"),
    ],
)
def test_a_module_that_cannot_be_imported_is_refused(text, why, tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    with pytest.raises(ConfigError) as error:
        task_class("broken:Mine")
    assert str(error.value) == f"task.name=broken:Mine: cannot be imported ({why})"


def test_spikes_that_a_reset_would_lose_are_taken_out(monkeypatch):
    draws, rng = EvidenceAccumulation.batch, np.random.RandomState(1)

    def always(self, rng):
        batch = draws(self, rng)
        return replace(batch, spikes=np.ones_like(batch.spikes))

    monkeypatch.setattr(EvidenceAccumulation, "batch", always)
    for resets in (True, False):
        spikes = CheckedTask(config(*SMALL).task, resets=resets).batch_at(rng, "training", 0).spikes
        assert spikes[:, 0].any() != resets
        assert spikes[:, 1:].all()


# A task and its loss


def test_a_loss_that_needs_no_probabilities_takes_any_targets(monkeypatch):
    draws = EvidenceAccumulation.batch
    monkeypatch.setattr(
        EvidenceAccumulation,
        "batch",
        lambda self, rng: replace(batch := draws(self, rng), targets=batch.targets * 3 - 1),
    )
    task = make_task(config(*SMALL, "neuron.out.loss=mean_squared_error"), np.random.RandomState(1))
    assert task.batch_at(np.random.RandomState(1), "training", 0).targets.min() == -1.0


def test_targets_outside_the_learning_window_need_not_be_probabilities(monkeypatch):
    draws = EvidenceAccumulation.batch

    def changed(self, rng):
        batch = draws(self, rng)
        targets = batch.targets.copy()
        targets[:, :, :-30] = 0.0
        return replace(batch, targets=targets)

    monkeypatch.setattr(EvidenceAccumulation, "batch", changed)
    rng = np.random.RandomState(1)
    batch = make_task(config(*SMALL), rng).batch_at(rng, "training", 0)
    assert not batch.targets[:, :, 0].any()


class Regression(EvidenceAccumulation):
    """A task whose own loss is another than the first of all, and that has no classes."""

    losses = ("mean_squared_error",)
    has_classes = False


def test_the_loss_is_the_tasks_own_unless_another_is_named():
    assert config().neuron.out.loss == "cross_entropy"
    assert config("neuron.out.loss=mean_squared_error").neuron.out.loss == "mean_squared_error"
    given = config(*SMALL, "task.name=test_tasks:Regression")
    assert given.neuron.out.loss == "mean_squared_error"
    assert [column.name for column in given.columns[:3]] == ["loss", "loss_0", "loss_1"]
    assert given.training.stop_metric == "loss"
    assert given.model.parameters("out")["loss"] == "mean_squared_error"


def test_a_loss_that_does_not_fit_the_task_is_refused():
    with pytest.raises(ConfigError) as error:
        config(*SMALL, "task.name=test_tasks:Regression", "neuron.out.loss=cross_entropy")
    line = "does not fit task=test_tasks:Regression, which has mean_squared_error"
    assert str(error.value) == f"neuron.out.loss=cross_entropy: {line}"


def test_a_task_of_classes_has_them_with_any_loss():
    for loss in ("cross_entropy", "mean_squared_error"):
        given = config(*SMALL, f"neuron.out.loss={loss}")
        assert given.has_classes
        assert given.training.stop_metric == "recall_error"
        assert [column.name for column in given.columns[:3]] == ["loss", "accuracy", "recall_error"]


class Placed(EvidenceAccumulation):
    """A task that draws once for all, and knows the place of a batch."""

    def prepare(self, rng):
        self.kept = rng.random_sample()
        self.asked = []

    def batch_at(self, rng, phase, index):
        self.asked.append((phase, index))
        return super().batch_at(rng, phase, index)


def test_a_task_learns_the_phase_and_number_of_each_batch():
    given = [*SMALL, *BARE, "task.name=test_tasks:Placed", "training=data_parallel", "engine=compiled"]
    given += ["training.do_early_stopping=true", "training.n_iter_validate_every=1", "training.n_iter_test=2"]
    trainer = make_trainer(config(*given, "training.stop_crit=0", "task.n_iter=2"))
    rows = [record.row for record in trainer.records()]
    trainer.close()
    assert [row.phase for row in rows] == ["validation", "training", "validation", "training", "test", "test"]
    # the second of training is drawn while the first is computed
    expected = [("validation", 0), ("training", 0), ("training", 1), ("validation", 1), ("test", 0), ("test", 1)]
    assert trainer._task._task.asked == expected
    assert trainer._task._task.kept == _after_weights()


def _after_weights():
    """The training stream's next number after the initial weights."""
    rng = np.random.RandomState(1)
    initial_weights(config(*SMALL), rng)
    return rng.random_sample()


def test_every_task_has_its_keys():
    with pytest.raises(ConfigError, match=r"^task\.n_batch=0: must be at least 1$"):
        TaskConfig(name="any", n_iter=1, n_batch=0, n_in=1, n_out=1)
