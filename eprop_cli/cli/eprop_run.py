"""eprop-run: Hydra composes the config, the run does the rest."""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from eprop_cli import sweeps
from eprop_cli.cli.resume import with_earlier_arguments
from eprop_cli.config.arguments import check_arguments
from eprop_cli.config.composed import without_hydra
from eprop_cli.config.composition import BAD_INPUTS, run_dir
from eprop_cli.config.files import conf_dir
from eprop_cli.config.load import load
from eprop_cli.config.moved import moved_among, with_new_names
from eprop_cli.config.refusal import exiting, fail, refuse
from eprop_cli.registry import variant
from eprop_cli.runs.beginning import check_subdir, save_composed, take

INTERRUPTED = 130  # exit status

# What conf/ computes, as ${eprop.NAME:...}
RESOLVERS: dict[str, Callable[..., Any]] = {
    "run_dir": run_dir,
    "jobs_at_once": sweeps.jobs_at_once,
    "cores_of_a_job": lambda threads, workers: threads * workers,
    "search_seed": lambda storage: 1 if storage is None else None,
    "requeues": lambda training, engine: 0 if variant("training", training).not_resumable(engine) else 20,
}


def main() -> None:
    """What eprop-run does."""
    # Hydra would print its own errors and exit with 1; with this it raises them, for refuse() to tell in one line.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    # A full disk, or a reader of a pipe who has had enough, must not have the log add tracebacks to the terminal.
    logging.raiseExceptions = False
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
    if sweeps.has_begun():
        sys.exit(sweeps.end(problem))
    if isinstance(problem, BAD_INPUTS):
        refuse(problem)
    if isinstance(problem, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    if isinstance(problem, OSError):  # on Hydra's files, before the run began
        fail(problem)
    if problem is not None:
        raise problem


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
def _main(composed: DictConfig) -> float | None:
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return sweeps.run_job(composed)
    # --help needs none of what trains, nor of what checks that it can.
    from eprop_cli.runs.run import run

    directory = Path(HydraConfig.get().runtime.output_dir)
    if composed.resume:
        hydra_config: Any = HydraConfig.instance().cfg
        save_composed(composed, hydra_config, directory)
    ending = run(load(composed), directory)
    if ending.exit_status:
        sys.exit(ending.exit_status)
    return None


class RunCallback(Callback):
    """Checks the config of a run and claims its directory before Hydra makes anything."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Exit with one line unless the run can begin."""
        from eprop_cli.training.base import check_ready

        with exiting():
            checked = check_ready(load(without_hydra(config)))
            check_subdir(config.hydra, resumed=config.resume is not None)
            take(checked, Path(config.hydra.run.dir))
