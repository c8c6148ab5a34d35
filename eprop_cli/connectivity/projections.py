"""Config of the projections: by which rule each one's synapses are drawn; and the drawing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from eprop_cli.connectivity.base import FEEDBACK, PLASTIC, ends
from eprop_cli.connectivity.mask import NEIGHBOURS, Mask, empty
from eprop_cli.connectivity.rule import BEFORE, ConnectionRule, make_rule
from eprop_cli.errors import require
from eprop_cli.schema import PROBABILITY, Group, key, one_of

STREAM = 16  # random streams of rules begin here; those of evaluation batches are before


RANDOM, SYMMETRIC, NO_FEEDBACK = "random", "symmetric", "none"


@dataclass(kw_only=True)
class Plastic:
    """Which projections learn."""

    in_rec: bool
    rec_rec: bool
    rec_out: bool


@dataclass(kw_only=True)
class ExcitatoryFraction:
    """Fractions of neurons whose outgoing weights stay positive, the others' staying negative; None: no such law."""

    inputs: float | None = key(PROBABILITY)
    recurrent: float | None = key(PROBABILITY)


@dataclass(kw_only=True)
class Connectivity(Group):
    """The rule of each projection: a name, or a name with keys; and what weights keep to."""

    GROUP = "connectivity"

    in_rec: Any
    rec_rec: Any
    rec_out: Any
    out_rec: Any
    feedback: str = key(one_of((RANDOM, SYMMETRIC, NO_FEEDBACK)))
    plastic: Plastic
    excitatory_fraction: ExcitatoryFraction

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = self.rules[FEEDBACK]
        constraint = f"must be dense with feedback: {self.feedback}, which leaves nothing to draw; leave it out"
        require(self.feedback == RANDOM or rule.is_all, rule.key, rule.config.rule, constraint)

    @property
    def rules(self) -> dict[str, ConnectionRule]:
        """The rules, by projection, in the order of drawing."""
        return {name: make_rule(name, getattr(self, name)) for name in (*PLASTIC, FEEDBACK)}

    def check(self, sizes: Mapping[str, int]) -> None:
        """Raise ConfigError for what cannot be between so many neurons. sizes: of in, rec, out."""
        for projection, rule in self.rules.items():
            rule.check(*_sizes(projection, sizes))

    def expected(self, sizes: Mapping[str, int]) -> dict[str, float]:
        """About how many synapses each projection will have."""
        return {name: rule.expected(*_sizes(name, sizes)) for name, rule in self.rules.items()}


def draw_early(
    rules: Mapping[str, ConnectionRule], sizes: Mapping[str, int], seed: int, known: Mapping[str, Mask]
) -> dict[str, Mask]:
    """The masks that are drawn before weights are, each from a random stream of its own.

    known: masks that are there already, as those of a run that goes on.
    """
    masks: dict[str, Mask] = {}
    for number, (projection, rule) in enumerate(rules.items()):
        if projection in known and not rule.is_all:  # whose weights are drawn as a matrix, listed or not
            masks[projection] = known[projection]
        elif rule.when == BEFORE:
            rng = np.random.RandomState(np.random.MT19937(np.random.SeedSequence([seed, STREAM + number])))
            masks[projection] = checked(projection, rule.draw(rng, *_sizes(projection, sizes)), sizes)
    return masks


def checked(projection: str, mask: Any, sizes: Mapping[str, int]) -> Mask:
    """A mask that a rule has drawn, which may be a user's own; raises ConfigError if it is none of this projection."""
    n_pre, n_post = _sizes(projection, sizes)
    fits = isinstance(mask, Mask) and (mask.n_pre, mask.n_post) == (n_pre, n_post)
    key = f"connectivity.{projection}"
    require(fits, key, type(mask).__name__, f"its rule must draw a Mask of {n_pre} to {n_post} neurons")
    assert isinstance(mask, Mask)
    if mask.post is not None and len(mask.post):
        least, most = int(mask.post.min()), int(mask.post.max())
        require(least >= 0 and most < n_post, key, most, f"its rule must draw targets from 0 to {n_post - 1}")
    return mask


def aligned(masks: Mapping[str, Mask], feedback: str) -> dict[str, Mask]:
    """Masks in order, with that of the feedback; of two projections onto the same neurons both are listed, or none."""
    listed = any(not masks[projection].is_dense for projection in NEIGHBOURS)
    ordered = {projection: masks[projection] for projection in (*PLASTIC, FEEDBACK)}
    forward, backward = masks["rec_out"], masks[FEEDBACK]
    if feedback == SYMMETRIC and not forward.is_dense:
        ordered[FEEDBACK] = forward.transposed()[0]
    if feedback == NO_FEEDBACK:
        ordered[FEEDBACK] = empty(backward.n_pre, backward.n_post)
    return {name: mask.listed() if listed and name in NEIGHBOURS else mask for name, mask in ordered.items()}


def _sizes(projection: str, sizes: Mapping[str, int]) -> tuple[int, int]:
    pre, post = ends(projection)
    return sizes[pre], sizes[post]
