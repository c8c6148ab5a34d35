"""Where relative paths among the values of a sweep begin: where the sweep was begun, wherever it is resumed."""

import re
import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from eprop_cli.config.composed import copied
from eprop_cli.schema import flatten

# Keys of a config that name a file or a directory to read.
PATH_KEY = re.compile(r"(task|neuron|synapse)\.(\w+[._])*(data|files?|path|directory|weights_from)")
SQLITE = "sqlite:///"


def with_absolute_paths(composed: DictConfig, beginning: str | None) -> DictConfig:
    """A composed config with its relative paths from a directory on; None: as they are."""
    if beginning is None:
        return composed
    composed = copied(composed)
    for key, value in flatten(OmegaConf.to_container(composed)).items():
        named = PATH_KEY.fullmatch(key) and isinstance(value, str) and value and "${" not in value
        if named and Path(beginning, value).exists():  # a word that means something else stays
            OmegaConf.update(composed, key, str(Path(beginning, value)))
    return composed


def absolute_storage(url: str | None, beginning: str | None) -> str | None:
    """The URL of a study's storage, with the path of an SQLite file from a directory on; None: as it is."""
    if url is None or beginning is None or not url.startswith(SQLITE) or url == SQLITE:
        return url
    return SQLITE + str(Path(beginning, url.removeprefix(SQLITE)))


def find_modules_in(directory: str | None) -> None:
    """Have modules of the user's found in a directory, too: tasks may be given as module:Class."""
    if directory is not None and directory not in sys.path:
        sys.path.append(directory)
