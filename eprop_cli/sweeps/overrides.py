"""What a multirun is given: the overrides of its jobs, those of the sweeper's own params first."""

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from eprop_cli.schema import flatten


def job_overrides(config: DictConfig) -> list[Override]:
    """Each key once: one that is given again takes the place of the first. config: of the multirun, with Hydra's part.

    Values may be several, or ranges.
    """
    given = OmegaConf.to_container(OmegaConf.create({"params": config.hydra.sweeper.get("params") or {}}))
    assert isinstance(given, dict)
    params = [f"{key}={value}" for key, value in flatten(given["params"]).items() if key]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    parsed = parser.parse_overrides([*params, *map(str, config.hydra.overrides.task)])
    return list({override.get_key_element(): override for override in parsed}.values())
