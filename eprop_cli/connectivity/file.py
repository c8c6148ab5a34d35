"""Synapses from a file: SciPy's npz, an array (npz, npy), or Matrix Market (mtx); not 0 where there is one."""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eprop_cli.connectivity.mask import Mask, of_pairs
from eprop_cli.connectivity.rule import ConnectionRule, RuleConfig
from eprop_cli.errors import ConfigError, require


@dataclass(kw_only=True)
class FileConfig(RuleConfig):
    """Keys of {rule: file}."""

    path: str


class File(ConnectionRule):
    """connectivity.PROJECTION={rule: file, path: PATH}; a matrix (n_post, n_pre), as everywhere."""

    Config = FileConfig
    config: FileConfig

    def draw(self, rng: np.random.RandomState, n_pre: int, n_post: int) -> Mask:
        """Read the file."""
        key, path = f"{self.key}.path", self.config.path
        try:
            found = _read(Path(path))
        except FileNotFoundError as error:
            raise ConfigError(key, path, "does not exist") from error
        except (OSError, ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            why = " ".join(str(error).split())[:100]
            raise ConfigError(key, path, f"must be a readable matrix, .npz, .npy or .mtx ({why})") from error
        constraint = f"has a matrix of shape {found.shape}, but must have {(n_post, n_pre)}, (n_post, n_pre)"
        require(found.shape == (n_post, n_pre), key, path, constraint)
        pre, post = found.col, found.row
        autapses = int((pre == post).sum()) if self.without_self else 0
        constraint = f"has {autapses} autapses; take them out, or set {self.key}.allow_autapses=true"
        require(autapses == 0, key, path, constraint)
        return of_pairs(pre, post, n_pre, n_post)


def _read(path: Path) -> Any:
    """A matrix as SciPy's coo_array without zeros."""
    from scipy import io, sparse

    if path.suffix == ".mtx":
        matrix = sparse.coo_array(io.mmread(path))
    elif path.suffix == ".npy":
        matrix = sparse.coo_array(np.load(path, allow_pickle=False))
    else:
        with np.load(path, allow_pickle=False) as file:
            names = file.files
            array = file[names[0]] if len(names) == 1 else None
        matrix = sparse.coo_array(sparse.load_npz(path) if array is None else array)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix
