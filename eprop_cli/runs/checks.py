"""Find out all that can be known before a run begins."""

import numpy as np

from eprop_cli.config.config import Config
from eprop_cli.connectivity.weights import initial_weights
from eprop_cli.engines import check_engine


def check(config: Config) -> Config:
    """The config, if a run of it can begin; raises UserError."""
    check_engine(config)
    initial_weights(config, np.random.RandomState(config.seed))
    return config
