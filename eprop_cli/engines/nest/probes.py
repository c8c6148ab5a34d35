"""Recorders that are read out and emptied again and again."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eprop_cli.config.config import Config
from eprop_cli.models.bsshslm_2020 import RECORDABLES
from eprop_cli.schema import TIC
from eprop_cli.timing import Timing
from eprop_cli.values import Table


@dataclass
class Probe:
    """A recorder that is read out and emptied again and again, so that its memory stays flat.

    offset: time (ms) that the recorder's population lags the task by: what happens in step 0 is stamped offset.
    """

    recorder: Any
    offset: float
    _kept: Table = field(default_factory=dict)

    def drain(self, until: float) -> Table:
        """Take all events of the task's time from 0 to before until (ms); later ones are kept for the next call."""
        events = dict(self.recorder.events)
        self.recorder.n_events = 0
        events["times"] = events["times"] - self.offset
        if self._kept:
            events = {key: np.concatenate([self._kept[key], events[key]]) for key in events}
        begun = events["times"] > -TIC / 2  # what populations do before the first sequence reaches them is left out
        past = events["times"] > until - TIC / 2
        self._kept = {key: values[past] for key, values in events.items()}
        return {key: values[begun & ~past] for key, values in events.items()}


def ids_of(nrns: Mapping[str, Any]) -> dict[str, range]:
    """NEST numbers nodes in the order of their creation: "ad" follows "reg", and both together are "rec"."""
    ids = {}
    for population, nodes in nrns.items():
        first = nodes[0].global_id if len(nodes) else 0
        ids[population] = range(first, first + len(nodes))
    recurrent = [ids[population] for population in ("reg", "ad") if ids[population]]
    return ids | {"rec": range(recurrent[0].start, recurrent[-1].stop)}


def make_probes(
    nest: Any, config: Config, nrns: Mapping[str, Any], timing: Timing, dynamics: bool, plastic: bool
) -> dict[str, Probe]:
    """Create the recorders. What happens in step 0 of the task is stamped with the population's offset."""
    recording = config.recording
    input_offset = timing.ms(timing.offset_gen + timing.delay_in_rec)
    offsets = {
        "in": input_offset,
        "rec": input_offset + timing.ms(timing.delay_in_rec),
        # The softmax takes a step more than the membrane potential that a network without learning records.
        "out": timing.ms(timing.total_offset + plastic),
    }
    probes = {"spikes": Probe(nest.Create("spike_recorder"), offsets["rec"])}
    signals = ["readout_signal" if plastic else "V_m"]
    if dynamics and recording.readout:
        signals = list(RECORDABLES["out"])
    readouts = {"interval": timing.resolution, "record_from": signals}
    probes["out"] = Probe(nest.Create("multimeter", readouts), offsets["out"])
    if dynamics and recording.spikes:
        probes["spikes_in"] = Probe(nest.Create("spike_recorder"), offsets["in"])
    if dynamics and recording.n_record:
        for population in ("reg", "ad"):
            if len(nrns[population]):
                # Recording begins with step 0 and goes on at the interval from there.
                interval, signals = recording.interval, list(RECORDABLES[population])
                multimeter: dict[str, Any] = {
                    "interval": interval,
                    "offset": timing.ms(timing.steps(offsets["rec"]) % timing.steps(interval)),
                    "record_from": signals,
                }
                probes[population] = Probe(nest.Create("multimeter", multimeter), offsets["rec"])
    if dynamics and plastic and recording.n_record_w:
        ids, n = ids_of(nrns), recording.n_record_w
        senders, targets = [*ids["in"][:n], *ids["rec"][:n]], [*ids["rec"][:n], *ids["out"]]
        # By ids: NEST does not add to a part of two populations.
        ends = {"senders": nest.NodeCollection(senders), "targets": nest.NodeCollection(targets)}
        probes["weights"] = Probe(nest.Create("weight_recorder", ends), offsets["out"])
    return probes
