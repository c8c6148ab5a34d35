"""Modules of the user's own that a config names: their sources, which a run keeps, and finding them there again."""

import ast
import hashlib
import importlib
import sys
import sysconfig
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.machinery import PathFinder
from importlib.util import resolve_name
from pathlib import Path
from types import ModuleType
from typing import Any

from eprop_cli.config.config import Config
from eprop_cli.config.foreign import own_names
from eprop_cli.errors import ConfigError
from eprop_cli.registry import look_here
from eprop_cli.runs.directory import check_inside
from eprop_cli.runs.files import CODE, write_bytes
from eprop_cli.schema import to_dict

Sources = Mapping[str, bytes]  # place below CODE, as in "package/module.py" -> content


def own_sources(config: Config) -> Sources:
    """The sources of the modules that a config names, and of those beside them that they import."""
    found: dict[Path, str] = {}
    for _, name in own_names(to_dict(config)):
        module = importlib.import_module(name.partition(":")[0])
        if (path := _source(module)) is not None:
            root = path.parents[module.__name__.count(".") + (path.stem == "__init__")]
            _collect(module, root, found)
    return {place: path.read_bytes() for path, place in sorted(found.items(), key=lambda pair: pair[1])}


def checksums(sources: Sources) -> dict[str, str]:
    """SHA-256 of each source, as hexadecimal digits."""
    return {place: hashlib.sha256(content).hexdigest() for place, content in sources.items()}


def keep_sources(directory: Path, sources: Sources) -> None:
    """Write sources into a run directory."""
    for place, content in sources.items():
        write_bytes(directory / CODE / place, content)


def find_kept(key: str, directory: Path, config: Mapping[str, Any], named: Collection[str]) -> None:
    """Have the modules that a config names found in the run directory that it is of, if they are not found from here.

    key: by which the directory was given. named: modules, and module:Class, that the command itself names: a module may
    have been allowed here when another directory was meant.
    Raises ConfigError for one that is kept there and not named.
    """
    look_here()
    for _, name in own_names(dict(config)):
        module = name.partition(":")[0]
        if _keeps(directory, module) and not _is_found(module):
            _check_named(key, directory, module, bool({name, module} & set(named)))
            check_inside(directory, CODE)
            sys.path.append(str((directory / CODE).absolute()))


def find_kept_by_jobs(
    key: str, sweep: Path, runs: Sequence[Path], modules: Iterable[str], named: Collection[str]
) -> str | None:
    """As find_kept() for the modules of a sweep; returns the folder where they are found, None if not in a run's.

    runs: directories of its runs, each of which keeps what it was run with.
    Raises ConfigError, too, if they do not keep the same.
    """
    look_here()
    for module in sorted(modules):
        keeping = [] if _is_found(module) else [directory for directory in runs if _keeps(directory, module)]
        if not keeping:
            continue
        _check_named(key, sweep, module, any(name.partition(":")[0] == module for name in named))
        for directory in keeping:
            check_inside(directory, CODE)
        first, *others = keeping
        if different := [other for other in others if _kept(other) != _kept(first)]:
            both = f"{first.name} and {different[0].name} keep different ones in {CODE}/"
            raise ConfigError(key, sweep, f"names {module}, which is not found from here, and {both}; put one here")
        sys.path.append(place := str((first / CODE).absolute()))
        return place
    return None


def _keeps(directory: Path, module: str) -> bool:
    place = directory / CODE / module.partition(".")[0]
    return place.is_dir() or place.with_suffix(".py").is_file()


def _kept(directory: Path) -> dict[str, bytes]:
    """What a run keeps, by place."""
    found = sorted((directory / CODE).rglob("*.py"))
    return {path.relative_to(directory / CODE).as_posix(): path.read_bytes() for path in found}


def _is_found(module: str) -> bool:
    return PathFinder.find_spec(module.partition(".")[0], ["", *sys.path]) is not None


def _check_named(key: str, directory: Path, module: str, is_named: bool) -> None:
    remedy = f"to run the one that is kept there, in {CODE}/, add --allow-module {module}"
    if not is_named:
        raise ConfigError(key, directory, f"names {module}, which is not found from here; {remedy}")


def _collect(module: ModuleType, root: Path, found: dict[Path, str]) -> None:
    """Add the source of a module, and those of modules that it imports from the same root."""
    path = _source(module)
    if path is None or path in found or not path.is_relative_to(root):
        return
    found[path] = path.relative_to(root).as_posix()
    if any(root == Path(sysconfig.get_path(name)) for name in ("purelib", "platlib", "stdlib")):
        return  # what is installed is in the list of packages
    for name in _imported(module, path):
        other = sys.modules.get(name)
        if other is not None and name.partition(".")[0] != __name__.partition(".")[0]:
            _collect(other, root, found)


def _imported(module: ModuleType, path: Path) -> Iterator[str]:
    """Dotted names of what a module imports, and of the packages that it is in."""
    parts = module.__name__.split(".")
    yield from (".".join(parts[:depth]) for depth in range(1, len(parts)))
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # it is another than the one that was imported
        return
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            with suppress(ImportError):  # of what is beyond the top
                origin = resolve_name("." * node.level + (node.module or ""), module.__package__ or "")
                names = [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:depth]) for depth in range(1, len(parts) + 1))


def _source(module: ModuleType) -> Path | None:
    """The file of a module that is written in Python."""
    place = getattr(module, "__file__", None)
    return Path(place).resolve() if place and place.endswith(".py") and Path(place).is_file() else None
