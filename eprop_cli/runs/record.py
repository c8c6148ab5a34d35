"""What run.json says of where a run comes from."""

import functools
import importlib.metadata
import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from eprop_cli import __version__

PACKAGES = ("nest-simulator", "hydra-core", "omegaconf", "numpy", "pandas", "pyarrow", "matplotlib", "joblib", "numba")


def origin(config: dict[str, Any]) -> dict[str, Any]:
    """What run.json says of a run that begins here and now; config: as to_dict() gives it."""
    return {
        "status": None,
        "start": now(),
        "stop": None,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "seed": config.get("seed"),
        "pid": os.getpid(),
        "host": platform.node(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "git_commit": _git_commit(),
        "versions": dict(_versions()),
        "seconds": None,
        "last_row": None,
        "error": None,
        "config": config,
    }


def now() -> str:
    """The time, as it stands in run.json."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


@functools.cache
def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "eprop-cli": __version__}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


@functools.cache
def _git_commit() -> str | None:
    """Commit of the checkout that eprop-cli runs from; None for an installed package."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
