"""Spiking Heidelberg Digits: which of twenty spoken digits was it? (data/shd.py)."""

from collections.abc import Mapping
from dataclasses import dataclass

from eprop_cli.data import Source
from eprop_cli.data.shd import FILES, SpikingHeidelbergDigits
from eprop_cli.phases import TEST, TRAINING
from eprop_cli.schema import POSITIVE, key
from eprop_cli.tasks.paths import locate
from eprop_cli.tasks.samples import SamplesConfig, SampleTask


@dataclass(kw_only=True)
class ShdConfig(SamplesConfig):
    """Keys of conf/task/shd.yaml."""

    data: str
    bin: float = key(POSITIVE, unit="ms")


class Shd(SampleTask):
    """700 channels of a model of the cochlea in, a readout for each spoken digit, English and German."""

    Config = ShdConfig
    config: ShdConfig

    def sources(self) -> Mapping[str, Source]:
        """A file each; what comes after the end of the sequence is left out."""
        c = self.config
        folder = locate(c.data)
        n_steps = c.steps.sequence
        return {phase: SpikingHeidelbergDigits(folder / FILES[phase], c.bin, n_steps) for phase in (TRAINING, TEST)}
