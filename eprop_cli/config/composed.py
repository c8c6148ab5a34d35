"""What can be told from a config as Hydra composed it."""

from omegaconf import DictConfig, OmegaConf


def without_hydra(config: DictConfig) -> DictConfig:
    """A composed config without Hydra's own part."""
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


RESUMED = "eprop_cli_resumed"  # name of the config of a run that is resumed


def config_options(config: DictConfig) -> list[str]:
    """Options of eprop-run by which a config that Hydra composed is found again."""
    options = []
    for source in config.hydra.runtime.config_sources:
        if source.provider == "command-line":
            options += ["--config-dir", str(source.path)]
    name = config.hydra.job.config_name
    return options if name in ("config", RESUMED) else [*options, "--config-name", str(name)]
