"""The whole typed config, and the checks that need more than one group."""

from dataclasses import dataclass
from typing import Any

from eprop_cli.config.groups import Engine, Kernel, Plots, Recording
from eprop_cli.connectivity.base import PROJECTIONS, Synapse
from eprop_cli.errors import require
from eprop_cli.models.bsshslm_2020 import Neuron
from eprop_cli.schema import check_choice, check_multiple


@dataclass
class Config:
    """The whole config. task has the schema of the class that task.name means."""

    seed: int
    resume: str | None
    objective: str
    task: Any
    neuron: Neuron
    synapse: Synapse
    optimizer: Any
    training: Any
    engine: Engine
    kernel: Kernel
    recording: Recording
    plots: Plots

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**32, "seed", self.seed, "must be from 0 to 4294967295")
        require(self.resume != "", "resume", self.resume, "must be a run directory, or null for a run of its own")
        window, sequence = self.task.learning_window_steps, self.task.sequence_steps
        constraint = f"must be from 1 to the length of the sequence ({sequence} steps)"
        require(1 <= window <= sequence, "task.learning_window_steps", window, constraint)
        self._check_resolution()
        self._check_initial_moments()
        from eprop_cli.objectives import check_objective  # phases have their names in a module that needs this one

        check_objective(self)
        if self.training.name == "continuous":
            self._check_continuous()
        else:
            self._check_data_parallel()

    def _check_resolution(self) -> None:
        dt = self.kernel.resolution
        grid = f"kernel.resolution ({dt} ms)"
        sequence = self.task.sequence_steps
        for group in ("reg", "ad"):
            neuron = getattr(self.neuron, group)
            check_multiple(f"neuron.{group}.t_ref", neuron.t_ref, dt, grid)
            flush, key = neuron.flush_event_send_interval, f"neuron.{group}.flush_event_send_interval"
            if flush is not None:
                check_multiple(key, flush, dt, grid)
                constraint = f"must be at least one sequence ({sequence * dt:g} ms)"
                require(round(flush / dt) >= sequence, key, flush, constraint)
        check_multiple("recording.interval", self.recording.interval, dt, grid)
        constraint = f"must divide the sequence ({sequence * dt:g} ms)"
        divides = sequence % round(self.recording.interval / dt) == 0
        require(divides, "recording.interval", self.recording.interval, constraint)

    def _check_initial_moments(self) -> None:
        entries = self.synapse.init_optimizer
        key = "synapse.init_optimizer"
        if entries:
            require(self.optimizer.name == "adam", key, entries, "needs optimizer=adam; remove it")
        n_rec = self.neuron.n_reg + self.neuron.n_ad
        sizes = {"in": self.task.n_in, "rec": n_rec, "out": self.task.n_out}
        for entry in entries:
            check_choice(f"{key}.projection", entry.projection, PROJECTIONS)
            pre, post = (sizes[population] for population in entry.projection.split("_"))
            require(0 <= entry.pre < pre, f"{key}.pre", entry.pre, f"must be from 0 to {pre - 1}")
            in_range = all(0 <= index < post for index in entry.post)
            require(in_range, f"{key}.post", entry.post, f"must be from 0 to {post - 1}")
            once = len(set(entry.post)) == len(entry.post)
            require(once, f"{key}.post", entry.post, "must not name a neuron twice")
            autapse = entry.projection == "rec_rec" and entry.pre in entry.post
            require(not autapse, f"{key}.post", entry.post, "must not hold pre: there are no autapses")
            require(entry.v >= 0, f"{key}.v", entry.v, "must be at least 0")

    def _check_continuous(self) -> None:
        remedy = "needs training=data_parallel; NEST's own optimizer does not have it"
        optimizer = self.optimizer
        require(optimizer.weight_decay == 0, "optimizer.weight_decay", optimizer.weight_decay, remedy)
        require(optimizer.clip_norm is None, "optimizer.clip_norm", optimizer.clip_norm, remedy)
        require(optimizer.schedule.name == "constant", "optimizer.schedule.name", optimizer.schedule.name, remedy)
        require(optimizer.schedule.warmup == 0, "optimizer.schedule.warmup", optimizer.schedule.warmup, remedy)
        require(self.engine.name == "nest", "engine", self.engine.name, "needs training=data_parallel")
        # A Simulate() call begins in step 1 of a batch; there a softmax misses the other readouts' signals.
        window, most = self.task.learning_window_steps, self.task.sequence_steps - 2
        constraint = f"must be at most {most} with training=continuous and cross_entropy (sequence less 2 steps)"
        fits = window <= most or self.neuron.out.loss != "cross_entropy"
        require(fits, "task.steps.learning_window", window, constraint)
        phases = self.task.n_iter + self.training.n_iter_test
        require(phases > 0, "task.n_iter", self.task.n_iter, "must be at least 1 unless training.n_iter_test is")

    def _check_data_parallel(self) -> None:
        workers, n_batch = self.training.n_workers, self.task.n_batch
        constraint = f"must be at most task.n_batch ({n_batch}): a worker takes at least one sequence"
        require(workers <= n_batch, "training.n_workers", workers, constraint)
        reset = self.kernel.eprop_reset_neurons_on_update
        remedy = "must be true with training=data_parallel, where sequences are independent; or use training=continuous"
        require(reset, "kernel.eprop_reset_neurons_on_update", reset, remedy)
