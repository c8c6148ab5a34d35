"""Where Hydra finds config files: as it does, but without reading, or copying, what has not changed since."""

import copy
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_store import ConfigStore
from hydra.plugins.config_source import ConfigResult

MOST_FILES = 512  # that are remembered
_load = FileConfigSource.load_config


@contextmanager
def remembered() -> Iterator[None]:
    """Have Hydra read a file again only once it has changed, and look into its store of configs without copying it.

    Methods are exchanged, not classes: launchers hand Hydra's registers of classes on to other processes.
    """
    if FileConfigSource.load_config is not _load:
        yield
        return
    FileConfigSource.load_config = _remembering  # type: ignore[assignment,method-assign]
    ConfigStore.__deepcopy__ = _itself  # type: ignore[attr-defined]
    try:
        yield
    finally:
        FileConfigSource.load_config = _load  # type: ignore[method-assign]
        del ConfigStore.__deepcopy__  # type: ignore[attr-defined]


def _remembering(source: FileConfigSource, config_path: str) -> ConfigResult:
    """What a file holds, a copy of its own."""
    path = os.path.join(source.path, source._normalize_file_name(config_path))
    try:
        status = os.stat(path)
    except OSError:  # Hydra tells
        return _load(source, config_path)
    state = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    result = copy.deepcopy(_read(source.path, config_path, state))
    result.provider = source.provider
    return result


@functools.lru_cache(MOST_FILES)
def _read(directory: str, config_path: str, state: tuple[int, ...]) -> ConfigResult:
    """A file that is in some state."""
    return _load(FileConfigSource("", directory), config_path)


def _itself(store: ConfigStore, _memo: dict[int, Any]) -> ConfigStore:
    return store
