"""Read arrays from .npz files, whoever made them: no pickles, and nothing before it is known how large it is."""

import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

NUMBERS = "fiu"  # kinds of NumPy's dtypes
# What reading what is no archive of arrays may raise.
DAMAGES: tuple[type[Exception], ...] = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)
DAMAGES += (EOFError, RuntimeError, SyntaxError, MemoryError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Header:
    """What is declared of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def n_bytes(self) -> int:
        """Bytes in memory."""
        return prod(self.shape) * self.dtype.itemsize


def read_archive(path: Path, check: Callable[[Mapping[str, Header]], None] | None = None) -> dict[str, NDArray[Any]]:
    """The arrays of an archive by their names; raises DAMAGES.

    check: raises for what is not wanted, before any array is read.
    """
    with _opened(path) as file, zipfile.ZipFile(file) as archive:
        headers: dict[str, Header] = {}
        entries = archive.infolist()
        if len({entry.filename for entry in entries}) < len(entries):
            raise ValueError("it has an array twice")
        for entry in entries:
            if entry.flag_bits & 1:
                raise ValueError("it is encrypted")
            with archive.open(entry) as member:
                headers[entry.filename.removesuffix(".npy")] = _header(member)
        most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
        if sum(header.n_bytes for header in headers.values()) > most:
            raise ValueError("its arrays are larger than half of the memory of this machine")
        if check is not None:
            check(headers)
        arrays = {}
        for name, entry in zip(headers, entries, strict=True):
            with archive.open(entry) as member:
                arrays[name] = np.lib.format.read_array(member, allow_pickle=False)  # type: ignore[no-untyped-call]
        return arrays


def read_array(path: Path, check: Callable[[Header], None]) -> NDArray[Any]:
    """The array in an .npy file; as read_archive."""
    with _opened(path) as file:
        check(_header(file))
        file.seek(0)
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)  # type: ignore[no-untyped-call]
        return array


def check_arrays(arrays: Mapping[str, Any], schema: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """Raise ValueError unless arrays, or headers, have the kinds (of dtypes, in one string) and shapes of a schema."""
    for name, (kinds, shape) in schema.items():
        if name not in arrays:
            raise ValueError(f"it has no {name}")
        array = arrays[name]
        if array.dtype.kind not in kinds or array.shape != shape:
            raise ValueError(f"its {name} is {array.dtype} of shape {array.shape}, not numbers of shape {shape}")


def check_in_range(arrays: Mapping[str, Any], names: Iterable[str], least: float, most: float) -> None:
    """Raise ValueError for a value that is not a number from least to most."""
    for name in names:
        values = np.asarray(arrays[name])
        if not np.all((values >= least) & (values <= most)):
            raise ValueError(f"its {name} has values that are not from {least:g} to {most:g}")


def _opened(path: Path) -> BinaryIO:
    if path.exists() and not path.is_file():  # a pipe would keep us waiting
        raise OSError("it is not a file")
    return path.open("rb")


def _header(file: Any) -> Header:
    version = np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"it has an array of version {version}")
    try:
        shape, _, dtype = read(file)  # type: ignore[no-untyped-call]
    except Exception as error:  # it is parsed as Python, which may fail in many ways
        raise ValueError("it has an array whose header cannot be read") from error
    if any(length < 0 for length in shape):
        raise ValueError("it has an array of a negative shape")
    if dtype.hasobject:
        raise ValueError("it has an array of objects")
    return Header(shape, dtype)
