"""Schemas of the groups that have one: recording, kernel, plots."""

import os
from dataclasses import dataclass
from typing import Any

from eprop_cli.errors import require
from eprop_cli.schema import TIC, check_choice, check_kinds, check_multiple

FIGURES = ("learning", "dynamics", "weight_time_courses", "weight_matrices")
FORMATS = ("png", "pdf", "svg")
LEAST_DPI, MOST_DPI = 10, 1200  # letters of less vanish, a figure of more takes gigabytes of memory


@dataclass
class Training:
    """Continuous training, and what every way of training has: when to validate, stop and test."""

    name: str
    do_early_stopping: bool
    n_iter_validate_every: int
    n_iter_early_stop: int
    stop_crit: float
    n_iter_test: int

    def __post_init__(self) -> None:
        kinds = {"n_iter_validate_every": "positive", "n_iter_early_stop": "positive"}
        check_kinds(self, "training", kinds | {"n_iter_test": "non-negative"})
        require(0 <= self.stop_crit <= 1, "training.stop_crit", self.stop_crit, "must be an error, from 0 to 1")


@dataclass
class DataParallel(Training):
    """Data-parallel training."""

    n_workers: int
    backend: str
    scheduler: str | None
    max_retries: int
    as_continuous: bool
    select_weights: str
    checkpoint_every: int

    def __post_init__(self) -> None:
        super().__post_init__()
        kinds = {"n_workers": "positive", "checkpoint_every": "positive", "max_retries": "non-negative"}
        check_kinds(self, "training", kinds)
        check_choice("training.backend", self.backend, ("loky", "dask"))
        check_choice("training.select_weights", self.select_weights, ("last", "best"))
        validated = self.do_early_stopping or self.select_weights == "last"
        remedy = "needs validation; set training.do_early_stopping=true (stop_crit=0 never stops)"
        require(validated, "training.select_weights", self.select_weights, remedy)
        if self.backend == "dask":
            address = "must be the address of a Dask scheduler, e.g. tcp://host:8786, with backend=dask"
            require(self.scheduler is not None, "training.scheduler", self.scheduler, address)


@dataclass
class Engine:
    """What computes losses and gradients."""

    name: str


@dataclass
class Recording:
    """What is recorded."""

    n_record: int
    n_record_w: int
    interval: float
    iterations: list[Any]
    spikes: bool
    readout: bool

    def __post_init__(self) -> None:
        check_kinds(
            self, "recording", {"n_record": "non-negative", "n_record_w": "non-negative", "interval": "positive"}
        )
        for iteration in self.iterations:
            number = isinstance(iteration, int) and not isinstance(iteration, bool) and iteration >= 1
            known = number or iteration in ("first", "last")
            require(known, "recording.iterations", self.iterations, "must list first, last, or numbers from 1")


@dataclass
class Kernel:
    """The NEST kernel."""

    resolution: float
    eprop_reset_neurons_on_update: bool
    local_num_threads: int

    def __post_init__(self) -> None:
        check_kinds(self, "kernel", {"resolution": "positive", "local_num_threads": "positive"})
        cores = os.cpu_count() or 1
        constraint = f"must be at most the number of cores ({cores}): NEST's threads wait for each other spinning"
        require(self.local_num_threads <= cores, "kernel.local_num_threads", self.local_num_threads, constraint)
        check_multiple("kernel.resolution", self.resolution, TIC, f"NEST's finest time step ({TIC} ms)")


@dataclass
class Plots:
    """Figures drawn at the end of a run."""

    figures: list[str]
    formats: list[str]
    dpi: int

    def __post_init__(self) -> None:
        for name in self.figures:
            check_choice("plots.figures", name, FIGURES)
        for name in self.formats:
            check_choice("plots.formats", name, FORMATS)
        allowed = LEAST_DPI <= self.dpi <= MOST_DPI
        require(allowed, "plots.dpi", self.dpi, f"must be from {LEAST_DPI} to {MOST_DPI}")
