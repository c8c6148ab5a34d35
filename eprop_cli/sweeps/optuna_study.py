"""Optuna's part of a search: its samplers, pruners, studies and trials, made of ours."""

import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import optuna
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, GridSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from eprop_cli.errors import ConfigError, UserError, require
from eprop_cli.runs.files import COMPLETED, FAILED, PRUNED, RUNNING
from eprop_cli.runs.trials import SearchRecord, Trial
from eprop_cli.sweeps.space import Space, points

STATES = {
    RUNNING: TrialState.RUNNING,
    COMPLETED: TrialState.COMPLETE,
    PRUNED: TrialState.PRUNED,
    FAILED: TrialState.FAIL,
}
IN_MEMORY = "search"  # name of a study in memory; by it and a trial's number Hyperband chooses a bracket


def quiet() -> None:
    """Have Optuna say what is wrong only."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", ExperimentalWarning)


def make_sampler(node: Any, space: Space, n_known: int = 0) -> BaseSampler:
    """The sampler of hydra.sweeper.sampler.

    n_known: trials that it has not suggested; they shift a seed, or a second search of a study would repeat the first.
    Raises UserError for keys that do not fit.
    """
    node = OmegaConf.create(OmegaConf.to_container(node, resolve=True))
    if node.get("seed") is not None:
        node.seed += n_known
    made = _made("hydra.sweeper.sampler", node)
    if isinstance(made, partial):
        made = made({key: points(key, distribution) for key, distribution in space.items()})
    if not isinstance(made, BaseSampler):
        raise ConfigError("hydra.sweeper.sampler", node.get("_target_"), "must be a sampler of Optuna's")
    return made


def make_pruner(node: Mapping[str, Any] | DictConfig | None) -> BasePruner | None:
    """The pruner of hydra.sweeper.pruner; None if there is none. Raises UserError for keys that do not fit."""
    if not node or node.get("_target_") is None:
        return None
    made = _made("hydra.sweeper.pruner", OmegaConf.create(dict(node)))
    if not isinstance(made, BasePruner):
        raise ConfigError("hydra.sweeper.pruner", node["_target_"], "must be a pruner of Optuna's")
    return made


def n_points(sampler: BaseSampler, space: Space) -> int | None:
    """How many trials a sampler has to suggest; None: any number."""
    if not isinstance(sampler, GridSampler):
        return None
    n = 1
    for key, distribution in space.items():
        n *= len(points(key, distribution))
    return n


def open_study(url: str, name: str, direction: str) -> Study:
    """The stored study of a name, made if there is none; raises ConfigError."""
    key = "hydra.sweeper.storage"
    try:
        study = optuna.create_study(
            storage=url, study_name=name, direction=StudyDirection[direction.upper()], load_if_exists=True
        )
        stored = study.direction.name.lower() if len(study.directions) == 1 else "several objectives"
    except ImportError as error:
        raise ConfigError(key, url, f"needs {error.name}, which is not installed") from error
    except Exception as error:  # of whatever is behind the URL
        logging.getLogger(__name__).debug("the storage cannot be opened", exc_info=True)
        told = " ".join(str(getattr(error, "orig", None) or error).split())[:200]
        raise ConfigError(key, url, f"cannot be opened ({told})") from error
    there = f"is the name of a study there that has {stored}, not {direction}; choose another"
    require(stored == direction, "hydra.sweeper.study_name", name, there)
    return study


def known_trials(study: Study, space: Space) -> list[Trial]:
    """The finished trials of a stored study whose values are within the space."""
    states = {TrialState.COMPLETE: COMPLETED, TrialState.PRUNED: PRUNED}
    found = []
    for each in study.get_trials(deepcopy=False, states=tuple(states)):
        if each.params.keys() == space.keys() and _is_within(each.params, space):
            value = each.value if each.state == TrialState.COMPLETE else None
            values = sorted(each.intermediate_values.items())
            found.append(Trial(dict(each.params), -1, "", states[each.state], value, values))
    return found


def frozen(trial: Trial, space: Space | None = None, attributes: Mapping[str, Any] | None = None) -> FrozenTrial:
    """A trial as Optuna has it; space: None, if what was suggested does not matter. attributes: the user's."""
    value = trial.value
    if trial.status == PRUNED and trial.values:  # as Optuna's tell() has it
        value = trial.values[-1][1]
    return create_trial(
        state=STATES[trial.status],
        value=value,
        params=trial.params if space else {},
        distributions=dict(space) if space else {},
        intermediate_values=dict(trial.values),
        system_attrs=trial.attributes,
        user_attrs=dict(attributes or {}),
    )


def as_plain(space: Space) -> dict[str, Any]:
    """A space as it stands in search.json."""
    return {key: json.loads(distribution_to_json(distribution)) for key, distribution in space.items()}


class Judge:
    """Has a pruner judge a trial while it trains, by what was known when its batch began and what it has come to.

    So the judgement is the same whatever else runs at the time, and whenever it is asked for.
    """

    def __init__(self, pruner: BasePruner, record: SearchRecord, index: int) -> None:
        """index: which of the record's trials is judged."""
        self._study = optuna.create_study(
            direction=StudyDirection[record.direction.upper()],
            pruner=pruner,
            sampler=RandomSampler(0),
            study_name=IN_MEMORY,
        )
        self._study.add_trials([frozen(each) for each in (*record.earlier, *record.trials[:index])])
        self._trial = self._study.ask()

    def is_hopeless(self, iteration: int, value: float) -> bool:
        """Whether to prune the trial, whose objective is now the value."""
        self._trial.report(value, iteration)
        return self._trial.should_prune()

    @property
    def attributes(self) -> dict[str, Any]:
        """What the pruner has kept of the trial."""
        return dict(self._study.get_trials(deepcopy=False)[self._trial.number].system_attrs)


def importances(record: SearchRecord) -> dict[str, float]:
    """How much of the difference between good and bad trials each key explains, the most important first; {}: unknown.

    By PED-ANOVA, of the trials that are COMPLETED: a better tenth of them against all.
    """
    quiet()
    completed = [trial for trial in record.trials if trial.status == COMPLETED]
    if len({trial.value for trial in completed}) < 2:  # Optuna would have all keys explain the same
        return {}
    space: Space = {}
    for key, plain in record.space.items():
        distribution: BaseDistribution = json_to_distribution(json.dumps(plain))
        space[key] = distribution
    study = optuna.create_study(direction=StudyDirection[record.direction.upper()])
    study.add_trials([frozen(trial, space) for trial in completed])
    by = optuna.importance  # imported only here, with scikit-learn, which takes a second
    try:
        return by.get_param_importances(study, evaluator=by.PedAnovaImportanceEvaluator())
    except (ValueError, RuntimeError):  # too few
        return {}


def _made(key: str, node: Any) -> Any:
    try:
        return instantiate(node)
    except HydraException as error:
        cause = error.__cause__ or error
        why = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
        if isinstance(cause, ImportError) and cause.name:
            why = f"needs {cause.name}, which is not installed"
        raise UserError(f"{key}: {why}") from error


def _is_within(params: Mapping[str, Any], space: Space) -> bool:
    try:
        create_trial(value=0.0, params=dict(params), distributions=dict(space))
    except (ValueError, TypeError):
        return False
    return True


def told(study: Study, asked: Sequence[optuna.Trial], trials: Sequence[Trial]) -> bool:
    """Tell a study what became of trials that it suggested; returns whether it has no more to suggest."""
    ended = False
    for each, trial in zip(asked, trials, strict=True):
        for iteration, value in trial.values:
            each.report(value, iteration)
        try:
            study.tell(each, trial.value, state=STATES[trial.status])
        except RuntimeError as error:  # of samplers that go through all points, which want an optimize() to stop
            if "Study.stop" not in str(error):
                raise
            ended = True
    return ended
