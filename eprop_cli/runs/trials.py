"""search.json: the trials of a search, by which it is resumed and drawn, and its runs are judged while they train."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from eprop_cli.columns import HIGHER, LOWER
from eprop_cli.errors import UserError
from eprop_cli.runs.files import COMPLETED, FAILED, PRUNED, RUNNING, write_text

TRIALS = "search.json"
FORMAT = 1
DIRECTIONS = {LOWER: "minimize", HIGHER: "maximize"}
STATUSES = (RUNNING, COMPLETED, PRUNED, FAILED)
FINISHED = (COMPLETED, PRUNED)  # what is not run again


@dataclass(frozen=True)
class Trial:
    """A run that a search suggested.

    params: the values suggested, by key. batch: trials with the same number were suggested together. run: its directory
    within the sweep's. status: RUNNING until its batch has ended. value: its objective; None unless it is COMPLETED.
    values: [iteration, objective so far], as the pruner saw them. attributes: what the pruner keeps of it.
    """

    params: dict[str, Any]
    batch: int
    run: str
    status: str = RUNNING
    value: float | None = None
    values: list[tuple[int, float]] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SearchRecord:
    """What search.json holds.

    begun: stamp of the multirun that began the search. objective, direction ("minimize" or "maximize"): what is best.
    space: Optuna's distributions, as plain values, by key. trials: in the order in which they were suggested. earlier:
    trials of the stored study that were there before.
    """

    begun: str
    objective: str
    direction: str
    space: dict[str, Any]
    trials: list[Trial]
    earlier: list[Trial]

    @property
    def best(self) -> int | None:
        """Which of the trials is the best; None if none is COMPLETED. Of equals the first."""
        sign = -1.0 if self.direction == DIRECTIONS[HIGHER] else 1.0
        values = {index: sign * trial.value for index, trial in enumerate(self.trials) if trial.value is not None}
        return min(values, key=lambda index: values[index]) if values else None

    def write(self, directory: Path) -> None:
        """Leave it in a sweep directory."""
        write_text(directory / TRIALS, json.dumps({"format": FORMAT} | asdict(self)) + "\n")

    def with_trials(self, trials: list[Trial]) -> "SearchRecord":
        """The same search with other trials."""
        return replace(self, trials=trials)


def read_trials(directory: Path) -> SearchRecord | None:
    """The record in a sweep directory; None if there is none. Raises UserError if it is damaged or newer."""
    path = directory / TRIALS
    if not path.exists():
        return None
    try:
        read = json.loads(path.read_text())
        number = read.pop("format")
        if isinstance(number, int) and number > FORMAT:
            raise UserError(f"{path}: has format {number}, and this eprop-cli reads up to {FORMAT}; update it")
        begun, objective, direction, space = (read[key] for key in ("begun", "objective", "direction", "space"))
        if direction not in DIRECTIONS.values() or not isinstance(space, dict):
            raise ValueError("it is not a search's")
        trials, earlier = ([_trial(each) for each in read[key]] for key in ("trials", "earlier"))
        return SearchRecord(str(begun), str(objective), direction, space, trials, earlier)
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: is damaged ({type(error).__name__}: {error}); move it away") from error


def _trial(read: Mapping[str, Any]) -> Trial:
    trial = Trial(**read)
    plain = all(isinstance(value, str | int | float) for value in trial.params.values())
    named = isinstance(trial.run, str) and Path(trial.run).name == trial.run
    if not plain or not named or trial.status not in STATUSES or not isinstance(trial.batch, int):
        raise ValueError("one of its trials is none")
    value = float(trial.value) if trial.status == COMPLETED and trial.value is not None else None
    if (value is None) == (trial.status == COMPLETED) or (value is not None and not math.isfinite(value)):
        raise ValueError("the value of one of its trials is no number")
    values = [(int(iteration), float(each)) for iteration, each in trial.values]
    return replace(trial, value=value, values=values, attributes=dict(trial.attributes))
