"""Turn gradients into weights and rows: one file per way of training."""

from eprop_cli.config.config import Config
from eprop_cli.training.base import Trainer
from eprop_cli.values import Checkpoint


def make_trainer(config: Config, checkpoint: Checkpoint | None = None) -> Trainer:
    """The trainer that the config names, at its beginning or where a checkpoint left off."""
    if config.training.name == "data_parallel":
        from eprop_cli.training.data_parallel import DataParallel

        return DataParallel(config, checkpoint)
    from eprop_cli.training.continuous import Continuous

    return Continuous(config)
