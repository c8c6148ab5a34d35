"""Who imports whom in a package, read from the sources: imports inside functions and for type checkers count too."""

import ast
from collections import deque
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path
from typing import NamedTuple


class Arrow(NamedTuple):
    """A file imports another; both relative to the package's parent."""

    source: Path
    line: int
    target: Path

    def __str__(self) -> str:
        return f"{self.source}:{self.line} imports {self.target}"


def modules(package: Path) -> dict[str, Path]:
    """Dotted name -> file, relative to the package's parent."""
    files = [path.relative_to(package.parent) for path in sorted(package.rglob("*.py"))]
    return {".".join(file.with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def arrows(package: Path) -> list[Arrow]:
    """All imports of a package's modules by its modules."""
    files = modules(package)
    found = []
    for name, file in files.items():
        home = name if file.stem == "__init__" else name.rpartition(".")[0]
        for node in ast.walk(ast.parse((package.parent / file).read_text())):
            targets = {_module(imported, files) for imported in _imported(node, home)} - {None}
            found += [Arrow(file, node.lineno, files[target]) for target in sorted(targets)]
    return found


def _imported(node: ast.AST, home: str) -> Iterator[str]:
    """Dotted names that a statement in a module of the package home asks for."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        origin = resolve_name("." * node.level + (node.module or ""), home) if node.level else node.module
        names = [alias.name for alias in node.names if not alias.name.startswith("__")]  # __version__ needs no floor
        yield from (f"{origin}.{name}" for name in names)


def _module(name: str, files: dict[str, Path]) -> str | None:
    """The module in which a dotted name is found: itself or the nearest above it; None if it is another package's."""
    while name and name not in files:
        name = name.rpartition(".")[0]
    return name or None


def circles(found: list[Arrow]) -> list[list[Arrow]]:
    """The shortest circle through each file that is on one, each circle once."""
    leaving: dict[Path, list[Arrow]] = {}
    for arrow in found:
        leaving.setdefault(arrow.source, []).append(arrow)
    found_first: dict[frozenset[Path], list[Arrow]] = {}
    for file in sorted(leaving):
        if circle := _back(file, leaving):
            found_first.setdefault(frozenset(arrow.source for arrow in circle), circle)
    return list(found_first.values())


def _back(start: Path, leaving: dict[Path, list[Arrow]]) -> list[Arrow]:
    """The shortest way from a file back to itself; empty if there is none."""
    ways, seen = deque([[arrow] for arrow in leaving[start]]), set()
    while ways:
        way = ways.popleft()
        here = way[-1].target
        if here == start:
            return way
        if here not in seen:
            seen.add(here)
            ways.extend([*way, arrow] for arrow in leaving.get(here, ()))
    return []


def late_imports(package: Path) -> dict[Path, list[int]]:
    """File -> the lines on which it imports something inside a function."""
    found = {}
    for file in modules(package).values():
        tree = ast.parse((package.parent / file).read_text())
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        inside = [node for function in functions for node in ast.walk(function)]
        lines = {node.lineno for node in inside if isinstance(node, ast.Import | ast.ImportFrom)}
        if lines:
            found[file] = sorted(lines)
    return found
