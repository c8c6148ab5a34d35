"""What is taken of a config that comes with a directory: values. Nothing in it names what is to be run.

A run directory may come from anybody. A reference, a target of Hydra's, a module of somebody's own or the address of a
scheduler, which answers with pickles, is only taken if whoever resumes it gives it, or allows it by name.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import fields
from typing import Any

from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from eprop_cli.config.config import VARIED, Config
from eprop_cli.connectivity.base import FEEDBACK, PLASTIC
from eprop_cli.connectivity.rule import read_rule
from eprop_cli.errors import UserError
from eprop_cli.registry import KEYS, is_known

MAX_DEPTH = 16  # of a config; the deepest of ours has 4
OWN_MODULE = re.compile(r"[^\W\d][\w.]*:[^\W\d]\w*")


def trusted(allowed: Iterable[str], given: Iterable[str]) -> frozenset[str]:
    """What a config may name: modules that are allowed, and what the overrides that are given name themselves."""
    pairs = [override.partition("=") for override in given]
    schedulers = [value.strip("'\"") for key, _, value in pairs if key.lstrip("+") == "engine.scheduler"]
    return frozenset([*allowed, *schedulers, *(name for _, _, value in pairs for name in OWN_MODULE.findall(value))])


def check_foreign(config: Any, trusted: Collection[str]) -> None:
    """Raise UserError unless a config holds values only; with a reason that follows the name of what holds it."""
    if not isinstance(config, dict):
        raise UserError("has no config")
    known = {field.name for field in fields(Config)}
    for key, value in _leaves(config):
        parts = key.split(".")
        if parts[0] not in known or any(part.startswith("_") for part in parts):
            raise UserError(f"has the key {key}, which is none of a config's")
        if isinstance(value, str) and "${" in value:
            raise UserError(f"has {key}={value}, and references are not taken from a directory")
    check_trusted(config, trusted)


def check_trusted(config: dict[str, Any], trusted: Collection[str]) -> None:
    """Raise UserError for a module of somebody's own, or a scheduler, that is not among those trusted."""
    for key, name in own_names(config):
        module = name.partition(":")[0]
        if not {name, module} & set(trusted):
            raise UserError(f"has {key}={name}, which is not ours; if you trust it, add --allow-module {module}")
    engine = config.get("engine")
    scheduler = engine.get("scheduler") if isinstance(engine, dict) else None
    if scheduler is not None and str(scheduler) not in trusted:
        remedy = "if you trust it, give it here, too"
        raise UserError(f"has engine.scheduler={scheduler}, whose answers are programs; {remedy}")


def own_names(config: dict[str, Any]) -> list[tuple[str, str]]:
    """Key and name of all that a config chooses that is not ours: module:Class."""
    return [(key, name) for key, group, name in _choices(config) if ":" in name and not is_known(group, name)]


def _choices(config: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Key, group and name of all that a config chooses by name."""
    for group in VARIED:
        keys = config.get(group)
        if isinstance(keys, dict):
            yield f"{group}.name", group, str(keys.get("name"))
    loggers = config.get("logger")
    for name, keys in loggers.items() if isinstance(loggers, dict) else ():
        if isinstance(keys, dict):
            yield f"logger.{name}.name", "logger", str(keys.get("name"))
    for group, key in KEYS.items():
        found: Any = config
        for part in key.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        for name in found if isinstance(found, list) else [found]:
            if name is not None:
                yield key, group, str(name)
    connectivity = config.get("connectivity")
    rules = connectivity if isinstance(connectivity, dict) else {}
    for projection in (*PLASTIC, FEEDBACK):
        try:
            rule = read_rule(rules.get(projection))
        except (YAMLError, OmegaConfBaseException):
            continue  # of which no rule is made
        if isinstance(rule, dict):
            yield f"connectivity.{projection}", "connectivity", str(rule.get("rule"))


def _leaves(tree: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Every value with its key, of lists each item."""
    if depth > MAX_DEPTH:
        raise UserError(f"has keys in keys beyond those of a config, at {key[:40]}")
    if isinstance(tree, dict):
        for name, value in tree.items():
            if not isinstance(name, str) or "${" in name:
                raise UserError(f"has the key {name}, which is none of a config's")
            yield from _leaves(value, f"{key}.{name}" if key else name, depth + 1)
        if not tree:
            yield key, None
    elif isinstance(tree, list):
        for item in tree:
            yield from _leaves(item, key, depth + 1)
    else:
        yield key, tree
