"""Neuromorphic MNIST as NEST's script presents it: groups of recordings of an event camera, one after another.

eprop_supervised_classification_neuromorphic_mnist.py goes through one permutation of each set again and again, and
takes what it validates on from the test set, wherever the test has got to.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eprop_cli.data import Events, Order, Source, Wrapped
from eprop_cli.data.camera import simulate
from eprop_cli.data.events import counts, join
from eprop_cli.data.neuromorphic_mnist import FOLDERS, NeuromorphicMnist
from eprop_cli.phases import EARLY_STOPPING, TEST, TRAINING, VALIDATION
from eprop_cli.schema import at_least, key
from eprop_cli.tasks.paths import locate
from eprop_cli.tasks.samples import SamplesConfig, SampleTask

SIMULATED = "simulated"


@dataclass(kw_only=True)
class SimulatedFiles:
    """How many files of each class a simulated camera writes."""

    training: int = key(at_least(1))
    test: int = key(at_least(1))


@dataclass(kw_only=True)
class NeuromorphicMnistConfig(SamplesConfig):
    """Keys of conf/task/neuromorphic_mnist.yaml."""

    data: str
    simulated: SimulatedFiles


class NeuromorphicMnistTask(SampleTask):
    """Pixels that see something in, a readout for each digit."""

    Config = NeuromorphicMnistConfig
    config: NeuromorphicMnistConfig

    @property
    def together(self) -> tuple[str, ...]:
        """What takes its groups from the test set, unless training samples are set apart to validate on."""
        return () if self.config.validation else (VALIDATION, EARLY_STOPPING, TEST)

    @property
    def folder(self) -> Path:
        """Where the folders Train and Test are."""
        counts = self.config.simulated
        return simulated(counts.training, counts.test) if self.config.data == SIMULATED else locate(self.config.data)

    def sources(self) -> Mapping[str, Source]:
        """The folders Train and Test."""
        c = self.config
        folder = self.folder
        training, test = (NeuromorphicMnist(folder / FOLDERS[each], c.steps.sequence) for each in (TRAINING, TEST))
        return {TRAINING: training, TEST: test} | ({} if c.validation else {VALIDATION: test})

    def orders(self, sources: Mapping[str, Source], rng: np.random.RandomState) -> Mapping[str, Order]:
        """One permutation of each set, in the script's order of draws."""
        if self.config.validation:
            return super().orders(sources, rng)
        training, test = (
            Wrapped(rng.permutation(len(sources[each])), self.config.n_batch) for each in (TRAINING, TEST)
        )
        return {phase: training if phase == TRAINING else test for phase in sources}

    def raster(self, events: tuple[Events, ...]) -> NDArray[np.uint8]:
        """Spike counts; an event at the very end of a sample comes in the first step of the next, as in the script."""
        n_steps, n_in, n = self.config.sequence_steps, self.config.n_in, len(events)
        return counts([join(events, n_steps)], n * n_steps, n_in).reshape(n, n_steps, n_in)


def simulated(n_training: int, n_test: int) -> Path:
    """A folder of files of a simulated camera, made where there is none yet; numbers are per class."""
    place = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "eprop-cli")
    folder = place / f"neuromorphic_mnist_simulated_{n_training}_{n_test}"
    if not folder.exists():
        place.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=place))
        try:
            simulate(unfinished, n_training, n_test)
            unfinished.rename(folder)
        except OSError:
            if not folder.exists():  # else another process was first
                raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return folder
