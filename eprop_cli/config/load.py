"""Turn a composed config into its typed form, or say in one line what is wrong with it."""

import logging
import re
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, ListConfig, Node, OmegaConf, open_dict
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException, ValidationError

from eprop_cli.config.composed import copied
from eprop_cli.config.config import VARIED, Config, default_metric
from eprop_cli.config.moved import MOVED
from eprop_cli.config.typed import OtherTypeError, build, convert, optional
from eprop_cli.errors import ConfigError, UserError, reason, require
from eprop_cli.registry import VARIANTS, is_known, variant
from eprop_cli.schema import KINDS, check_magnitude, numbers

log = logging.getLogger(__name__)


def load(composed: DictConfig) -> Config:
    """Check a composed config and turn it into its typed form.

    Raises UserError (most often ConfigError) with one line for the first thing wrong.
    """
    if "experiment" in composed:
        raise UserError("experiment: the file that was chosen must begin with the line # @package _global_")
    try:
        for group in VARIED:
            whole = isinstance(composed[group], DictConfig)
            require(whole, group, composed[group], "must be a group of keys, as a file of its own has them")
            name, choices = composed[group].name, ", ".join(VARIANTS[group])
            require(isinstance(name, str), f"{group}.name", name, f"must be one of {choices}, or module:Class")
        composed = with_new_keys(composed)
        kinds: dict[str, Any] = {group: _schema(group, composed[group]) for group in VARIED}
        composed, kinds["logger"] = _with_loggers(composed)
        composed = _with_defaults(composed)
        config = _quickly(composed, kinds) or _by_omegaconf(composed, kinds)
    except UserError:
        raise
    except OmegaConfBaseException as error:
        raise UserError(explain(error)) from error
    except Exception as error:  # whatever a Config of the user's may do
        own = [group for group in VARIED if group in composed and not is_known(group, str(composed[group].name))]
        if not own:
            raise
        names = ", ".join(f"{group}.name={composed[group].name}" for group in own)
        raise UserError(f"{names}: its Config raised {reason(error)}") from error
    return config


def _quickly(composed: DictConfig, kinds: dict[str, Any]) -> Config | None:
    """The typed config if the values of a composed one have the types of their keys already, or nearly; else None.

    kinds: of each group of VARIED and of each logger its schema.
    """
    all_kinds = get_type_hints(Config) | kinds
    try:
        values = convert(all_kinds, OmegaConf.to_container(composed))
    except OtherTypeError:
        return None
    _check_numbers(values)
    return Config(**build(all_kinds, values))


def _by_omegaconf(composed: DictConfig, kinds: dict[str, Any]) -> Config:
    """As _quickly, of any values; raises OmegaConfBaseException or UserError for what is wrong with them."""
    schema = OmegaConf.structured(Config)
    for group in VARIED:
        _check_items(kinds[group], group, composed[group])
        _make_whole(kinds[group], composed[group])
    for key, kind in kinds["logger"].items():
        _make_whole(kind, composed.logger[key])
    _make_whole(Config, composed)
    for group, kind in kinds.items():
        schema[group] = kind if isinstance(kind, dict) else OmegaConf.structured(kind)
    merged = OmegaConf.unsafe_merge(schema, composed)  # both are ours alone
    _resolve(merged)
    _check_numbers(OmegaConf.to_container(merged))
    config = OmegaConf.to_object(merged)
    assert isinstance(config, Config)
    return config


def _check_numbers(values: Any) -> None:
    for key, value in numbers(values):
        check_magnitude(key, value)


def _resolve(config: DictConfig | ListConfig) -> None:
    """Look up what each reference leads to, once for all; what OmegaConf raises names the key."""
    try:
        OmegaConf.resolve(config)
    except OmegaConfBaseException:
        OmegaConf.to_container(config, resolve=True)  # resolve() does not name it
        OmegaConf.to_object(config)
        raise


def _with_loggers(composed: DictConfig) -> tuple[DictConfig, dict[str, type]]:
    """A composed config with a group of loggers, and their schemas; a run of before had no group."""
    with open_dict(composed):
        if not composed.get("logger"):
            composed.logger = {}
    kinds: dict[str, type] = {}
    for key, keys in composed.logger.items():
        whole = isinstance(keys, DictConfig) and "name" in keys
        require(whole, f"logger.{key}", keys, "must be a group of keys with a name, as a file of its own has them")
        kinds[str(key)] = variant("logger", str(keys.name)).Config
    return composed, kinds


def _check_items(schema: Any, group: str, composed: DictConfig) -> None:
    """Raise UserError for a group of keys within a list, of which OmegaConf would not say where it stands."""
    for key, wanted in get_type_hints(schema).items():
        kind = next(iter(get_args(wanted)), None)
        items = OmegaConf.select(composed, key) if is_dataclass(kind) and get_origin(wanted) is list else None
        for index, item in enumerate(items if isinstance(items, ListConfig) else ()):
            try:
                if isinstance(item, DictConfig):
                    OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), item))
            except OmegaConfBaseException as error:
                raise UserError(f"{group}.{key}[{index}].{explain(error)}") from error


def _make_whole(schema: Any, composed: DictConfig) -> None:
    """Have 1e3 be a whole number where one is wanted."""
    present = composed.keys()  # "in composed" would look up what a reference leads to
    for key, wanted in get_type_hints(schema).items():
        if key not in present or OmegaConf.is_interpolation(composed, key) or OmegaConf.is_missing(composed, key):
            continue
        value, group = composed[key], optional(wanted) or wanted
        if is_dataclass(group) and isinstance(value, DictConfig):
            _make_whole(group, value)
        elif wanted in (int, int | None) and isinstance(value, float) and value.is_integer():
            composed[key] = int(value)


def with_new_keys(composed: DictConfig) -> DictConfig:
    """A composed config in which keys that have moved are where they belong; one line names each."""
    composed = copied(composed)
    with open_dict(composed):
        for old, new in MOVED.items():
            (group, key), (new_group, new_key) = old.split("."), new.split(".")
            if key in composed[group]:
                value = composed[group].pop(key)
                if new_key in composed[new_group]:
                    composed[new_group][new_key] = value
                log.warning("%s is now %s", old, new)
        own = {field.name for field in fields(variant("engine", str(composed.engine.name)).Config)}
        for new in MOVED.values():  # an old name may ask of an engine what makes no difference to it
            key = new.split(".")[1]
            if key in composed.engine and key not in own:
                composed.engine.pop(key)
    return composed


def _with_defaults(composed: DictConfig) -> DictConfig:
    """A composed config with the task's first loss that fits, and the metric that is the loss's, where null."""
    task, model = variant("task", str(composed.task.name)), variant("neuron", str(composed.neuron.name))
    out = composed.neuron.get("out")
    require(isinstance(out, DictConfig), "neuron.out", out, "must be a group of keys")
    if composed.neuron.out.loss is None:
        fitting = [name for name in task.losses if model.softmax or not variant("loss", name).softmax]
        composed.neuron.out.loss = (fitting or task.losses)[0]
    if composed.training.get("stop_metric") is None:
        loss = variant("loss", str(composed.neuron.out.loss))()
        columns = [metric.column for metric in loss.metrics(1, loss.needs_classes or task.has_classes)]
        with open_dict(composed):
            composed.training.stop_metric = default_metric(tuple(columns))
    return composed


def explain(error: OmegaConfBaseException) -> str:
    """OmegaConf's error as one line that begins with the key."""
    message = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, ValidationError) and (kind := _wanted(error)):
        value = error.value._value() if isinstance(error.value, Node) else error.value
        return str(ConfigError(str(error.full_key), value, f"must be {kind}"))
    if match := re.search(r"Missing mandatory value: (\S+)$", message):  # what another key refers to
        return f"{match[1]}: is missing"
    if isinstance(error, MissingMandatoryValue) or message.startswith("Missing key"):
        message = "is missing"
    elif isinstance(error, ConfigKeyError):
        message = "there is no such key"
    return f"{error.full_key}: {message}" if error.full_key else message


def _schema(group: str, composed: Any) -> type:
    """The schema that a group's name means."""
    name = str(composed.name)
    schema: type = variant(group, name).Config
    own = {field.name for field in fields(schema)}
    if is_known(group, name) and set(composed) != own:
        others = {other: {field.name for field in fields(variant(group, other).Config)} for other in VARIANTS[group]}
        mixed = ", ".join(other for other, keys in others.items() if set(composed) == keys)
        constraint = f"stands among the keys of {mixed}; choose {group}={name}, which brings its own"
        require(not mixed, f"{group}.name", name, constraint)
    return schema


def _wanted(error: OmegaConfBaseException) -> str | None:
    """What the value that an error is about should be; None if there is no telling."""
    wanted: Any = error.ref_type
    if is_dataclass(error.object_type):
        wanted = get_type_hints(error.object_type).get(str(error.key))
    elif error.object_type is list:
        own = error.ref_type if get_origin(error.ref_type) is list else next(iter(get_args(error.ref_type)), None)
        wanted = next(iter(get_args(own)), None)
    if optional := isinstance(wanted, UnionType):
        wanted = next(kind for kind in get_args(wanted) if kind is not NoneType)
    if is_dataclass(wanted):
        return f"a group with the keys {', '.join(field.name for field in fields(wanted))}"
    kind = KINDS.get(get_origin(wanted) or wanted)
    return f"{kind}, or null" if kind and optional else kind
