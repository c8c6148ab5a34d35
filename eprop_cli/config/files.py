"""The config files: where they are, and which keys they have with which values and meanings."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eprop_cli.errors import UserError

LINE = re.compile(r"^(?P<indent> *)(?P<key>\w+):(?: +(?P<value>[^#]*?))?(?: +# (?P<comment>.*))?$")
PACKAGE = "# @package "  # Hydra's
CONFIG_DIR = "EPROP_CONFIG_DIR"  # in the environment
OTHER_FILES = ("experiment", "hydra")  # folders whose keys are those of other groups, or Hydra's


@dataclass(frozen=True)
class Key:
    """A key of a config file: its default as it is written there, and what it means."""

    value: str
    meaning: str


def conf_dir() -> Path:
    """Directory of the config files: inside the package when installed, at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def own_config_dir() -> Path | None:
    """Directory of a project's own config files, of EPROP_CONFIG_DIR; raises UserError unless it is one."""
    name = os.environ.get(CONFIG_DIR)
    if not name:
        return None
    if not Path(name).is_dir():
        raise UserError(f"{CONFIG_DIR}={name}: is not a directory; unset it, or name one")
    return Path(name).absolute()


def read_keys(path: Path) -> dict[str, Key]:
    """The keys of a file and of those in its defaults list, by their dotted names; groups of keys are left out."""
    keys: dict[str, Key] = {}
    for entry in _defaults(path):
        if entry == "_self_":
            keys |= _own_keys(path)
        elif isinstance(entry, str):
            keys |= read_keys(path.with_name(f"{entry}.yaml"))
        else:
            ((place, name),) = entry.items()
            folder, _, at = place.partition("@")
            below = read_keys(path.parent / folder / f"{name}.yaml")
            keys |= {f"{at}.{key}": value for key, value in below.items()}
    return keys


def package_of(path: Path) -> str:
    """Where the keys of a file belong: its group, unless its first line says so."""
    first = path.read_text().partition("\n")[0]
    return first.removeprefix(PACKAGE) if first.startswith(PACKAGE) else path.parent.name


def all_keys() -> dict[str, Key]:
    """The keys of all files, whichever of a group is chosen; the first file that has one tells its meaning."""
    keys = read_top(conf_dir() / "config.yaml")
    for path in sorted(conf_dir().glob("*/*.yaml")):
        group = package_of(path)
        if path.parent.name not in OTHER_FILES:
            keys = {f"{group}.{key}": value for key, value in read_keys(path).items()} | keys
    return keys


def read_top(path: Path) -> dict[str, Key]:
    """The keys of config.yaml, but for Hydra's."""
    return {key: value for key, value in _own_keys(path).items() if not key.startswith("hydra.")}


def _defaults(path: Path) -> list[Any]:
    text, entries = path.read_text(), []
    if "defaults:" in text:
        import yaml

        entries = yaml.safe_load(text).get("defaults", [])
    return entries if "_self_" in entries else [*entries, "_self_"]


def _own_keys(path: Path) -> dict[str, Key]:
    keys: dict[str, Key] = {}
    above: list[str] = []
    for line in path.read_text().splitlines():
        match = LINE.match(line)
        if not match or (match["key"] in ("defaults", "name") and not match["indent"]):
            continue
        above = [*above[: len(match["indent"]) // 2], match["key"]]
        value, meaning = match["value"] or "", match["comment"] or ""
        if value or meaning:
            keys[".".join(above)] = Key(value, meaning)
    return keys
