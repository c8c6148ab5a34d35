"""What is taken of the arguments in a sweep.json: keys of the config, and of Hydra what can do no harm."""

import functools
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from eprop_cli.config.composed import without_hydra
from eprop_cli.config.composition import BAD_INPUTS
from eprop_cli.config.files import conf_dir
from eprop_cli.config.foreign import check_trusted
from eprop_cli.errors import ConfigError, UserError
from eprop_cli.runs.files import SWEEP
from eprop_cli.schema import flatten
from eprop_cli.sweeps.record import SweepRecord

FILES = {  # of Hydra's groups, those that can be chosen
    "hydra/launcher": ("basic", "joblib", "parallel", "slurm", "slurm_local", "submitit_slurm", "submitit_local"),
    "hydra/sweeper": ("basic", "optuna", "eprop_optuna"),
    "hydra/sweeper/sampler": ("tpe", "random", "cmaes", "grid", "qmc", "gp", "nsgaii", "brute_force"),
    "hydra/sweeper/pruner": (
        *("none", "median", "percentile", "successive_halving", "hyperband", "patient", "threshold"),
    ),
}
WORD = r"[\w.,:@+*/ -]*"
LAUNCHER = (
    *("n_jobs", "batch_size", "pre_dispatch", "name", "partition", "account", "qos", "constraint", "nodes", "exclude"),
    *("nodelist", "cpus_per_task", "tasks_per_node", "gpus_per_node", "gpus_per_task", "gres", "mem_gb", "mem_per_cpu"),
    *("timeout_min", "signal_delay_s", "max_num_timeout", "array_parallelism", "verbose"),
)
SWEEPER = ("n_trials", "n_jobs", "direction", "max_failure_rate", "study_name", "max_batch_size")
OPTUNA = r"(sampler|pruner)\.[a-z]\w*"  # keys of the class that the file names
HARMLESS = re.compile(rf"hydra\.(launcher\.({'|'.join(LAUNCHER)})|sweeper\.({'|'.join(SWEEPER)}|{OPTUNA}))")
PARAMETER = re.compile(r"hydra\.sweeper\.params\.(?!hydra\b)[\w.]+")
STORAGE, STUDY = "hydra.sweeper.storage", re.compile(r"sqlite:///(?!.*\.\.)[\w .+-][\w .+/-]*|null")
BY_HYDRA = ("runtime.", "overrides.", "job.", "mode", "run.", "sweep.", "callbacks.sweep.", "help.", "hydra_help.")
RESOLVER = re.compile(r"\$\{\s*[\w.]*:|\$\{[^}]*\$\{")  # ${oc.env:HOME}, but not ${task.n_iter}


def check_arguments_of(record: SweepRecord, directory: Path, trusted: Collection[str], given: Sequence[str]) -> None:
    """Raise ConfigError for what a sweep.json must not say, unless it is given anew.

    trusted: as in check_trusted(). given: overrides of the command that resumes the sweep.
    """
    anew = {text.partition("=")[0].lstrip("+~") for text in given}
    for option, value in zip(record.options[::2], [*record.options[1::2], ""], strict=False):
        if option != "--config-dir" or not value:
            _refuse(directory, option, "give it on this command line, if you trust it")
    for text in record.overrides:
        key, _, value = text.partition("=")
        key = key.lstrip("+~")
        if key not in anew and (why := _harm(key, value)):
            _refuse(directory, text, why)
    _check_files(record, directory, trusted, anew)


def check_composed(composed: DictConfig, trusted: Collection[str], anew: Collection[str]) -> None:
    """Raise UserError for what config files that a sweep.json names must not hold, with a reason that follows."""
    plain: dict[str, Any] = {str(k): v for k, v in _plain(without_hydra(composed)).items()}
    check_trusted(plain, trusted)
    choices = composed.hydra.runtime.choices
    chosen = [f"{group}={choices[group]}" for group in FILES if choices.get(group) in FILES[group]]
    ours = _ours(tuple(chosen))
    for key, value in flatten(_plain(composed.hydra)).items():
        full = f"hydra.{key}"
        if key.startswith(BY_HYDRA) or full in anew or (key in ours and ours[key] == value):
            continue
        if why := _harm(full, str("null" if value is None else value)):
            raise UserError(f"has {full}={value}, {why}")


@functools.cache  # a sweep's jobs have one choice, and composing takes a tenth of a second
def _ours(chosen: tuple[str, ...]) -> dict[str, Any]:
    """Hydra's part of the config, by its keys, with these of our files."""
    return flatten(_plain(_load(None, chosen).hydra))


def _harm(key: str, value: str) -> str:
    """Why an argument is not taken from a directory; empty if it is."""
    plain = value.strip("'\"")
    if RESOLVER.search(value):
        return "and references to what is not in the config are not taken from a directory"
    if key in FILES:
        return "" if set(plain.split(",")) <= set(FILES[key]) else "give it on this command line, if you trust it"
    if key == STORAGE:
        return "" if STUDY.fullmatch(plain) else "give it on this command line, if you trust it"
    if not re.match(r"hydra\b", key):
        return ""
    known = PARAMETER.fullmatch(key) or (HARMLESS.fullmatch(key) and re.fullmatch(WORD, plain))
    return "" if known else "give it on this command line, if you trust it"


def _check_files(record: SweepRecord, directory: Path, trusted: Collection[str], anew: Collection[str]) -> None:
    """Compose what all jobs have in common; nothing is made of it yet."""
    place = dict(zip(record.options[::2], record.options[1::2], strict=False)).get("--config-dir")
    try:
        parsed = OverridesParser.create().parse_overrides(record.overrides)
        common = [str(each.input_line) for each in parsed if not each.is_sweep_override()]
        check_composed(_load(place, common), trusted, anew)
    except BAD_INPUTS as error:
        if not isinstance(error, UserError):
            return  # Hydra will tell
        raise ConfigError("resume", directory, f"cannot be resumed: its {SWEEP} {error}") from error


def _load(config_dir: str | None, overrides: Sequence[str]) -> DictConfig:
    path = create_config_search_path(str(conf_dir()))
    if config_dir is not None:
        path.prepend("command-line", f"file://{Path(config_dir).resolve()}", SearchPathQuery(provider="schema"))
    return ConfigLoaderImpl(path).load_configuration("config", list(overrides), RunMode.MULTIRUN)


def _plain(config: DictConfig) -> dict[str, Any]:
    container = OmegaConf.to_container(config)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _refuse(directory: Path, text: str, why: str) -> None:
    raise ConfigError("resume", directory, f"cannot be resumed: its {SWEEP} has {text}; {why}")
