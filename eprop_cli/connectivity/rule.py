"""What a connectivity rule is: it says how many synapses a projection has, and draws them."""

from dataclasses import MISSING, dataclass, fields
from types import NoneType
from typing import Any, ClassVar, get_args, get_type_hints

import numpy as np
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from eprop_cli.connectivity.base import ends
from eprop_cli.connectivity.mask import Mask
from eprop_cli.errors import ConfigError, require
from eprop_cli.registry import variant
from eprop_cli.schema import KINDS, Group, check_rules

BEFORE, AFTER, FROM_WEIGHTS = "before", "after", "with trained"


@dataclass(kw_only=True)
class RuleConfig(Group):
    """The keys that every rule has.

    allow_autapses: synapses from a recurrent neuron to itself; of no meaning for other projections.
    allow_multapses: several synapses between two neurons, which cannot be had.
    """

    rule: str
    allow_autapses: bool = False
    allow_multapses: bool = False

    def __post_init__(self) -> None:  # make_rule checks, which knows the projection's key
        pass


class ConnectionRule:
    """A rule with its config, for one projection.

    is_all: whether it always gives all synapses.
    when: BEFORE weights are drawn, so that only existing synapses get one; AFTER them, from the same random stream, of
        whole matrices; FROM_WEIGHTS: they come with synapse.weights_from.
    """

    Config: ClassVar[type[RuleConfig]] = RuleConfig
    is_all: ClassVar[bool] = False
    when: ClassVar[str] = BEFORE

    def __init__(self, config: Any, projection: str) -> None:
        self.config, self.key = config, f"connectivity.{projection}"
        pre, post = ends(projection)
        self.without_self = pre == post and not config.allow_autapses

    def check(self, n_pre: int, n_post: int) -> None:
        """Raise ConfigError for what cannot be between so many neurons."""

    def expected(self, n_pre: int, n_post: int) -> float:
        """About how many synapses will be drawn."""
        return float(n_pre * n_post)

    def draw(self, rng: np.random.RandomState, n_pre: int, n_post: int) -> Mask:
        """Draw the synapses."""
        raise NotImplementedError


def make_rule(projection: str, value: Any) -> ConnectionRule:
    """The rule that a config gives as a name, or as {rule: NAME, KEY: VALUE}; raises ConfigError."""
    key = f"connectivity.{projection}"
    try:
        given = read_rule(value)
    except (YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(key, value, "must be the keys of a rule, as in {rule: bernoulli, p: 0.1}") from error
    whole = isinstance(given, dict) and isinstance(given.get("rule"), str)
    require(whole, key, value, "must be the name of a rule, or its keys, as in {rule: bernoulli, p: 0.1}")
    try:
        rule_class = variant("connectivity", given["rule"])
    except ConfigError as error:  # it cannot know of which projection
        raise ConfigError(key, given["rule"], str(error).partition(": ")[2]) from error
    known = {each.name: each for each in fields(rule_class.Config)}
    for name in given:
        constraint = f"is no key of rule {given['rule']}, which has {', '.join(known)}"
        require(name in known, f"{key}.{name}", given[name], constraint)
    for name, each in known.items():
        needed = each.default is MISSING and each.default_factory is MISSING
        require(name in given or not needed, key, value, f"needs {name}, as in {{rule: {given['rule']}, {name}: ...}}")
    config = rule_class.Config(**{name: _typed(rule_class, key, name, given[name]) for name in given})
    check_rules(config, key)
    constraint = "must be false: at most one synapse between two neurons can be computed"
    require(not config.allow_multapses, f"{key}.allow_multapses", config.allow_multapses, constraint)
    rule = rule_class(config, projection)
    assert isinstance(rule, ConnectionRule)
    return rule


def read_rule(value: Any) -> Any:
    """The keys of a rule that is given as a name, as keys, or as text of keys; raises what YAML raises for the last."""
    if isinstance(value, str) and value.startswith("{"):  # text, which unlike keys is replaced and not merged
        return OmegaConf.to_container(OmegaConf.create(value))
    return {"rule": value} if isinstance(value, str) else value


def _typed(rule_class: type[Any], key: str, name: str, value: Any) -> Any:
    """A value in the type that its key has."""
    hint = get_type_hints(rule_class.Config)[name]
    kind = next((each for each in get_args(hint) if each is not NoneType), hint)
    if type(value) is kind:
        return value
    try:
        typed = OmegaConf.select(OmegaConf.merge(OmegaConf.structured(rule_class.Config), {name: value}), name)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{key}.{name}", value, f"must be {KINDS.get(kind, 'of another kind')}") from error
    return typed
