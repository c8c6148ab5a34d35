"""Tasks that read samples: sources of spikes and labels, split, shuffled in each epoch, in batches.

A task of this kind says what its sources are; which samples make up a batch follows from phase and index alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from eprop_cli.data import Filled, Loaded, Order, Samples, Shuffled, Source, split
from eprop_cli.data.events import Events, counts
from eprop_cli.data.samples import ON_BAD_FILE, varies
from eprop_cli.errors import require
from eprop_cli.phases import EARLY_STOPPING, TRAINING, VALIDATION
from eprop_cli.schema import NON_NEGATIVE, SEED, Rule, at_least, key, one_of
from eprop_cli.tasks.base import Task, TaskConfig
from eprop_cli.values import Batch, Window

STEPS = "time steps"
LAST_BATCH = ("short", "full")
MIB = 2**20


@dataclass(kw_only=True)
class Steps:
    """Durations in time steps."""

    sequence: int = key(at_least(1, STEPS))
    learning_window: int = key(at_least(1, STEPS))


@dataclass(kw_only=True)
class SamplesConfig(TaskConfig):
    """Keys of all tasks that read samples."""

    validation: float = key(Rule("from 0 to less than 1", lambda part: 0 <= part < 1))
    split_seed: int = key(SEED)
    whole_split: bool
    last_batch: str = key(one_of(LAST_BATCH))
    on_bad_file: str = key(one_of(ON_BAD_FILE))
    cache: float = key(NON_NEGATIVE, unit="MiB")
    steps: Steps

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_window("task.steps.learning_window")

    @property
    def sequence_steps(self) -> int:
        """Time steps of a sample."""
        return self.steps.sequence

    @property
    def learning_window_steps(self) -> int:
        """Time steps at the end of a sample in which it is to be told what it is."""
        return self.steps.learning_window

    @property
    def evaluates_splits(self) -> bool:
        """As task.whole_split says."""
        return self.whole_split

    @property
    def short_batches(self) -> dict[str, str]:
        """What is left over of an epoch, and what is left of a batch once broken samples have been skipped."""
        ruled_out = {"last_batch": "full", "on_bad_file": "error"}
        return {name: value for name, value in ruled_out.items() if getattr(self, name) != value}


class SampleTask(Task):
    """A task whose batches are samples of a data set; the target is the sample's class.

    A subclass gives sources(), and may say encoded() and orders() in its own way.
    """

    Config: ClassVar[type[SamplesConfig]] = SamplesConfig
    losses = ("cross_entropy", "mean_squared_error")
    has_classes = True
    has_epochs = True
    config: SamplesConfig
    _samples: Samples

    def sources(self) -> Mapping[str, Source]:
        """Where the samples of training and test come from, by phase; validation too, if it has a source of its own.

        Of the others the part task.validation of the training samples is set apart.
        """
        raise NotImplementedError

    def orders(self, sources: Mapping[str, Source], rng: np.random.RandomState) -> Mapping[str, Order]:
        """Which samples of each phase's source make up its batches."""
        c, seed = self.config, int(rng.randint(2**31 - 1))
        other = Shuffled if c.whole_split or c.last_batch == "short" else Filled
        training = Shuffled if c.last_batch == "short" else Filled
        return {
            phase: training(len(source), c.n_batch, seed, varies(source))
            if phase == TRAINING
            else other(len(source), c.n_batch)
            for phase, source in sources.items()
        }

    def varied(self, training: Source, rng: np.random.RandomState) -> Source:
        """The samples of training as they are presented, which may vary from epoch to epoch."""
        return training

    def raster(self, events: tuple[Events, ...]) -> NDArray[np.uint8]:
        """Spike counts of a batch, uint8 (n_batch, n_steps, n_in); what comes after a sample's end is left out."""
        n_steps, n_in = self.config.sequence_steps, self.config.n_in
        return counts([each.before(n_steps) for each in events], n_steps, n_in)

    def prepare(self, rng: np.random.RandomState) -> None:
        """Open the data, and draw the order in which training goes through them."""
        c, sources = self.config, dict(self.sources())
        for phase, source in sources.items():
            check_source(c, source, phase)
        if VALIDATION not in sources and c.validation > 0:
            remedy = f"must leave some of the {len(sources[TRAINING])} training samples on either side"
            n_apart = round(c.validation * len(sources[TRAINING]))
            require(0 < n_apart < len(sources[TRAINING]), "task.validation", c.validation, remedy)
            sources[VALIDATION], sources[TRAINING] = split(sources[TRAINING], (c.validation,), c.split_seed)
        sources[TRAINING] = self.varied(sources[TRAINING], rng)
        if VALIDATION in sources:
            sources[EARLY_STOPPING] = sources[VALIDATION]
        self._samples = Samples(sources, self.orders(sources, rng), c.on_bad_file, int(c.cache * MIB))

    def batch_at(self, rng: np.random.RandomState, phase: str, index: int) -> Batch:
        """The batch number index, from 0, of a phase."""
        remedy = "sets no samples apart to validate on; set it to e.g. 0.1"
        require(phase in self._samples.sources, "task.validation", self.config.validation, remedy)
        return self.encoded(self._samples.load(phase, index))

    def encoded(self, loaded: Loaded) -> Batch:
        """A batch of samples as spikes and targets: 1 for the readout of the class, 0 for the others."""
        c, n_batch = self.config, len(loaded.labels)
        targets = np.eye(c.n_out)[:, loaded.labels]
        window = Window("learning window", c.sequence_steps - c.learning_window_steps, c.sequence_steps)
        shape = (c.n_out, n_batch, c.sequence_steps)
        return Batch(self.raster(loaded.events), np.broadcast_to(targets[:, :, None], shape), ((window,),) * n_batch)

    def n_batches(self, phase: str) -> int:
        """Batches that an evaluation takes: those of the whole split, or one."""
        orders = self._samples.orders
        return orders[phase].n_batches if self.config.whole_split and phase in orders else 1

    def epochs(self, n_batches: int) -> float:
        """Epochs of training after a number of batches."""
        return self._samples.orders[TRAINING].epochs(n_batches)

    def close(self) -> None:
        """End the thread that reads."""
        self._samples.close()


def check_source(config: SamplesConfig, source: Source, phase: str) -> None:
    """Raise ConfigError where the config does not fit a source."""
    require(len(source) > 0, "task.data", phase, "has no samples")
    require(config.n_in == source.n_in, "task.n_in", config.n_in, f"must be {source.n_in}, as the data have it")
    classes = f"must be at least {source.n_classes}, one readout for each class"
    require(config.n_out >= source.n_classes, "task.n_out", config.n_out, classes)
    steps = f"must be {source.n_steps}, as the data have it"
    require(config.sequence_steps == source.n_steps, "task.steps.sequence", config.sequence_steps, steps)
