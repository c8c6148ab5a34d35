"""What is given types quickly is what OmegaConf makes of it."""

from dataclasses import dataclass, field
from typing import Any, List  # noqa: UP035

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from small import compose

from eprop_cli.config import load as loading
from eprop_cli.config.typed import OtherTypeError, build, convert


@dataclass
class Inner:
    number: float
    names: list[str]


@dataclass
class Outer:
    whole: int
    number: float
    maybe: float | None
    flag: bool
    text: str
    maybe_text: str | None
    numbers: list[float]
    wholes: list[int] | None
    anything: Any
    inner: Inner
    inners: list[Inner]


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.sampled_from(["", "a", "1", "1e3", "true"])
)
VALUES = {
    "whole": st.integers(-10, 10) | SCALARS,
    "number": st.floats(allow_nan=False) | SCALARS,
    "maybe": st.floats(allow_nan=False) | SCALARS,
    "flag": st.booleans() | SCALARS,
    "text": st.just("a") | SCALARS,
    "maybe_text": st.just("a") | SCALARS,
    "numbers": st.lists(st.floats(allow_nan=False)) | st.lists(SCALARS) | SCALARS,
    "wholes": st.lists(st.integers(-10, 10)) | st.lists(SCALARS) | SCALARS,
    "anything": SCALARS | st.lists(SCALARS) | st.fixed_dictionaries({"a": SCALARS}),
}
REFERENCES = st.sampled_from(
    [
        *("${number}", "${.number}", "${whole}", "${text}", "${flag}", "${maybe}", "${anything}", "${inner.number}"),
        *("${..number}", "${...whole}", "${inner}", "${inners}", "${nowhere}", "a${text}", "${whole}0", "${number"),
        *("\\${text}", "${oc.select:text}", "???"),
    ]
)
INNER = st.fixed_dictionaries(
    {"number": VALUES["number"] | REFERENCES, "names": st.lists(st.just("a") | SCALARS | REFERENCES)}
)
GROUPS = {"inner": INNER, "inners": st.lists(INNER, max_size=2)}
RIGHT = {
    **{"whole": 1, "number": 0.5, "maybe": None, "flag": True, "text": "a", "maybe_text": "b", "numbers": [0.5]},
    **{"wholes": None, "anything": {"a": [1]}, "inner": {"number": 1, "names": []}, "inners": []},
}


def quickly(kind, plain):
    return build(kind, convert(kind, plain))


def by_omegaconf(plain):
    composed = OmegaConf.create(plain)
    loading._make_whole(Outer, composed)
    merged = OmegaConf.merge(OmegaConf.structured(Outer), composed)
    OmegaConf.resolve(merged)
    return OmegaConf.to_object(merged)


KEYS = st.sampled_from(sorted(VALUES | GROUPS))
PAIRS = KEYS.flatmap(lambda key: st.tuples(st.just(key), (VALUES | GROUPS)[key] | REFERENCES))


@settings(max_examples=150, deadline=None)
@given(st.lists(PAIRS, min_size=1, max_size=3))
def test_what_it_takes_omegaconf_takes_so(pairs):
    plain = RIGHT | dict(pairs)
    try:
        found = quickly(Outer, plain)
    except OtherTypeError:
        return
    assert repr(found) == repr(by_omegaconf(plain))  # which tells 1 from 1.0


@pytest.mark.parametrize(
    ("other", "key"),
    [
        *(({"maybe": "${number}", "number": 1}, "maybe"), ({"text": "${maybe_text}"}, "text")),
        *(({"anything": "${number}", "number": 1}, "anything"), ({"whole": "${anything}", "anything": 3}, "whole")),
        ({"inner": {"number": "${..number}", "names": []}, "number": 2, "maybe": "${inner.number}"}, "maybe"),
    ],
)
def test_it_follows_references(other, key):
    found = quickly(Outer, RIGHT | other)
    assert "${" not in str(getattr(found, key))
    assert repr(found) == repr(by_omegaconf(RIGHT | other))


@pytest.mark.parametrize(
    ("key", "value"),
    [("whole", 3.0), ("number", 3), ("maybe", 3), ("maybe_text", None), ("numbers", [1, 2.5]), ("wholes", [1])],
)
def test_it_takes_what_is_usual(key, value):
    assert repr(quickly(Outer, RIGHT | {key: value})) == repr(by_omegaconf(RIGHT | {key: value}))


@pytest.mark.parametrize(
    "other",
    [
        *({"whole": 0.5}, {"whole": True}, {"number": "1"}, {"number": 2**60 + 1}, {"wholes": [1.0]}, {"text": None}),
        *({"inner": {"number": 1.0}}, {"more": 1}, {"numbers": 1.0}, {"inners": [{}]}, {"text": "???"}),
        *({"text": "a${maybe_text}"}, {"whole": "${number}", "number": 1}, {"anything": "${inner}"}),
        *({"number": "${maybe}", "maybe": "${number}"}, {"number": "${nowhere}"}, {"numbers": ["${number}"]}),
    ],
)
def test_it_leaves_the_rest(other):
    with pytest.raises(OtherTypeError):
        convert(Outer, RIGHT | other)


@dataclass
class Several:
    key: int | str


@dataclass
class BareList:
    key: List  # noqa: UP006


@dataclass
class OfADefault:
    key: Inner = field(default_factory=lambda: Inner(1.0, []))


@dataclass
class OfAnyDefault:
    key: Any = (1, 2)


@dataclass
class WrongDefault:
    key: int = "a"


@dataclass(frozen=True)
class Frozen:
    key: int


@dataclass
class NotGiven:
    key: int = field(init=False, default=1)


@pytest.mark.parametrize("kind", [Several, BareList, OfADefault, OfAnyDefault, WrongDefault, Frozen, NotGiven])
@pytest.mark.parametrize("value", [1, [1], {"number": 1.0, "names": []}], ids=str)
def test_it_leaves_types_that_it_does_not_know_or_whose_default_means_something(kind, value):
    with pytest.raises(OtherTypeError):
        convert(kind, {"key": value})


@pytest.mark.parametrize(
    "overrides",
    [
        *(["experiment=smoke"], ["experiment=smoke", "logger=tensorboard"], ["experiment=handwriting"]),
        *(["experiment=digits"], ["experiment=large"], ["experiment=sine_waves_eprop_iaf_adapt"]),
    ],
    ids=" ".join,
)
def test_configs_are_loaded_quickly_and_the_same(overrides, monkeypatch):
    composed = compose(*overrides)
    with monkeypatch.context() as patch:
        patch.setattr(loading, "_by_omegaconf", None)
        found = loading.load(composed)
    monkeypatch.setattr(loading, "_quickly", lambda *_: None)
    assert repr(loading.load(composed)) == repr(found)
