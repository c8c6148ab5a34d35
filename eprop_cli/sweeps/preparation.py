"""A multirun before its jobs run: what they are, whether each can run, whose directory it is, how they are stopped."""

import contextlib
import json
import logging
import os
import platform
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from eprop_cli.config.composed import config_options, without_hydra
from eprop_cli.config.config import Config
from eprop_cli.config.load import load
from eprop_cli.errors import ConfigError, UserError, require
from eprop_cli.runs.files import RUN, SWEEP, write_text
from eprop_cli.runs.interrupts import stopping
from eprop_cli.sweeps.composing import compose_once
from eprop_cli.sweeps.core_count import jobs_sharing_cores, shortage
from eprop_cli.sweeps.engine_needs import compile_engine
from eprop_cli.sweeps.foreign import check_composed
from eprop_cli.sweeps.job_directory import is_completed, job_name
from eprop_cli.sweeps.launcher import launch_only_the_rest
from eprop_cli.sweeps.multirun import PLAN, STATE, Multirun, MultirunPlan
from eprop_cli.sweeps.overrides import job_overrides
from eprop_cli.sweeps.paths import absolute_storage, find_modules_in, with_absolute_paths
from eprop_cli.sweeps.record import SweepRecord
from eprop_cli.sweeps.slurm import check_time_limit, is_slurm, watch
from eprop_cli.sweeps.watching import begin
from eprop_cli.training.base import check_ready

DIRECTORY = "hydra.sweep.dir"
TIED = ("BasicLauncher", "JoblibLauncher")  # launchers whose jobs end with the process that starts them
MANY = 100  # jobs, whose checks are waited for

# Their loggers, which tell of each job that is launched.
LAUNCHERS = (
    "hydra._internal.core_plugins.basic_launcher",
    "hydra_plugins.hydra_joblib_launcher._core",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher",
)


@dataclass(frozen=True)
class JobList:
    """What is swept, and how.

    jobs: the overrides of each job; of a search one for each choice of config files, with what all have in common.
    values: those of the keys that have several, none of a range. at_once: how many jobs the launcher is given together.
    """

    jobs: Sequence[Sequence[str]]
    values: dict[str, list[Any]]
    at_once: int
    is_search: bool


def prepare(
    config: DictConfig, beginning: str | None, trusted: Sequence[str] | None = None, code: str | None = None
) -> Multirun:
    """Find out all that can be known before the first job, take the sweep directory and heed signals.

    config: as Hydra composes it for a multirun; has the launcher replaced by ours, and relative paths by absolute ones.
    beginning: as in MultirunPlan. trusted: of a multirun that is resumed, what its jobs' configs may name, as in
        check_trusted(). code: where modules of the user's are found then, if not where it began.
    Raises UserError or HydraException if one of the jobs can never run, and for what is wrong with the sweep directory.
    """
    multirun = Multirun.of(config)  # fixes what is named after the time
    hydra = config.hydra
    given = [str(override) for override in hydra.overrides.hydra]
    _check_given(config, given)
    # Nothing else is to be found in a foreign directory.
    modules_in = code if code is not None else beginning if trusted is None or trusted else None
    find_modules_in(modules_in)
    job_list = _read_jobs(config)
    _check_free(multirun.directory)
    if len(job_list.jobs) >= MANY:
        print(f"Checking {len(job_list.jobs)} jobs, a twentieth of a second each", flush=True)
    first = _check_jobs(config, job_list, beginning, trusted)
    if job_list.is_search:
        from eprop_cli.sweeps.search import check_search

        check_search(config, first)
    _check_launcher(hydra.launcher)
    n_at_once = _n_at_once(multirun.directory, job_list)
    if n_at_once and (short := shortage(first, job_list.values, hydra.launcher, n_at_once)):
        print(f"eprop-run: warning: {short}", file=sys.stderr)
    if jobs_sharing_cores(hydra.launcher, n_at_once) > 1:  # or each of them would compile the same
        with contextlib.suppress(UserError):  # the job will tell
            compile_engine(first)

    kept = [text for text in given if not text.startswith(("hydra.mode=", "hydra.sweep.dir=", "hydra.callbacks."))]
    record = SweepRecord(config_options(config), [*kept, *map(str, hydra.overrides.task)], beginning)
    launcher = str(hydra.launcher["_target_"])
    n_jobs = None if job_list.is_search else len(job_list.jobs)
    plan = MultirunPlan(
        *(list(job_list.values), record.options, n_jobs, os.getpid(), platform.node()),
        tied=launcher.endswith(TIED),
        fresh=_claim(multirun.directory),
        launcher=launcher,
        beginning=beginning,
        modules_in=modules_in,
        objective=first.objective if job_list.is_search else None,
    )
    _leave(multirun, plan, record)
    if "storage" in hydra.sweeper:
        hydra.sweeper.storage = absolute_storage(hydra.sweeper.storage, beginning)
    launch_only_the_rest(config)
    if is_slurm(launcher):
        from eprop_cli.sweeps.slurm_queue import Queue

        watch(multirun, Queue.take_over().numbers)
    for name in LAUNCHERS:
        logging.getLogger(name).setLevel(logging.WARNING)  # it is told here, in fewer lines
    begin(multirun)
    for number in stopping():
        signal.signal(number, lambda number, _: stop(multirun, number))
    return multirun


def _n_at_once(directory: Path, job_list: JobList) -> int:
    """How many jobs the launcher is given together: those that an earlier multirun finished are not."""
    if job_list.is_search:
        return job_list.at_once
    names = (job_name(overrides, job_list.values) for overrides in job_list.jobs)
    return sum(not is_completed(directory / name) for name in names)


def stop(multirun: Multirun, number: int) -> None:
    """Handle a signal: the first stops the jobs, so that what they have is written; the second also stops waiting."""
    if not multirun.state.exists() or multirun.stopped is not None:
        raise KeyboardInterrupt
    # A job of a process that ignores SIGHUP would ignore it, too.
    multirun.stop(signal.SIGTERM if number == signal.SIGHUP else number)
    told = b"eprop-run: stopping when the running jobs have ended in order; again: at once\n"
    with contextlib.suppress(OSError):  # the terminal may be gone
        os.write(sys.stderr.fileno(), told)


def _check_given(config: DictConfig, given: Sequence[str]) -> None:
    """Raise ConfigError for what cannot be given to a multirun."""
    resume = config.get("resume")
    require(resume is None, "resume", resume, "is a run; continue it without -m, or give the directory of a multirun")
    subdir = dict(text.split("=", 1) for text in given if "=" in text).get("hydra.sweep.subdir")
    require(subdir is None, "hydra.sweep.subdir", subdir, "cannot be set: jobs are named after their overrides")


def _read_jobs(config: DictConfig) -> JobList:
    sweeper = config.hydra.sweeper
    overrides = job_overrides(config)
    swept = {each.get_key_element().lstrip("+"): each for each in overrides if each.is_sweep_override()}
    values = {key: list(each.sweep_iterator()) if each.is_discrete_sweep() else [] for key, each in swept.items()}
    for key, each in swept.items():
        if each.is_discrete_sweep() and not values[key]:
            raise UserError(f"{each.input_line}: has no values, so there would be no job")
    runs = ",".join(map(str, values.get("resume", [])))
    require(not runs, "resume", runs, "cannot be swept; continue each run by itself, without -m")
    if str(sweeper["_target_"]).endswith(f".{BasicSweeper.__name__}"):
        jobs = BasicSweeper.split_arguments(overrides, None)[0]
        return JobList(jobs, values, len(jobs), is_search=False)
    missing = "needs optuna, which is not installed; pip install '.[optuna]' in the checkout"
    require(find_spec("optuna") is not None, "hydra/sweeper", config.hydra.runtime.choices["hydra/sweeper"], missing)
    known = [each for each in overrides if not each.is_sweep_override() or _is_choice_of_files(each)]
    jobs = BasicSweeper.split_arguments(known, None)[0]
    return JobList(jobs, values, int(sweeper.get("n_jobs") or 1), is_search=True)


def _is_choice_of_files(override: Override) -> bool:
    groups = GlobalHydra.instance().config_loader().get_group_options(override.key_or_group)
    return override.is_discrete_sweep() and bool(groups)


def _check_jobs(config: DictConfig, job_list: JobList, beginning: str | None, trusted: Sequence[str] | None) -> Config:
    """The config of the first job; has config use the launcher that files which are swept over name.

    Raises UserError for the first job that cannot run.
    """
    configs: list[Config] = []
    problems: list[UserError] = []
    launchers: dict[tuple[str, str], DictConfig] = {}
    loader = compose_once()
    for overrides in job_list.jobs:
        composed = loader.load_sweep_config(config, list(overrides))
        if trusted is not None:
            _check_foreign(composed, config, trusted)
        loader.keep(list(overrides), composed)
        for part in ("launcher", "sweeper"):
            launchers[part, str(composed.hydra[part])] = composed.hydra
        try:
            checked = check_ready(load(with_absolute_paths(without_hydra(composed), beginning)))
            configs = configs or [checked]
        except UserError as error:
            problems.append(error)
    if problems and len(problems) < len(job_list.jobs):
        told = f"{problems[0]}; {len(problems)} of {len(job_list.jobs)} jobs cannot run, so none was started"
        raise UserError(told) from problems[0]
    if problems:
        raise problems[0]
    _use_launcher(config, [hydra for (part, _), hydra in launchers.items() if part == "launcher"])
    _check_sweeper(config, [hydra for (part, _), hydra in launchers.items() if part == "sweeper"])
    return configs[0]


def _check_foreign(composed: DictConfig, config: DictConfig, trusted: Sequence[str]) -> None:
    """Raise ConfigError for what the files and arguments of a multirun that is resumed must not hold."""
    anew = [str(override).partition("=")[0].lstrip("+~") for override in config.hydra.overrides.hydra]
    try:
        check_composed(composed, trusted, anew)
    except UserError as error:
        directory = config.hydra.sweep.dir
        raise ConfigError("resume", directory, f"cannot be resumed: its {SWEEP} {error}") from error


def _use_launcher(config: DictConfig, found: Sequence[DictConfig]) -> None:
    """Have config use the one launcher that the jobs' configs name; raises ConfigError if there are several.

    A file that is swept over is not in the config of the multirun, from which Hydra takes the launcher.
    """
    names = ", ".join(dict.fromkeys(str(hydra.runtime.choices["hydra/launcher"]) for hydra in found))
    constraint = "files that are swept over name several, or with several keys; give hydra/launcher=... for all jobs"
    require(len(found) == 1, "hydra/launcher", names, constraint)
    config.hydra.launcher = found[0].launcher
    config.hydra.runtime.choices["hydra/launcher"] = names


def _check_sweeper(config: DictConfig, found: Sequence[DictConfig]) -> None:
    """Raise ConfigError if a file that is swept over names another sweeper than the one that sweeps over it."""
    others = [hydra for hydra in found if hydra.sweeper["_target_"] != config.hydra.sweeper["_target_"]]
    name = others[0].runtime.choices["hydra/sweeper"] if others else None
    require(not others, "hydra/sweeper", name, "is named in a file that is swept over; give it on the command line")


def _check_launcher(launcher: DictConfig) -> None:
    if is_slurm(str(launcher["_target_"])):
        missing = "needs SLURM's srun, which is not on this machine; slurm_local tries the same without"
        require(shutil.which("srun") is not None, "hydra/launcher", "slurm", missing)
        check_time_limit(launcher)


def _check_free(directory: Path) -> bool:
    """Make sure that a directory is new, empty or of an earlier multirun; return whether it is not the last."""
    try:
        there = {path.name for path in directory.iterdir()} if directory.exists() else set()
    except OSError as error:
        raise _unusable(directory, error) from error
    require(RUN not in there, DIRECTORY, directory, "is the directory of a run; choose another")
    require(not there or SWEEP in there, DIRECTORY, directory, "holds files, but no multirun's; choose another")
    return not there


def _claim(directory: Path) -> bool:
    """Make a directory unless it is there; return whether it is not of an earlier multirun."""
    fresh = _check_free(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for plan in directory.glob(f"{STATE}/*/{PLAN}"):
            if (earlier := Multirun(plan.parent)).plan.is_abandoned:
                earlier.remove()
    except OSError as error:
        raise _unusable(directory, error) from error
    return fresh


def _unusable(directory: Path, error: OSError) -> ConfigError:
    return ConfigError(DIRECTORY, directory, f"cannot be made or read ({error.strerror}); choose another")


def _leave(multirun: Multirun, plan: MultirunPlan, record: SweepRecord) -> None:
    """Write what the jobs share, and what a resumed multirun needs: both or nothing."""
    try:
        write_text(multirun.state / PLAN, json.dumps(asdict(plan)))
        record.write(multirun.directory)
    except OSError:
        multirun.undo(plan.fresh)
        raise
