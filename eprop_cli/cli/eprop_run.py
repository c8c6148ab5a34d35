"""eprop-run: Hydra composes the config, the run does the rest."""

import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from eprop_cli import sweeps
from eprop_cli.cli.keys import OPTION, show_keys
from eprop_cli.cli.resume import with_earlier_arguments
from eprop_cli.config.arguments import check_arguments, in_order, with_quotes
from eprop_cli.config.composed import without_hydra
from eprop_cli.config.composition import is_bad_input, run_dir
from eprop_cli.config.files import conf_dir
from eprop_cli.config.load import load
from eprop_cli.config.moved import moved_among, with_new_names
from eprop_cli.config.refusal import exiting, fail, refuse
from eprop_cli.config.sources import remembered
from eprop_cli.errors import require
from eprop_cli.registry import variant
from eprop_cli.runs.allowed import named_modules, take_allowed
from eprop_cli.runs.beginning import LIKE, check_subdir, given_directory, save_composed, take
from eprop_cli.runs.log import keep_warnings

INTERRUPTED = 130  # exit status
# What is said after a run of the defaults
FIRST = "Five sequences teach nothing yet (half of all answers are right by chance)"
COMPILED = "in about half a minute: eprop-run experiment=bellec2020 engine=compiled task.n_batch=32 task.n_iter=150"
TUTORIAL = "in about 7 minutes: eprop-run experiment=tutorial"

# What conf/ computes, as ${eprop.NAME:...}
RESOLVERS: dict[str, Callable[..., Any]] = {
    "run_dir": run_dir,
    "jobs_at_once": sweeps.jobs_at_once,
    "cores_of_a_job": lambda threads, workers: threads * workers,
    "requeues": lambda training, engine: 0 if variant("training", training).not_resumable(engine) else 20,
}


def main() -> None:
    """What eprop-run does."""
    # Hydra would print its own errors and exit with 1; with this it raises them, for refuse() to tell in one line.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    # A full disk, or a reader of a pipe who has had enough, must not have the log add tracebacks to the terminal.
    logging.raiseExceptions = False
    keep_warnings()
    warnings.filterwarnings("ignore", category=RuntimeWarning)  # NumPy's; what comes of it is told (diagnoses.py)
    warnings.filterwarnings("error", message=r".*is not available", module="hydra")  # of a folder of config files
    for name, resolver in RESOLVERS.items():
        OmegaConf.register_new_resolver(f"eprop.{name}", resolver, replace=True)
    problem: BaseException | None = None
    try:
        if any(argument.partition("=")[0] == OPTION for argument in sys.argv[1:]):
            show_keys(sys.argv[1:])
            return
        command = [Path(sys.argv[0]).name, *sys.argv[1:]]  # as it was typed
        arguments, allowed = take_allowed(with_quotes(sys.argv[1:]))
        like = given_directory(arguments, LIKE)
        named = named_modules(command)[1]
        sys.argv[1:] = in_order(with_earlier_arguments(in_order(arguments), allowed, named))
        for line in moved_among(sys.argv[1:]):
            print(f"eprop-run: {line}", file=sys.stderr)
        sys.argv[1:] = with_new_names(sys.argv[1:])
        check_arguments(sys.argv[1:])

        @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
        def act(composed: DictConfig) -> float | None:
            return _act(composed, command, like)

        with remembered():
            act()
    except (Exception, KeyboardInterrupt) as error:
        problem = error
    # Hydra tells its callbacks of the end of a multirun only if nothing came in between; here it always comes by.
    if sweeps.has_begun():
        sys.exit(sweeps.end(problem))
    if isinstance(problem, Exception) and is_bad_input(problem):
        refuse(problem)
    if isinstance(problem, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    if isinstance(problem, OSError) and not isinstance(problem, BrokenPipeError):
        fail(problem)  # on Hydra's files, before the run began
    if problem is not None:
        raise problem


def _act(composed: DictConfig, command: Sequence[str], like: Path | None) -> float | None:
    """A run, or a job of a multirun. command: as it was typed. like: the run whose config this one has."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return sweeps.run_job(composed)
    # --help needs none of what trains, nor of what checks that it can.
    from eprop_cli.runs.run import run

    directory = Path(HydraConfig.get().runtime.output_dir)
    if composed.resume:
        hydra_config: Any = HydraConfig.instance().cfg
        save_composed(composed, hydra_config, directory)
    ending = run(load(composed), directory, command=command, like=like)
    if ending.exit_status:
        sys.exit(ending.exit_status)
    if not HydraConfig.get().overrides.task and like is None:
        print(f"{FIRST}; to see it learn, {COMPILED if find_spec('numba') else TUTORIAL}")
    return None


class RunCallback(Callback):
    """Checks the config of a run and claims its directory before Hydra makes anything."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Exit with one line unless the run can begin."""
        from eprop_cli.training.base import check_ready

        with exiting():
            checked = check_ready(load(without_hydra(config)))
            check_subdir(config.hydra, resumed=config.resume is not None)
            require(config.hydra.run.dir != "", "hydra.run.dir", "", "must be a directory; leave it out for a new one")
            take(checked, Path(config.hydra.run.dir))
