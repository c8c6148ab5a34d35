"""Tell what is wrong with the arguments of eprop-run in one line each, in the config's terms rather than Hydra's."""

import difflib
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, QuotedString, RangeSweep
from hydra.errors import ConfigCompositionException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from eprop_cli.config.composed import RESUMED
from eprop_cli.config.files import conf_dir, own_config_dir
from eprop_cli.config.load import explain
from eprop_cli.config.words import unknown
from eprop_cli.errors import ConfigError, UserError, reason, require

FORM = "is not KEY=VALUE (see eprop-run --help), or its quotes or brackets do not match"
UNREADABLE = (YAMLError, UnicodeDecodeError, OSError)  # OmegaConf raises the last for a file without keys
NAMES = (str, QuotedString, list, dict)  # of a file, or of several; a dictionary sets the keys of a group
PLAIN = re.compile(r"[\w.@/+]+=[^'\"\\\[\]{}(),$=]+")  # KEY=VALUE without anything of Hydra's grammar
PLUGINS = {  # what files in conf/hydra build on, with package and extra
    "hydra/launcher/submitit_slurm": ("hydra-submitit-launcher", "slurm"),
    "hydra/launcher/submitit_local": ("hydra-submitit-launcher", "slurm"),
}


def check_arguments(arguments: Sequence[str]) -> None:
    """Raise UserError for what Hydra would tell in many lines; leaves to Hydra what it tells in one."""

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}; see eprop-run --help and --hydra-help")

    parser: Any = get_args_parser()
    parser.error = refuse
    parsed = parser.parse_args(arguments)
    if parsed.experimental_rerun is not None:
        raise UserError(f"--experimental-rerun {parsed.experimental_rerun}: is Hydra's; use resume=RUN_DIR")
    if parsed.config_name not in (None, "config", RESUMED):
        for place in filter(None, (parsed.config_dir, conf_dir())):
            if (path := Path(place) / f"{parsed.config_name.removesuffix('.yaml')}.yaml").is_file():
                remedy = "must have config in its defaults list; an experiment is chosen by experiment=NAME"
                require(_has_config(path, set()), "--config-name", parsed.config_name, remedy)
                break
    check_overrides(parsed.overrides)


def _has_config(path: Path, seen: set[Path]) -> bool:
    """Whether a file has conf/config.yaml among its defaults, or among those of files beside it."""
    if path in seen or not path.is_file():
        return False
    content = OmegaConf.to_container(OmegaConf.load(path))
    defaults = content.get("defaults") if isinstance(content, dict) else None
    names = [str(entry).lstrip("/") for entry in defaults if isinstance(entry, str)] if defaults else []
    return "config" in names or any(_has_config(path.with_name(f"{name}.yaml"), {*seen, path}) for name in names)


def in_order(arguments: Sequence[str]) -> list[str]:
    """Arguments with the options first: among overrides Hydra would not find them. Adds EPROP_CONFIG_DIR's."""
    parser: Any = get_args_parser()
    options: list[str] = []
    others: list[str] = []
    left = list(arguments)
    while left:
        argument = left.pop(0)
        if not argument.startswith("-") or argument in ("-", "--"):
            others.append(argument)
            continue
        options.append(argument)
        action = parser._option_string_actions.get(argument)
        if action is not None and left and (action.nargs is None or left[0] in (action.choices or ())):
            options.append(left.pop(0))
    own = own_config_dir()
    if own is not None and not any(option.startswith(("--config-dir", "-cd")) for option in options):
        options += ["--config-dir", str(own)]
    return [*options, *others]


def with_quotes(arguments: Iterable[str]) -> list[str]:
    """Arguments with quotes around values that Hydra does not take without, though they are plain words: "ü"."""
    return [
        _quoted(argument) if PLAIN.fullmatch(argument) and not argument.isascii() else argument
        for argument in arguments
    ]


def _quoted(argument: str) -> str:
    key, _, value = argument.partition("=")
    return f"{key}='{value}'"


def check_overrides(overrides: Iterable[str]) -> None:
    """Raise UserError for an override without a key, or of a group by something other than a name."""
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        group = override.key_or_group
        if not group:
            raise UserError(f"{override.input_line}: {FORM}")
        if override.is_delete() or not (conf_dir() / group).is_dir():
            continue
        if unnamed := [value for value in _values(override) if not isinstance(value, NAMES)]:
            options = sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))
            constraint = f"must be one of {', '.join(options)}" if options else "cannot be set as a whole"
            raise ConfigError(group, unnamed[0], constraint)


def _values(override: Override) -> list[Any]:
    """The values of an override that are there to see."""
    value: Any = override.value()
    if isinstance(value, ChoiceSweep):
        return list(value.list)
    if isinstance(value, RangeSweep):
        return [value.start]
    return [] if override.is_sweep_override() else [value]


def one_line(error: Exception) -> str:
    """What is wrong with an input, with the nearest name to one that does not exist."""
    if isinstance(error, UNREADABLE) and not isinstance(error, MissingConfigException):  # which is an OSError too
        return _unreadable(error)
    if isinstance(error, RecursionError):
        return "a config file has itself in its defaults, or in those of a file in them"
    if isinstance(error, OverrideParseException):
        return f"{error.override.strip() or repr(error.override)}: {_how_wrong(error)}"
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={name}: must be one of {', '.join(error.options)}{_nearest(name, error.options)}"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file in PLUGINS:
        package, extra = PLUGINS[error.missing_cfg_file]
        group, _, name = str(error).split("'")[1].rpartition("/")  # of the file that builds on it
        return f"{group}={name}: needs {package}, which is not installed; pip install '.[{extra}]' in the checkout"
    message = explain(error) if isinstance(error, OmegaConfBaseException) else str(error)
    if message.startswith("Ambiguous value for argument '"):
        given = message.split("'")[1]
        return f"{given}: has several values; add -m for a run with each, or write a list as [a, b]"
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(error, ConfigCompositionException) and message.startswith("Error merging override"):
        override = message.splitlines()[0].removeprefix("Error merging override").strip()
        return f"{override}: {str(cause).splitlines()[0]}"
    for noise in ("\nTo append to your config", "\nConfig search path"):  # the schema takes no further keys
        message = message.split(noise)[0]
    message = " ".join(message.split())
    missing = cause.full_key if isinstance(cause, ConfigKeyError | ConfigAttributeError) else None
    if match := re.match(r"Could not (override|delete from|append to)[^']*'?([^' ]+)", message):
        if match[1] == "append to":
            return f"+{match[2]}: is there already; leave out the +"
        return f"{match[2]}: {unknown(missing or match[2])}"
    if missing and not message.endswith("is missing"):
        return f"{missing}: {unknown(missing)}"
    return message.rstrip(".")


def _unreadable(error: Exception) -> str:
    """What is wrong with a file in --config-dir, which not every error names."""
    directory = get_args_parser().parse_known_args(sys.argv[1:])[0].config_dir
    for path in sorted(Path(directory).rglob("*.yaml")) if directory else []:
        try:
            OmegaConf.load(path)
        except MarkedYAMLError as fault:
            line = f", line {fault.problem_mark.line + 1}" if fault.problem_mark else ""
            return f"{path}: is not YAML ({fault.problem}{line})"
        except UNREADABLE as fault:
            return f"{path}: cannot be read as keys and values ({reason(fault)})"
    return reason(error)


def _how_wrong(error: OverrideParseException) -> str:
    """The reason where a function refused its arguments; else Hydra's are about its grammar."""
    lines = str(error).splitlines()
    return next((line for line in lines if "while evaluating" in line), FORM)


def _nearest(name: str, names: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.7)
    return f". Did you mean {nearest[0]}?" if nearest and nearest[0] != name else ""
