"""Turn a composed config into its typed form, or say in one line what is wrong with it."""

from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, Node, OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException, ValidationError

from eprop_cli.config.config import Config
from eprop_cli.config.groups import DataParallel, Engine, Training
from eprop_cli.connectivity.base import Synapse
from eprop_cli.errors import ConfigError, UserError, require
from eprop_cli.models.bsshslm_2020 import Neuron
from eprop_cli.optimizers.config import Adam, Optimizer
from eprop_cli.schema import KINDS, check_choice, check_magnitude, numbers
from eprop_cli.tasks import task_class

# Schemas by the group's name; the groups not listed have one, tasks name their own.
SCHEMAS: dict[str, dict[str, type]] = {
    "neuron": {"bsshslm_2020": Neuron},
    "synapse": {"bsshslm_2020": Synapse},
    "optimizer": {"adam": Adam, "gradient_descent": Optimizer},
    "training": {"continuous": Training, "data_parallel": DataParallel},
    "engine": {"nest": Engine, "compiled": Engine},
}


def load(composed: DictConfig) -> Config:
    """Check a composed config and turn it into its typed form.

    Raises UserError (most often ConfigError) with one line for the first thing wrong.
    """
    try:
        schema = OmegaConf.structured(Config)
        for group in ("task", *SCHEMAS):
            whole = isinstance(composed[group], DictConfig)
            require(whole, group, composed[group], "must be a group of keys, as a file of its own has them")
        schema.task = OmegaConf.structured(task_class(str(composed.task.name)).Config)
        for group, choices in SCHEMAS.items():
            schema[group] = OmegaConf.structured(_schema(group, composed[group], choices))
        merged = OmegaConf.merge(schema, composed)
        for key, value in numbers(OmegaConf.to_container(merged, resolve=True)):
            check_magnitude(key, value)
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise UserError(explain(error)) from error
    assert isinstance(config, Config)
    return config


def explain(error: OmegaConfBaseException) -> str:
    """OmegaConf's error as one line that begins with the key."""
    message = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, ValidationError) and (kind := _wanted(error)):
        value = error.value._value() if isinstance(error.value, Node) else error.value
        return str(ConfigError(str(error.full_key), value, f"must be {kind}"))
    if isinstance(error, MissingMandatoryValue) or message.startswith("Missing key"):
        message = "is missing"
    elif isinstance(error, ConfigKeyError):
        message = "there is no such key"
    return f"{error.full_key}: {message}" if error.full_key else message


def _schema(group: str, composed: Any, choices: dict[str, type]) -> type:
    """The schema that a group's name means."""
    key, name = f"{group}.name", composed.name
    check_choice(key, name, choices)
    keys = {other: {field.name for field in fields(schema)} for other, schema in choices.items()}
    mixed = ", ".join(other for other in choices if set(composed) == keys[other] != keys[name])
    require(not mixed, key, name, f"stands among the keys of {mixed}; choose {group}={name}, which brings its own")
    return choices[name]


def _wanted(error: OmegaConfBaseException) -> str | None:
    """What the value that an error is about should be; None if there is no telling."""
    wanted: Any = error.ref_type
    if is_dataclass(error.object_type):
        wanted = get_type_hints(error.object_type).get(str(error.key))
    elif error.object_type is list:
        (wanted,) = get_args(error.ref_type)
    if optional := isinstance(wanted, UnionType):
        wanted = next(kind for kind in get_args(wanted) if kind is not NoneType)
    if is_dataclass(wanted):
        return f"a group with the keys {', '.join(field.name for field in fields(wanted))}"
    kind = KINDS.get(get_origin(wanted) or wanted)
    return f"{kind}, or null" if kind and optional else kind
