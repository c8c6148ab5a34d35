"""What run.json says of where a run comes from."""

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from itertools import zip_longest
from pathlib import Path
from typing import Any

from eprop_cli.config.config import Config
from eprop_cli.config.files import CONFIG_DIR
from eprop_cli.formats import FORMAT
from eprop_cli.registry import variant
from eprop_cli.runs.format import session
from eprop_cli.schema import to_dict
from eprop_cli.versions import NEST, describe_commit, own_commit, versions

COMPUTING = ("python", "eprop-cli", NEST, "numpy", "numba")  # what a result may depend on
SHOWN = 9  # digits of a commit or a checksum


def origin(
    config: Config, command: Sequence[str] | None = None, code: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What run.json says of a run that begins here and now.

    command: as it was typed; this process's arguments by default. code: checksums of modules of the user's own.
    """
    record = start(command) | {"code": dict(code or {})}
    return record | {"sessions": [session(record)]} | describe(config)


def start(command: Sequence[str] | None = None) -> dict[str, Any]:
    """Where and when a run begins, and with what; command: this process's by default."""
    command = [Path(sys.argv[0]).name, *sys.argv[1:]] if command is None else list(command)
    record: dict[str, Any] = {
        "format": FORMAT,
        "status": None,
        "start": now(),
        "stop": None,
        "command": command,
        "pid": os.getpid(),
        "host": platform.node(),
        "machine": {"processor": _processor(), "cores": os.cpu_count() or 1, "system": platform.platform()},
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "git_commit": own_commit(),
        "versions": versions(),
        "repositories": _repositories(command),
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
    """In which of COMPUTING, and of modules of the user's own, a run differs from one before.

    Each as in "numpy 2.3.0 (before 2.2.6)".
    """
    before, after = earlier.get("versions") or {}, record["versions"]
    pairs = {name: (before.get(name, "none"), after.get(name, "none")) for name in COMPUTING if before}
    if pairs:  # the commit is told in full elsewhere
        commits = [_short(each.get("git_commit") or "") for each in (earlier, record)]
        releases = [version.partition("+")[0] for version in pairs["eprop-cli"]]
        old, new = (f"{release} {commit}".rstrip() for release, commit in zip(releases, commits, strict=True))
        pairs["eprop-cli"] = old, new
    before, after = earlier.get("code"), record.get("code")
    if before is not None and after is not None:
        names = sorted(before.keys() | after.keys())
        pairs |= {name: tuple(each.get(name, "none")[:SHOWN] for each in (before, after)) for name in names}
    return _told(pairs)


def changed(earlier: dict[str, Any], record: dict[str, Any]) -> list[str]:
    """In what a run differs from one before besides its config: versions, code, repositories and machine."""
    pairs: dict[str, tuple[str, str]] = {}
    if all(each.get("repositories") is not None for each in (earlier, record)):
        found = [dict(map(_spelled, each["repositories"])) for each in (earlier, record)]
        for name in sorted(found[0].keys() | found[1].keys()):
            pairs[f"repository of the {name}"] = found[0].get(name, "none"), found[1].get(name, "none")
    if earlier.get("machine"):
        pairs |= {key: (str(value), str(record["machine"][key])) for key, value in earlier["machine"].items()}
    return changed_versions(earlier, record) + _told(pairs)


def now() -> str:
    """The time, as it stands in run.json."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _told(pairs: Mapping[str, tuple[str, ...]]) -> list[str]:
    return [f"{name} {new} (before {old})" for name, (old, new) in pairs.items() if new != old]


def _short(commit: str) -> str:
    number, dash, dirty = commit.partition("-")
    return f"{number[:SHOWN]}{dash}{dirty}"


def _spelled(repository: dict[str, Any]) -> tuple[str, str]:
    return repository["of"], _short(repository["commit"]) + ("" if repository["clean"] else "-dirty")


def _processor() -> str:
    """What the processor is called."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            named = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        named = []
    return named[0] if named else platform.machine()


def _repositories(command: Sequence[str]) -> list[dict[str, Any]]:
    """The user's own repositories: of the working directory, and of the config files where that is another."""
    found: list[dict[str, Any]] = []
    for name, directory in {"working directory": Path.cwd(), "config directory": _config_dir(command)}.items():
        commit = None if directory is None else describe_commit(directory)
        if commit is not None and commit not in [each["commit"] for each in found]:
            found.append({"of": name, "commit": commit, "clean": True})
    dirty = "-dirty"
    for each in found:
        each["clean"] = not each["commit"].endswith(dirty)
        each["commit"] = each["commit"].removesuffix(dirty)
    return found


def _config_dir(command: Sequence[str]) -> Path | None:
    """The directory of the user's own config files, as a command names it."""
    for option, value in zip_longest(command, command[1:]):
        name, equals, given = option.partition("=")
        if name in ("--config-dir", "-cd") and (equals or value):
            return Path(given if equals else value)
    return Path(os.environ[CONFIG_DIR]) if os.environ.get(CONFIG_DIR) else None
