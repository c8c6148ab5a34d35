"""A search: suggest values, run a batch of trials, tell the sampler what they came to, suggest better ones.

The search itself is always in memory and begins anew each time: what its trials came to is kept in search.json, and the
sampler, asked again, suggests the same. So one that was interrupted goes on as if it had not been, and no trial that
has finished is run again. A study that is stored gets the trials of each batch when that has ended.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import optuna
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf
from optuna.study import StudyDirection

from eprop_cli.columns import HIGHER, LOWER
from eprop_cli.config.config import Config
from eprop_cli.errors import ConfigError, UserError, require
from eprop_cli.objectives import Reports, parse_objective
from eprop_cli.runs.files import COMPLETED, FAILED, RUNNING, write_text
from eprop_cli.runs.reader import Run
from eprop_cli.runs.trials import DIRECTIONS, FINISHED, SearchRecord, Trial, read_trials
from eprop_cli.sweeps.core_count import counted_by_joblib
from eprop_cli.sweeps.job_directory import job_name
from eprop_cli.sweeps.multirun import SKIPPED, JobOutcome, Multirun
from eprop_cli.sweeps.optuna_study import (
    IN_MEMORY,
    Judge,
    as_plain,
    frozen,
    known_trials,
    make_pruner,
    make_sampler,
    n_points,
    open_study,
    quiet,
    told,
)
from eprop_cli.sweeps.overrides import job_overrides
from eprop_cli.sweeps.space import Space, search_space, spelt

RESULTS = "optimization_results.yaml"


def check_search(config: DictConfig, first: Config) -> None:
    """Refuse what no search can be made of, and settle what the sweeper's keys leave open; raises UserError.

    config: of the multirun; has the direction and n_jobs set. first: the config of one of the jobs.
    """
    quiet()
    sweeper = config.hydra.sweeper
    for key in ("n_trials", "n_jobs"):
        value = sweeper[key]
        count = isinstance(value, int) and not isinstance(value, bool) and (value > 0 or key == "n_jobs")
        require(count, f"hydra.sweeper.{key}", value, "must be a whole number from 1")
    if sweeper.n_jobs < 1:
        sweeper.n_jobs = counted_by_joblib(sweeper.n_jobs or 1)
    rate = sweeper.max_failure_rate
    is_part = isinstance(rate, int | float) and 0 <= rate <= 1
    require(is_part, "hydra.sweeper.max_failure_rate", rate, "must be from 0 to 1")
    sweeper.direction = _direction(sweeper.direction, first)
    space = search_space(job_overrides(config))
    if not space:
        raise UserError("hydra/sweeper: there is nothing to search; give a key several values or interval(LOW,HIGH)")
    if "objective" in space:
        raise UserError("objective: cannot be searched; what is best is told by one")
    make_pruner(sweeper.pruner)
    try:
        study = optuna.create_study(sampler=make_sampler(sweeper.sampler, space))
        study.ask(space)
    except (ValueError, ImportError) as error:  # of a sampler that the space does not fit
        raise UserError(f"hydra.sweeper.sampler: {' '.join(str(error).split())}") from error


def _direction(given: Any, first: Config) -> str:
    key, choices = "hydra.sweeper.direction", tuple(DIRECTIONS.values())
    if OmegaConf.is_config(given):
        several = "must be minimize or maximize: a job returns one objective, so a search has one"
        raise ConfigError(key, OmegaConf.to_container(given), several)
    better = {column.name: column.better for column in first.columns}
    if given is None:
        way = better[parse_objective(first.objective, better).column]
        constraint = f"must be minimize or maximize, as objective={first.objective} does not say what is better"
        require(way in (LOWER, HIGHER), key, None, constraint)
        return DIRECTIONS[way]
    require(given in choices, key, given, f"must be {' or '.join(choices)}; null: as the objective is better")
    return str(given)


def search(config: DictConfig, launcher: Launcher) -> None:
    """Run the search of a multirun that prepare() has begun; raises UserError if it comes to no result."""
    quiet()
    Search(config, launcher).run()


class Search:
    """A search while it goes on."""

    def __init__(self, config: DictConfig, launcher: Launcher) -> None:
        self._keys, self._launcher = config.hydra.sweeper, launcher
        self._multirun = Multirun.of(config)
        self._swept = self._multirun.plan.swept
        overrides = job_overrides(config)
        self._space: Space = search_space(overrides)
        plain = [each for each in overrides if not each.is_sweep_override()]
        self._fixed = [f"{each.get_key_element()}={each.get_value_element_as_str()}" for each in plain]
        self._pruner = make_pruner(self._keys.pruner)
        self._stored: optuna.Study | None = None
        if self._keys.storage is not None:
            name = self._keys.study_name or self._multirun.directory.name
            self._stored = open_study(self._keys.storage, str(name), self._keys.direction)
        stamp = str(config.hydra.callbacks.sweep.stamp)
        self._record, self._known = self._begin(stamp, str(self._multirun.plan.objective))

    def _begin(self, stamp: str, objective: str) -> tuple[SearchRecord, list[Trial]]:
        """The record of a search that begins, or goes on, and what became of the trials that it had."""
        earlier: SearchRecord | None = read_trials(self._multirun.directory)
        direction = str(self._keys.direction)
        if earlier and (earlier.objective, earlier.direction) == (objective, direction):
            known = [trial for trial in earlier.trials if self._name(trial.params) == trial.run]
            record = SearchRecord(earlier.begun, objective, direction, as_plain(self._space), [], earlier.earlier)
            return record, known
        there = known_trials(self._stored, self._space) if self._stored else []
        return SearchRecord(stamp, objective, direction, as_plain(self._space), [], there), []

    def run(self) -> None:
        """Suggest and run batches of trials until there are n_trials."""
        study, limit = self._study(self._record.earlier)
        trials: list[Trial] = []
        ended = False
        while len(trials) < limit and not ended:
            before = self._known[len(trials) :]
            again = [trial for trial in before if trial.batch == before[0].batch]
            size = min(len(again) or self._keys.n_jobs, limit - len(trials))
            asked = [study.ask(self._space) for _ in range(size)]
            number = trials[-1].batch + 1 if trials else 0
            batch = [Trial(each.params, again[0].batch if again else number, self._name(each.params)) for each in asked]
            if [trial.run for trial in batch] != [trial.run for trial in again[:size]] and again:
                study, trials = self._go_on_otherwise()
                continue
            batch = [old if old.status in FINISHED else new for new, old in zip(batch, again or batch, strict=False)]
            done = self._run_batch(trials, batch, before[size:])
            ended = told(study, asked, done)
            trials = [*trials, *done]
            self._keep([*trials, *before[size:]])
        self._leave_best()

    def _study(self, known: Sequence[Trial]) -> tuple[optuna.Study, int]:
        """A study in memory that knows of some trials, and how many are to be suggested in all."""
        sampler = make_sampler(self._keys.sampler, self._space, len(known))
        options: dict[str, Any] = {"pruner": self._pruner} if self._pruner else {}
        study = optuna.create_study(
            direction=StudyDirection[self._record.direction.upper()], sampler=sampler, study_name=IN_MEMORY, **options
        )
        study.add_trials([frozen(trial, self._space) for trial in known])
        n = n_points(sampler, self._space)
        return study, self._keys.n_trials if n is None else min(n, self._keys.n_trials)

    def _go_on_otherwise(self) -> tuple[optuna.Study, list[Trial]]:
        """A study with what became of all trials so far, as the sampler has no seed, or is another: it suggests others.

        Trials that had begun come first.
        """
        ended = [trial for trial in self._known if trial.status != RUNNING]
        for index, trial in enumerate(ended):
            if trial.status in FINISHED:
                self._multirun.note(JobOutcome(index, trial.run, SKIPPED))
        study, _ = self._study([*self._record.earlier, *ended])
        for trial in self._known:
            if trial.status == RUNNING:
                study.enqueue_trial(trial.params)
        self._known = []
        return study, ended

    def _run_batch(self, trials: list[Trial], batch: list[Trial], rest: list[Trial]) -> list[Trial]:
        """Run those of a batch that have not finished; returns what became of all.

        Raises KeyboardInterrupt if the multirun was stopped, and UserError if too many trials failed.
        """
        first = len(trials)
        record = self._record.with_trials([*trials, *batch])
        left = {trial.run: trial for trial in batch if trial.status not in FINISHED}
        for index, trial in enumerate(each for each in batch if each.status in FINISHED):
            self._multirun.note(JobOutcome(first + len(left) + index, trial.run, SKIPPED))
        if not left:
            return batch
        record.with_trials([*record.trials, *rest]).write(self._multirun.directory)
        jobs = [[*(spelt(key, value) for key, value in trial.params.items()), *self._fixed] for trial in left.values()]
        self._launcher.launch(jobs, first)
        if self._multirun.stopped is not None:
            raise KeyboardInterrupt
        done = [
            self._outcome(trial, record, first + index) if trial.run in left else trial
            for index, trial in enumerate(batch)
        ]
        n_failed = sum(trial.status == FAILED for trial in done)
        rate = self._keys.max_failure_rate
        if n_failed > rate * len(done):
            allowed = f"hydra.sweeper.max_failure_rate={rate:g} allows"
            raise UserError(f"the search gave up: {n_failed} of {len(done)} trials failed, more than {allowed}")
        return done

    def _outcome(self, trial: Trial, record: SearchRecord, index: int) -> Trial:
        """What became of a trial, as its run directory has it."""
        failed = replace(trial, status=FAILED)
        try:
            run = Run(self._multirun.directory / trial.run)
            if run.status not in FINISHED:
                return failed
            better = {column.name: column.better for column in run.columns}
            objective = parse_objective(run.config["objective"], better)
            reports = Reports(objective, bool(run.config["training"].get("do_early_stopping")))
            metrics = run.metrics
            rows: Any = metrics.to_dict("records")
            values = [(int(row["iteration"]), reports.take(row["phase"], row)) for row in rows]
            shown = {iteration: value for iteration, value in values if value is not None}
            value = objective.value(metrics) if run.status == COMPLETED else None
        except (UserError, LookupError):
            return failed
        if value is not None and not abs(value) < float("inf"):
            return failed
        attributes = self._attributes(record, index, shown.items())
        return replace(trial, status=run.status, value=value, values=list(shown.items()), attributes=attributes)

    def _attributes(self, record: SearchRecord, index: int, values: Iterable[tuple[int, float]]) -> dict[str, Any]:
        """What the pruner keeps of a trial: it is asked again, here, where that is passed on to the next."""
        if self._pruner is None:
            return {}
        made = make_pruner(self._keys.pruner)
        assert made is not None
        judge = Judge(made, record, index)
        for iteration, value in values:
            judge.is_hopeless(iteration, value)
        return judge.attributes

    def _keep(self, trials: list[Trial]) -> None:
        """Write what became of the trials to search.json, and to the study that is stored."""
        self._record = self._record.with_trials(trials)
        self._record.write(self._multirun.directory)
        if self._stored is None:
            return
        kept = {_identity(each.user_attrs) for each in self._stored.get_trials(deepcopy=False)}
        for index, trial in enumerate(trials):
            place = {"search": self._record.begun, "trial": index, "status": trial.status}
            if trial.status != RUNNING and _identity(place) not in kept:
                run = str(self._multirun.directory / trial.run)
                self._stored.add_trial(frozen(trial, self._space, place | {"run": run}))

    def _name(self, params: dict[str, Any]) -> str:
        """The run directory of some suggestions."""
        return job_name([*(spelt(key, value) for key, value in params.items()), *self._fixed], self._swept)

    def _leave_best(self) -> None:
        """Write the best trial for those who read YAML; raises UserError if there is none."""
        best = self._record.best
        if best is None:
            raise UserError("the search has no result: none of its jobs returned an objective")
        trial = self._record.trials[best]
        results = {"name": "optuna", "best_params": trial.params, "best_value": trial.value}
        write_text(self._multirun.directory / RESULTS, OmegaConf.to_yaml(OmegaConf.create(results)))


def _identity(attributes: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(attributes.get(key) for key in ("search", "trial", "status"))
