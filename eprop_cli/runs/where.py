"""Conditions on runs, such as optimizer.eta>1e-3 and status=="COMPLETED". They are read, never executed."""

import ast
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from eprop_cli.errors import UserError

MISSING = object()  # what a run does not have; it compares with nothing
WORDS = {"null": None, "true": True, "false": False}  # as a config spells them
MAX_LENGTH, MAX_DEPTH = 2000, 40
COMPARISONS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Is: operator.eq,
    ast.IsNot: operator.ne,
    ast.In: lambda value, several: value in several,
    ast.NotIn: lambda value, several: value not in several,
}
FORM = "must compare keys with values, joined by and, or, not: 'optimizer.eta>1e-3 and status==\"COMPLETED\"'"


@dataclass(frozen=True)
class Condition:
    """A condition; names: the keys in it."""

    text: str
    names: tuple[str, ...]
    tree: ast.expr

    def holds(self, value: Callable[[str], Any]) -> bool:
        """Whether it does, of a run; value: gives that of a key, or MISSING. Raises UserError for 1 < "a"."""
        return self._true(self.tree, value)

    def _value(self, node: ast.expr, value: Callable[[str], Any]) -> Any:
        if isinstance(node, ast.BoolOp):
            results = (self._true(each, value) for each in node.values)
            return all(results) if isinstance(node.op, ast.And) else any(results)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return not self._true(node.operand, value)
        if isinstance(node, ast.Compare):
            terms = [self._value(each, value) for each in (node.left, *node.comparators)]
            pairs = zip(node.ops, terms, terms[1:], strict=False)
            return all(self._compare(COMPARISONS[type(each)], left, right) for each, left, right in pairs)
        if (name := _name(node)) is not None:
            return WORDS[name] if name in WORDS else value(name)
        return _literal(node)

    def _true(self, node: ast.expr, value: Callable[[str], Any]) -> bool:
        found = self._value(node, value)
        return found is not MISSING and bool(found)

    def _compare(self, compared: Callable[[Any, Any], Any], left: Any, right: Any) -> bool:
        if left is MISSING or right is MISSING:
            return False
        try:
            return bool(compared(left, right))
        except TypeError as error:
            if left is None or right is None:
                return False
            raise UserError(f"--where {self.text}: {left!r} and {right!r} do not compare") from error


def parse_where(text: str) -> Condition:
    """The condition that a text means; raises UserError if it is none."""
    try:
        if len(text) > MAX_LENGTH:
            raise ValueError("it is too long")
        tree = ast.parse(text.strip(), mode="eval").body
        names = dict.fromkeys(_names(tree, is_condition=True))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"--where {text[:80]}: {FORM}") from error
    return Condition(text, tuple(name for name in names if name not in WORDS), tree)


def _names(node: ast.expr, is_condition: bool = False, depth: int = 0) -> list[str]:
    """The names in a condition or in what it compares; raises ValueError for whatever else is in there."""
    if depth > MAX_DEPTH:
        raise ValueError("it is too deep")
    if is_condition and isinstance(node, ast.BoolOp):
        return [name for each in node.values for name in _names(each, True, depth + 1)]
    if is_condition and isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return _names(node.operand, True, depth + 1)
    if is_condition and isinstance(node, ast.Compare):
        terms = [node.left, *node.comparators]
        several = [False, *(isinstance(each, ast.In | ast.NotIn) for each in node.ops)]
        for term, after_in in zip(terms, several, strict=True):
            if after_in and _name(term) is None and not isinstance(_literal(term), str | list):
                raise ValueError("in needs several values")
        return [name for term in terms for name in _names(term, False, depth + 1)]
    if (name := _name(node)) is not None:
        return [name]
    if is_condition:
        raise ValueError("a value alone is no condition")
    _literal(node)
    return []


def _name(node: ast.expr) -> str | None:
    """A dotted name; None if it is none."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else None


def _literal(node: ast.expr) -> Any:
    """A number, text, truth value, None, or a list of those; raises ValueError for anything else."""
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        values = [_literal(each) for each in node.elts]
        if any(isinstance(each, list) for each in values):
            raise ValueError("a list in a list")
        return values
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        number = _literal(node.operand)
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError("a sign before what is no number")
        return -number if isinstance(node.op, ast.USub) else number
    if _name(node) in WORDS:
        return WORDS[str(_name(node))]
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float | str | None):
        return node.value
    raise ValueError("not a value")
