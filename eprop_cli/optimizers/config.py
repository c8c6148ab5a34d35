"""Config of the optimizers."""

from dataclasses import dataclass

from eprop_cli.errors import require
from eprop_cli.schema import check_choice, check_kinds


@dataclass
class Schedule:
    """Learning rate over iterations."""

    name: str
    warmup: int
    step_every: int
    step_factor: float
    cosine_iter: int
    eta_min: float

    def __post_init__(self) -> None:
        check_choice("optimizer.schedule.name", self.name, ("constant", "step", "cosine"))
        kinds = dict.fromkeys(("warmup", "cosine_iter", "eta_min", "step_factor"), "non-negative")
        check_kinds(self, "optimizer.schedule", kinds | {"step_every": "positive"})


@dataclass
class Optimizer:
    """Gradient descent, and what every optimizer has."""

    name: str
    eta: float
    Wmin: float
    Wmax: float
    weight_decay: float
    clip_norm: float | None
    schedule: Schedule

    def __post_init__(self) -> None:
        check_kinds(self, "optimizer", {"eta": "non-negative", "weight_decay": "non-negative", "clip_norm": "positive"})
        require(self.Wmin < self.Wmax, "optimizer.Wmin", self.Wmin, f"must be below Wmax ({self.Wmax})")


@dataclass
class Adam(Optimizer):
    """Adam."""

    beta_1: float
    beta_2: float
    epsilon: float

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("beta_1", "beta_2"):
            require(0 <= getattr(self, key) < 1, f"optimizer.{key}", getattr(self, key), "must be from 0 to below 1")
        # A synapse without gradient would otherwise be updated by 0 / 0.
        check_kinds(self, "optimizer", {"epsilon": "positive"})
