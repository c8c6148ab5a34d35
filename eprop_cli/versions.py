"""Versions of eprop-cli, with the commit that it is of, and of what results depend on; nothing is imported for them."""

import contextlib
import functools
import importlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

RELEASE = "0.2.0"
COMMIT = "commit.txt"  # beside this file in what hatch_build.py has built: the commit, with -dirty if it had changes
PACKAGES = ("hydra-core", "omegaconf", "numpy", "pandas", "pyarrow", "matplotlib", "loky", "numba")
NEST = "nest-simulator"
SHOWN = {"NEST": NEST, "Numba": "numba", "NumPy": "numpy"}  # what results depend on
INSTALLED = re.compile(r"(?P<name>[\w.]+)-(?P<version>[\w.!+]+)(-py[\d.]+)?\.(dist|egg)-info")
OF_ANOTHER = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # in the environment of a hook of git's


def describe_commit(directory: Path) -> str | None:
    """The commit of the repository that a directory is in, with -dirty if tracked files have changes.

    None where there is none, or no git: whatever is the matter with either, nothing fails and nothing is printed.
    """
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(directory), "describe", "--always", "--dirty"]
    environment = {name: value for name, value in os.environ.items() if name not in OF_ANOTHER}
    environment["GIT_OPTIONAL_LOCKS"] = "0"  # nothing is written there
    try:
        done = subprocess.run(
            [*command, "--abbrev=40", "--exclude=*"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = done.stdout.decode(errors="replace").strip()
    return found if done.returncode == 0 and re.fullmatch(r"[0-9a-f]{40,64}(-dirty)?", found) else None


def of_commit(release: str, commit: str | None) -> str:
    """The version of a release's commit, by PEP 440: 0.2.0+g30c0822eb.dirty."""
    if commit is None:
        return release
    number, _, dirty = commit.partition("-")
    return f"{release}+g{number[:9]}{dirty and '.' + dirty}"


@functools.cache
def own_commit() -> str | None:
    """The commit that eprop-cli is of: of the checkout that it runs from, else of the one that it was built from."""
    package = Path(__file__).resolve().parent
    if (package.parent / ".git").exists():
        return describe_commit(package.parent)
    try:
        return (package / COMMIT).read_text().strip() or None
    except OSError:
        return None


def own_version() -> str:
    """The version of eprop-cli with its commit."""
    return of_commit(RELEASE, own_commit())


def nest_version(ask: bool = False) -> str | None:
    """The version of NEST: as it says itself where it is imported already, else of its wheel; None if there is none.

    ask: import it where there is no wheel to tell, as of one that was built here. Raises ImportError if that fails.
    """
    if "nest" not in sys.modules:
        spec = find_spec("nest")
        if spec is None:
            return None
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed = importlib.metadata.distribution(NEST)
            if str(installed.locate_file("nest/__init__.py")) == spec.origin:
                return installed.version
        if not ask:
            return None
        os.environ.setdefault("PYNEST_QUIET", "1")
        importlib.import_module("nest")
    return str(getattr(sys.modules["nest"], "__version__", "of no version"))


def versions() -> dict[str, str]:
    """Versions of Python, eprop-cli, NEST and other packages, by the names that packages have."""
    found = {"python": platform.python_version(), "eprop-cli": own_version()}
    if (nest := nest_version()) is not None:
        found[NEST] = nest
    return found | {name: version for name in PACKAGES if (version := _version(name)) is not None}


def version_line(prog: str) -> str:
    """Versions of eprop-cli and of what it computes with, in one line."""
    known = versions()
    with contextlib.suppress(ImportError):
        known |= {NEST: nest} if (nest := nest_version(ask=True)) is not None else {}
    found = [f"{name} {known[package]}" if package in known else f"no {name}" for name, package in SHOWN.items()]
    return f"{prog} {own_version()} ({', '.join(found)}, Python {platform.python_version()})"


def installed_packages() -> list[str]:
    """All packages of this environment but this one as name==version, sorted; of two of a name, the one imported.

    So pip can install them: a commit of eprop-cli is in no index.
    """
    found: dict[str, str] = {}
    for place in sys.path:
        try:
            names = os.listdir(place or ".")
        except OSError:
            continue
        for match in filter(None, map(INSTALLED.fullmatch, names)):
            found.setdefault(match["name"].replace("_", "-").lower(), match["version"])
    return sorted(f"{name}=={version}" for name, version in found.items() if name != "eprop-cli")


@functools.cache
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
