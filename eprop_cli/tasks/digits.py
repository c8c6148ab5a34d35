"""Digits: which of ten handwritten digits was shown? Real data that need no download (data/digits.py)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eprop_cli.data import Part, Source
from eprop_cli.data.digits import ENCODINGS, Digits, Encoding, Shifted, parts
from eprop_cli.phases import TEST, TRAINING, VALIDATION
from eprop_cli.schema import NON_NEGATIVE, SEED, Rule, at_least, key, one_of
from eprop_cli.tasks.samples import SamplesConfig, SampleTask


@dataclass(kw_only=True)
class EncodingConfig:
    """How brightness becomes spikes."""

    kind: str = key(one_of(ENCODINGS))
    start: int = key(at_least(0, "time steps"))
    rate: float = key(Rule("above 0, at most 1 spike per step", lambda rate: 0 < rate <= 1))
    seed: int = key(SEED)
    darkness: bool


@dataclass(kw_only=True)
class DigitsConfig(SamplesConfig):
    """Keys of conf/task/digits.yaml."""

    encoding: EncodingConfig
    shift: float = key(NON_NEGATIVE, unit="pixels")

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.made_encoding

    @property
    def made_encoding(self) -> Encoding:
        """The encoding, with the length of a sample; raises ConfigError where there is no room for spikes."""
        c, n_steps = self.encoding, self.steps.sequence
        return Encoding(c.kind, n_steps, c.start, n_steps, c.rate, c.seed, c.darkness)


class DigitsTask(SampleTask):
    """Spike latencies or rates of pixels in, a readout per digit."""

    Config = DigitsConfig
    config: DigitsConfig

    def sources(self) -> Mapping[str, Source]:
        """The digits that are not of the test are for training."""
        found = parts(self.config.made_encoding)
        rest = np.sort(np.concatenate([found[TRAINING].indices, found[VALIDATION].indices]))
        return {TRAINING: Part(Digits(self.config.made_encoding), rest), TEST: found[TEST]}

    def varied(self, training: Source, rng: np.random.RandomState) -> Source:
        """Images are shifted, where task.shift says so."""
        c, indices = self.config, digits_of(training)
        if not c.shift:
            return training
        return Shifted(Digits(c.made_encoding), indices, c.shift, int(rng.randint(2**31 - 1)))


def digits_of(source: Source) -> NDArray[np.int64]:
    """Which digits a part of them holds, or a part of a part, int (n,)."""
    if isinstance(source, Part):
        return digits_of(source.source)[source.indices]
    return np.arange(len(source))
