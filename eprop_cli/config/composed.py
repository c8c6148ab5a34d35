"""What can be told from a config as Hydra composed it."""

from omegaconf import DictConfig, OmegaConf


def without_hydra(config: DictConfig) -> DictConfig:
    """A composed config without Hydra's own part."""
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def config_options(config: DictConfig) -> list[str]:
    """Options of eprop-run by which a config that Hydra composed is found again."""
    options = []
    for source in config.hydra.runtime.config_sources:
        if source.provider == "command-line":
            options += ["--config-dir", str(source.path)]
    name = config.hydra.job.config_name
    return options if name == "config" else [*options, "--config-name", str(name)]
