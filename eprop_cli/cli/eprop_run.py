"""eprop-run: Hydra composes the config, the run does the rest."""

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobRuntime
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from eprop_cli.config.arguments import check_arguments, one_line
from eprop_cli.config.composed import without_hydra
from eprop_cli.config.composition import BAD_INPUTS, run_dir
from eprop_cli.config.files import conf_dir
from eprop_cli.config.load import load
from eprop_cli.config.moved import moved_among, with_new_names
from eprop_cli.errors import ConfigError, UserError, reason
from eprop_cli.runs.beginning import (
    WITH_RESUME,
    check_subdir,
    earlier_options,
    earlier_overrides,
    quoted,
    save_composed,
    take,
)
from eprop_cli.training.base import check_ready

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130  # exit statuses
MULTIRUN_OPTIONS = ("-m", "--multirun")
MULTIRUN = "multirun"  # in Hydra's JobRuntime: where the multirun that has begun keeps its state


def _jobs_at_once(threads: int, workers: int) -> int:
    from eprop_cli.sweeps.cores import jobs_at_once  # joblib takes a while to import

    return jobs_at_once(threads, workers)


# What conf/ computes, as ${eprop.NAME:...}
RESOLVERS: dict[str, Callable[..., Any]] = {
    "run_dir": run_dir,
    "jobs_at_once": _jobs_at_once,
    "cores_of_a_job": lambda threads, workers: threads * workers,
    "search_seed": lambda storage: 1 if storage is None else None,
    "requeues": lambda training: 20 if training == "data_parallel" else 0,
}


def main() -> None:
    """What eprop-run does."""
    # Hydra would print its own errors and exit with 1; with this it raises them, for _refuse() to tell in one line.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    for name, resolver in RESOLVERS.items():
        OmegaConf.register_new_resolver(f"eprop.{name}", resolver, replace=True)
    problem: BaseException | None = None
    try:
        sys.argv[1:] = with_earlier_arguments(sys.argv[1:])
        for line in moved_among(sys.argv[1:]):
            print(f"eprop-run: {line}", file=sys.stderr)
        sys.argv[1:] = with_new_names(sys.argv[1:])
        check_arguments(sys.argv[1:])
        _main()
    except (Exception, KeyboardInterrupt) as error:
        problem = error
    # Hydra tells its callbacks of the end of a multirun only if nothing came in between; here it always comes by.
    if (state := OmegaConf.select(JobRuntime.instance().conf, MULTIRUN)) is not None:
        sys.exit(_end_multirun(Path(state), problem))
    if isinstance(problem, BAD_INPUTS):
        _refuse(problem)
    if isinstance(problem, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    if isinstance(problem, OSError):  # on Hydra's files, before the run began
        _fail(problem)
    if problem is not None:
        raise problem


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
def _main(composed: DictConfig) -> float | None:
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        from eprop_cli.sweeps.job import job

        return job(composed)
    from eprop_cli.runs.run import run

    directory = Path(HydraConfig.get().runtime.output_dir)
    if composed.resume:
        hydra_config: Any = HydraConfig.instance().cfg
        save_composed(composed, hydra_config, directory)
    ending = run(load(composed), directory)
    if ending.exit_status:
        sys.exit(ending.exit_status)
    return None


class Doorkeeper(Callback):
    """Checks the config and claims the directory before Hydra makes anything."""

    def __init__(self, stamp: str) -> None:
        """stamp: tells multiruns in one sweep directory apart."""
        self._stamp = stamp

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Exit with one line unless the run can begin; Hydra would turn an exception here into a warning."""
        try:
            checked = check_ready(load(without_hydra(config)))
            check_subdir(config.hydra, resumed=config.resume is not None)
            take(checked, Path(config.hydra.run.dir))
        except (UserError, OmegaConfBaseException) as error:
            _refuse(error)
        except Exception as error:
            _fail(error)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Exit with one line unless at least one of the jobs can begin."""
        from eprop_cli.sweeps.multirun import begin

        try:
            check_subdir(config.hydra)
            multirun = begin(config, self._stamp, lambda composed: check_ready(load(without_hydra(composed))))
        except BAD_INPUTS as error:
            _refuse(error)
        except Exception as error:
            _fail(error)
        JobRuntime.instance().set(MULTIRUN, str(multirun.state))


def with_earlier_arguments(arguments: list[str]) -> list[str]:
    """Arguments of eprop-run with those that the run or multirun in resume=DIRECTORY was given, before the new ones."""
    from eprop_cli.runs.files import SWEEP

    given = [argument.removeprefix("resume=") for argument in arguments if argument.startswith("resume=")]
    if not given or given[-1] in ("", "null"):
        return arguments
    directory = Path(_unquoted(given[-1]))
    # Hydra takes overrides from one place among the arguments only.
    first = next(index for index, argument in enumerate(arguments) if "=" in argument and not argument.startswith("-"))
    options, overrides = arguments[:first], arguments[first:]
    if not (directory / SWEEP).exists():
        new = [f"resume={quoted(directory)}" if text.startswith("resume=") else text for text in overrides]
        earlier = [*earlier_overrides(directory), "hydra.output_subdir=null"]  # save_composed() does what it would do
        return [*earlier_options(directory), *options, *earlier, *new]
    multirun = earlier_multirun(directory)
    options = [*multirun["options"], "--multirun", *(option for option in options if option not in MULTIRUN_OPTIONS)]
    new = [text for text in overrides if not text.startswith("resume=") and text not in MULTIRUN_OPTIONS]
    for text in new:
        if text.startswith("hydra.sweep.dir="):
            raise UserError(f"{text}: {WITH_RESUME}")
    return [*options, *multirun["overrides"], f"hydra.sweep.dir={quoted(directory)}", *new]


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def earlier_multirun(directory: Path) -> dict[str, list[str]]:
    """Options and overrides of the multirun begun last in a directory."""
    from eprop_cli.runs.files import SWEEP

    path = directory / SWEEP
    try:
        arguments: dict[str, list[str]] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError("resume", directory, f"cannot be resumed: {path} is damaged ({error})") from error
    return arguments


def _end_multirun(state: Path, problem: BaseException | None) -> int:
    """Tell what kept a multirun from coming to its end, and what became of its jobs; returns the exit status."""
    from eprop_cli.sweeps.multirun import Multirun
    from eprop_cli.sweeps.overview import end, why

    multirun = Multirun(state)
    if isinstance(problem, BAD_INPUTS) and not multirun.outcomes:
        multirun.undo(multirun.plan.fresh)
        _refuse(problem)
    if isinstance(problem, Exception) and multirun.stopped is None:
        known = why(problem)
        print(f"eprop-run: {known or f'the multirun broke off: {reason(problem)}'}", file=sys.stderr)
        if known is None and not isinstance(problem, BAD_INPUTS):
            traceback.print_exception(problem)
    return end(multirun, problem)


def _fail(error: Exception) -> NoReturn:
    """Tell what came in between before a run began and exit; Hydra would warn of it and go on."""
    if isinstance(error, OSError) and error.errno is None:  # OmegaConf's, of a file without keys
        _refuse(error)
    if isinstance(error, OSError):
        print(f"eprop-run: {reason(error)}", file=sys.stderr)
    else:
        traceback.print_exception(error)
    sys.exit(FAILED)


def _refuse(error: Exception) -> NoReturn:
    """Tell a bad input in one line and exit."""
    print(f"eprop-run: {one_line(error)}", file=sys.stderr)
    sys.exit(BAD_INPUT)
