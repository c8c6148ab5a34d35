"""Compose a config as eprop-run does, in whatever process and thread, leaving Hydra's globals as they are."""

import errno
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import setup_globals
from hydra.errors import HydraException
from hydra.types import RunMode
from hydra.version import VersionBase, setbase
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from eprop_cli.config.arguments import check_overrides, one_line
from eprop_cli.config.composed import RESUMED
from eprop_cli.config.files import conf_dir, own_config_dir
from eprop_cli.config.sources import remembered
from eprop_cli.errors import UserError

BAD_INPUTS = (UserError, HydraException, OmegaConfBaseException, YAMLError, UnicodeDecodeError)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)  # what keeps Hydra from writing its files
_composing = threading.Lock()


def is_bad_input(error: Exception) -> bool:
    """Whether an error is to be told in one line, as what was given is wrong."""
    return isinstance(error, BAD_INPUTS) or _is_of_a_file(error)


def _is_of_a_file(error: BaseException) -> bool:
    """Whether Hydra stumbled over what a config file or argument holds, and raised what it does not mean to raise."""
    if isinstance(error, OSError) and error.errno in FULL:
        return False
    frames = [Path(frame.filename).parts for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, OSError):  # a full disk, for one
        return False
    if isinstance(error, RecursionError):  # wherever the stack came to its end
        return any("hydra" in parts for parts in frames)
    return bool(frames) and any(name in frames[-1] for name in ("hydra", "omegaconf", "yaml"))


def run_dir(resume: str | None, fresh: str) -> str:
    """The resolver eprop.run_dir of conf/config.yaml."""
    return resume or fresh


def compose(
    overrides: Sequence[str], config_dir: Path | None = None, base: Mapping[str, Any] | None = None
) -> DictConfig:
    """The config of some overrides with Hydra's own part, in which hydra.runtime.output_dir is the run directory.

    config_dir: of config files besides conf/. base: the plain values that the overrides are applied to, in place of
    conf/config.yaml.
    Raises UserError with one line for the first thing wrong.
    """
    config_dir = own_config_dir() if config_dir is None else config_dir
    if config_dir is not None and not config_dir.is_dir():
        raise UserError(f"config_dir={config_dir}: is not a directory")
    try:
        with _composing, _version_base("1.3"), remembered():
            for override in OverridesParser.create().parse_overrides(list(overrides)):
                if override.is_sweep_override():
                    raise UserError(f"{override.input_line}: has several values; run each, or write a list as [a, b]")
            check_overrides(overrides)
            setup_globals()
            OmegaConf.register_new_resolver("eprop.run_dir", run_dir, replace=True)
            path = create_config_search_path(str(conf_dir()))
            if config_dir is not None:
                # As --config-dir does, for a resume to find it.
                path.prepend("command-line", f"file://{config_dir.resolve()}", SearchPathQuery(provider="schema"))
            name = "config" if base is None else RESUMED
            if base is not None:
                offer(base)
            config = ConfigLoaderImpl(path).load_configuration(name, [*overrides, "hydra.mode=RUN"], RunMode.RUN)
            directory = Path(str(OmegaConf.select(config, "hydra.run.dir"))).absolute()
    except UserError:
        raise
    except Exception as error:
        if is_bad_input(error):
            raise UserError(one_line(error)) from error
        raise
    with flag_override(config.hydra, ["readonly", "struct"], False):
        config.hydra.runtime.output_dir = str(directory)
    return config


def offer(config: Mapping[str, Any]) -> None:
    """Have Hydra find a config of plain values, under the name RESUMED; a file of a group can be put on top of it."""
    top = yaml.safe_load((conf_dir() / "config.yaml").read_text())
    files = [entry for entry in top["defaults"] if isinstance(entry, dict)]
    hydras = [entry for entry in files if next(iter(entry)).startswith("override ")]
    groups = [{group: None} for entry in files for group in entry if not group.startswith("override ")]
    node = {"defaults": ["_self_", *groups, *hydras], **config, "hydra": top["hydra"]}
    ConfigStore.instance().store(RESUMED, node, provider="run.json")


@contextmanager
def _version_base(version: str) -> Iterator[None]:
    """Hydra's rules of a version, which are a global."""
    before = VersionBase.instance().version_base
    setbase(version)
    try:
        yield
    finally:
        VersionBase.instance().version_base = before
