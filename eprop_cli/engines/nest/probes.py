"""Recorders that are read out and emptied again and again."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eprop_cli.config.config import Config
from eprop_cli.schema import TIC
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


def make_probes(nest: Any, config: Config, nrns: Mapping[str, Any], dynamics: bool, plastic: bool) -> dict[str, Probe]:
    """Create the recorders. What happens in step 0 of the task is stamped with the population's offset.

    nrns: "in", the recurrent populations in their order, "out".
    """
    recording, timing, model = config.recording, config.timing, config.model
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
        signals = list(model.readout_recordables)
    readouts = {"interval": timing.resolution, "record_from": signals}
    probes["out"] = Probe(nest.Create("multimeter", readouts), offsets["out"])
    if dynamics and recording.spikes:
        probes["spikes_in"] = Probe(nest.Create("spike_recorder"), offsets["in"])
    if dynamics and recording.n_record:
        for population in model.populations:
            # Recording begins with step 0 and goes on at the interval from there.
            multimeter: dict[str, Any] = {
                "interval": recording.interval,
                "offset": timing.ms(timing.steps(offsets["rec"]) % timing.steps(recording.interval)),
                "record_from": list(population.recordables),
            }
            probes[population.name] = Probe(nest.Create("multimeter", multimeter), offsets["rec"])
    if dynamics and plastic and recording.n_record_w:
        ids, n = ids_of(nrns), recording.n_record_w
        senders, targets = [*ids["in"][:n], *ids["rec"][:n]], [*ids["rec"][:n], *ids["out"]]
        # By ids: NEST does not add to a part of two populations.
        ends = {"senders": nest.NodeCollection(senders), "targets": nest.NodeCollection(targets)}
        probes["weights"] = Probe(nest.Create("weight_recorder", ends), offsets["out"])
    return probes


def ids_of(nrns: Mapping[str, Any]) -> dict[str, range]:
    """NEST ids of the populations and of "rec", all recurrent ones together, which were created one after another."""
    ids = {}
    for population, nodes in nrns.items():
        first = nodes[0].global_id
        ids[population] = range(first, first + len(nodes))
    recurrent = [ids[population] for population in nrns if population not in ("in", "out")]
    return ids | {"rec": range(recurrent[0].start, recurrent[-1].stop)}
