"""Where a file or folder that a task names is to be found."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from eprop_cli.errors import ConfigError


def find(key: str, path: str) -> Path:
    """A user's file or folder: beside the user's config, else from the working directory.

    Raises ConfigError, which names the key, where it is in neither place.
    """
    found = locate(path)
    if not found.exists():
        raise ConfigError(key, path, "no such file, neither beside your config nor in the working directory")
    return found


def locate(path: str) -> Path:
    """Where find() would find something; the path itself where it is in neither place."""
    sources = HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else []
    places = [Path(source.path) for source in sources if source.provider == "command-line"]
    for place in (*places, Path.cwd()):
        if (place / path).exists():
            return (place / path).resolve()
    return Path(path)
