"""Where Hydra finds config files: as it does, but without doing again what would give the same."""

import functools
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import resources
from typing import Any

from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import IConfigRepository
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.core_plugins.importlib_resources_config_source import ImportlibResourcesConfigSource
from hydra._internal.defaults_list import Overrides
from hydra._internal.hydra import Hydra
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_store import ConfigStore
from hydra.core.default_element import InputDefault, ResultDefault
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import DictConfig, OmegaConf

from eprop_cli.config.composed import NOT_PICKLED
from eprop_cli.config.files import conf_dir

MOST_FILES, MOST_CONFIGS = 512, 64  # that are remembered
DIRECTORY, PACKAGE = FileConfigSource.scheme(), ImportlibResourcesConfigSource.scheme()  # Hydra's own files are in one


@contextmanager
def remembered() -> Iterator[None]:
    """Have Hydra read a file again only once it has changed, and look into its store of configs without copying it.

    The same files are merged once; keys are set in a copy. Nor does Hydra compose a config to see whether it asks for
    several runs, where no file can, or list for each file what else was chosen, where nothing refers to that.
    Methods are exchanged, not classes: launchers hand Hydra's registers of classes on to other processes. The methods
    are those of the classes in its registers: Hydra loads its modules of sources afresh, whoever imported them before.
    """
    Plugins.instance()  # registers them
    if hasattr(ConfigStore, "__deepcopy__"):  # they are exchanged already
        yield
        return
    with ExitStack() as exchanged:
        for kind in (SourcesRegistry.instance().resolve(scheme) for scheme in (DIRECTORY, PACKAGE)):
            exchanged.enter_context(_exchanged(kind, "load_config", _remembering(kind.load_config)))
        exchanged.enter_context(_exchanged(ConfigStore, "__deepcopy__", _itself))
        exchanged.enter_context(_exchanged(Hydra, "get_mode", _unless_clear(Hydra.get_mode)))
        listed = _where_referred_to(defaults_list._create_interpolation_map)
        exchanged.enter_context(_exchanged(defaults_list, "_create_interpolation_map", listed))
        once = _merging_once(ConfigLoaderImpl._compose_config_from_defaults_list)
        exchanged.enter_context(_exchanged(ConfigLoaderImpl, "_compose_config_from_defaults_list", once))
        yield


@contextmanager
def _exchanged(owner: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    before = vars(owner).get(name)
    setattr(owner, name, function)
    try:
        yield
    finally:
        if before is None:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


Load = Callable[[ConfigSource, str], ConfigResult]


def _remembering(load: Load) -> Load:
    """What a file holds, a copy of its own."""

    def load_config(source: ConfigSource, config_path: str) -> ConfigResult:
        name = source._normalize_file_name(config_path)
        try:
            folder = source.path if source.scheme() == DIRECTORY else str(resources.files(source.path))
            status = os.stat(os.path.join(folder, name))
        except (OSError, ImportError, TypeError, ValueError):  # Hydra tells
            return load(source, config_path)
        state = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        result: ConfigResult = pickle.loads(_read(load, type(source), source.path, config_path, state))
        result.provider = source.provider
        return result

    return load_config


@functools.lru_cache(MOST_FILES)
def _read(load: Load, kind: type[ConfigSource], place: str, config_path: str, state: tuple[int, ...]) -> bytes:
    """What a file that is in some state holds, pickled: a copy takes five times as long."""
    return pickle.dumps(load(kind("", f"{kind.scheme()}://{place}"), config_path))


def _itself(store: ConfigStore, _memo: dict[int, Any]) -> ConfigStore:
    return store


GetMode = Callable[[Hydra, str | None, list[str]], Any]


def _unless_clear(get_mode: GetMode) -> GetMode:
    """What a config says of hydra.mode; our files say nothing of it."""

    def mode(hydra: Hydra, config_name: str | None, overrides: list[str]) -> Any:
        places = {each.provider: each.path for each in hydra.config_loader.get_search_path().get_path()}
        ours = places.keys() <= {"hydra", "main", "schema"} and places["main"] == str(conf_dir())
        said = any(text.lstrip("+~").startswith(("hydra.mode", "hydra.searchpath")) for text in overrides)
        return None if ours and not said else get_mode(hydra, config_name, overrides)

    return mode


Merge = Callable[[ConfigLoaderImpl, list[ResultDefault], IConfigRepository], DictConfig]
_merged: dict[bytes, bytes] = {}  # what is merged, and the config that comes of it, pickled


def _merging_once(merge: Merge) -> Merge:
    """The config that the files of a defaults list make, a copy of its own.

    What cannot be pickled is merged anew. A schema that Hydra has stored by the name of a file, by which it checks that
    (deprecated), must be there the first time.
    """

    def merged(loader: ConfigLoaderImpl, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        files = [repo.load_config(str(entry.config_path)) for entry in defaults]
        parts = [
            (entry.config_path, entry.package, entry.primary, file.header, file.is_schema_source, file.config)
            for entry, file in zip(defaults, files, strict=True)
            if file is not None
        ]
        try:
            key = pickle.dumps(parts)
        except NOT_PICKLED:
            return merge(loader, defaults, repo)
        if (kept := _merged.get(key)) is not None:
            found: DictConfig = pickle.loads(kept)
            return found
        config = merge(loader, defaults, repo)
        OmegaConf.clear_cache(config)  # it knows the time that it is
        if len(_merged) == MOST_CONFIGS:
            _merged.clear()
        _merged[key] = pickle.dumps(config)
        return config

    return merged


ListChosen = Callable[[Overrides, list[InputDefault], bool], DictConfig]


def _where_referred_to(list_chosen: ListChosen) -> ListChosen:
    """What else was chosen, for the entries of a defaults list that refer to it: "task: ${neuron}"."""

    def chosen(overrides: Overrides, entries: list[InputDefault], self_added: bool) -> DictConfig:
        refers = any(entry.is_interpolation() for entry in entries)
        return list_chosen(overrides, entries, self_added) if refers else OmegaConf.create()

    return chosen
