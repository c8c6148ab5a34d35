"""eprop-verify --script NAME: does eprop-run give the losses of a script that NEST ships?"""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from eprop_cli.cli.scratch import scratch
from eprop_cli.config.composed import without_hydra
from eprop_cli.config.composition import compose
from eprop_cli.config.config import Config
from eprop_cli.config.load import load
from eprop_cli.engines.nest.shipped import DATA, EXPERIMENTS, Losses, find_script, losses, source
from eprop_cli.training.base import check_ready, draw_parameters, make_trainer

ALLOWED = 1e-10  # of a loss
DIFFERS = 1  # exit status
FOLDER = "folder"  # attribute of tasks of a data set that scripts read, too


def verify_script(name: str, overrides: Sequence[str], config_dir: Path | None) -> int:
    """Run a script beside the experiment that has its numbers, and print the losses of both; returns the exit status.

    overrides: numbers that are changed in both; data of theirs are only where the data are. Raises UserError.
    """
    name = find_script(name)
    experiment = EXPERIMENTS[name]
    quiet = ("recording=none", "plots=none")
    config = load(without_hydra(compose([f"experiment={experiment}", *quiet, *overrides], config_dir)))
    config = check_ready(config)
    numbers = dict(override.split("=", 1) for override in overrides if "=" in override)
    numbers = {key: value for key, value in numbers.items() if name not in DATA or key not in _of_data()}
    source(name, numbers)  # raises UserError for those that it does not have
    print(f"{name} and experiment={experiment}, seed {config.seed}, iterations {config.task.n_iter}", flush=True)
    with scratch() as directory:
        if name in DATA:
            folder: Path = getattr(config.task_class(config.task), FOLDER)
            (directory / DATA[name]).symlink_to(folder.resolve(), target_is_directory=True)
        theirs = losses(name, numbers, directory)
    return _compare(theirs, _ours(config))


def _of_data() -> tuple[str, ...]:
    """Keys that say where data are."""
    return "task.data", "task.simulated.training", "task.simulated.test"


def _ours(config: Config) -> Losses:
    with contextlib.closing(make_trainer(draw_parameters(config))) as trainer:
        return [(record.row.phase, record.row.metrics["loss"]) for record in trainer.records()]


def _compare(theirs: Losses, ours: Losses) -> int:
    print(f"{'batch':>5}  {'phase':14}  {'NEST script':>19}  {'eprop-run':>19}  {'difference':>10}")
    worst = 0.0
    for number, ((phase, loss), (own_phase, own)) in enumerate(zip(theirs, ours, strict=False), start=1):
        difference = abs(own - loss) / abs(loss) if loss else abs(own)
        if not difference <= worst or own_phase != phase:  # nan is worse than any
            worst = difference if own_phase == phase else float("nan")
        shown = phase if own_phase == phase else f"{phase}/{own_phase}"
        print(f"{number:5}  {shown:14}  {loss:19.16g}  {own:19.16g}  {difference:10.2g}")
    if len(theirs) != len(ours):
        print(f"differ: the script has {len(theirs)} batches, eprop-run {len(ours)}")
        return DIFFERS
    agree = worst <= ALLOWED
    print(f"{'equal' if agree else 'differ'}: at most {worst:.2g} of a loss, where {ALLOWED:g} is allowed")
    return 0 if agree else DIFFERS
