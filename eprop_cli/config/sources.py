"""Where Hydra finds config files: as it does, but without reading, or copying, what has not changed since."""

import copy
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult

MOST_FILES = 512  # that are remembered


class RememberedFiles(FileConfigSource):
    """Hydra's folder of config files, of which a file is read again only once it has changed."""

    def load_config(self, config_path: str) -> ConfigResult:
        """As Hydra's: what a file holds, a copy of its own."""
        path = os.path.join(self.path, self._normalize_file_name(config_path))
        try:
            status = os.stat(path)
        except OSError:  # Hydra tells
            return super().load_config(config_path)
        state = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        result = copy.deepcopy(_read(self.path, config_path, state))
        result.provider = self.provider
        return result


@functools.lru_cache(MOST_FILES)
def _read(directory: str, config_path: str, state: tuple[int, ...]) -> ConfigResult:
    """A file that is in some state."""
    return FileConfigSource("", directory).load_config(config_path)


@contextmanager
def remembered() -> Iterator[None]:
    """Have Hydra read by RememberedFiles, and not copy its store of configs, which it only reads, to look into it."""
    Plugins.instance()  # registers Hydra's own
    types, scheme = SourcesRegistry.instance().types, FileConfigSource.scheme()
    if types[scheme] is RememberedFiles:
        yield
        return
    before, types[scheme] = types[scheme], RememberedFiles
    ConfigStore.__deepcopy__ = _itself  # type: ignore[attr-defined]
    try:
        yield
    finally:
        types[scheme] = before
        del ConfigStore.__deepcopy__  # type: ignore[attr-defined]


def _itself(store: ConfigStore, _memo: dict[int, Any]) -> ConfigStore:
    return store
