"""Compose each job's config once: that takes longer than a small job, and Hydra would do it twice again."""

from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

MOST = 256  # configs that are kept: some hundred KB each


class ComposesOnce:
    """Hydra's config loader, which gives a config that was composed before the jobs began to the next two who ask."""

    def __init__(self, loader: ConfigLoader) -> None:
        self._loader = loader
        self._kept: dict[tuple[str, ...], list[DictConfig]] = {}

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """A job's config."""
        kept = self._kept.get(tuple(sweep_overrides))
        return kept.pop() if kept else self._loader.load_sweep_config(master_config, sweep_overrides)

    def keep(self, overrides: list[str], composed: DictConfig) -> None:
        """Give this config to the next two who ask for it: one looks whether it can be composed, one runs it."""
        if len(self._kept) < MOST:
            self._kept[tuple(overrides)] = [composed, composed]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __reduce__(self) -> Any:  # jobs in other processes get Hydra's own
        return _unchanged, (self._loader,)


def compose_once() -> ComposesOnce:
    """Have Hydra use such a loader."""
    hydra: Any = GlobalHydra.instance().hydra
    hydra.config_loader = loader = ComposesOnce(hydra.config_loader)
    return loader


def _unchanged(loader: ConfigLoader) -> ConfigLoader:
    return loader
