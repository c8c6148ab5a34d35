"""What run.json says of where a run comes from."""

import functools
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from eprop_cli import __version__
from eprop_cli.config.config import Config
from eprop_cli.formats import FORMAT
from eprop_cli.registry import variant
from eprop_cli.runs.format import session
from eprop_cli.schema import to_dict

COMPUTING = ("python", "eprop-cli", "nest-simulator", "numpy", "numba")  # what a result may depend on
PACKAGES = ("nest-simulator", "hydra-core", "omegaconf", "numpy", "pandas", "pyarrow", "matplotlib", "joblib", "numba")


def origin(config: Config, command: Sequence[str] | None = None) -> dict[str, Any]:
    """What run.json says of a run that begins here and now; command: this process's by default."""
    return start(command) | describe(config)


def start(command: Sequence[str] | None = None) -> dict[str, Any]:
    """Where and when a run begins, and with what; command: this process's by default."""
    record: dict[str, Any] = {
        "format": FORMAT,
        "status": None,
        "start": now(),
        "stop": None,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]] if command is None else list(command),
        "pid": os.getpid(),
        "host": platform.node(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "git_commit": _git_commit(),
        "versions": dict(_versions()),
        "seconds": None,
        "last_row": None,
        "error": None,
        "warnings": [],
        "columns": [],
        "populations": [],
    }
    return record | {"sessions": [session(record)]}


def describe(config: Config) -> dict[str, Any]:
    """What follows from the config, for those who read a run without its classes; and the config itself."""
    loss = config.loss
    return {
        "seed": config.seed,
        "loss": {"name": loss.name, "label": loss.label, "unit": loss.unit, "symbols": dict(loss.symbols)},
        "columns": [asdict(column) for column in config.columns],
        "populations": [{"name": p.name, "label": p.label, "size": p.size} for p in config.model.populations],
        "planes": [list(pair) for pair in config.task_class.planes],  # readouts that are coordinates of a point
        "is_stream": variant("training", config.training.name).time_passes(config),  # task time passes in all phases
        "config": to_dict(config),
    }


def changed_versions(earlier: dict[str, Any], record: dict[str, Any]) -> list[str]:
    """In which of COMPUTING a run that is resumed differs from before, e.g. "numpy 2.3.0 (before 2.2.6)"."""
    before, after = earlier.get("versions") or {}, record["versions"]
    pairs = {name: (before.get(name, "none"), after.get(name, "none")) for name in COMPUTING if before}
    commits = [(each.get("git_commit") or "")[:9] for each in (earlier, record)]
    if pairs and commits[0] != commits[1]:
        old, new = (f"{each} {commit}".rstrip() for each, commit in zip(pairs["eprop-cli"], commits, strict=True))
        pairs["eprop-cli"] = old, new
    return [f"{name} {new} (before {old})" for name, (old, new) in pairs.items() if new != old]


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
