"""The whole typed config, what follows from it, and the checks that need more than one group."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from eprop_cli.columns import EPOCH, HIGHER, Column, rate_column
from eprop_cli.config.groups import Kernel, Plots, RecordingConfig
from eprop_cli.connectivity.base import ends
from eprop_cli.connectivity.constraints import Constraints, make_constraints
from eprop_cli.connectivity.mask import Wiring
from eprop_cli.connectivity.projections import Connectivity
from eprop_cli.errors import require
from eprop_cli.losses import Loss, Metric
from eprop_cli.models.base import Model
from eprop_cli.objectives import check_objective, parse_objective
from eprop_cli.optimizers.base import Optimizer, learning_rate
from eprop_cli.phases import Criterion
from eprop_cli.registry import fits, variant
from eprop_cli.schema import SEED, check_multiple, check_rules, key
from eprop_cli.tasks.base import Task, TaskConfig, task_class
from eprop_cli.timing import Timing

VARIED = ("task", "neuron", "synapse", "optimizer", "engine", "training")  # groups whose name means a class
TEST_BATCHES = 4  # of training.n_iter_test: null
STOP_METRICS = ("recall_error", "loss")  # what training stops at by default: the first of these that there is


@dataclass(kw_only=True)
class Config:
    """The whole config; groups of VARIED have the schema of the class that their name means."""

    seed: int = key(SEED)
    resume: str | None
    objective: str
    report: bool
    task: Any
    neuron: Any
    synapse: Any
    connectivity: Connectivity
    optimizer: Any
    training: Any
    engine: Any
    kernel: Kernel
    recording: RecordingConfig
    plots: Plots
    logger: Any  # name -> keys, of the class that their name means

    def __post_init__(self) -> None:
        check_rules(self, "")
        require(self.resume != "", "resume", self.resume, "must be a run directory, or null for a run of its own")
        assert isinstance(self.task, TaskConfig)
        self.task.check_window("task.learning_window_steps")
        if self.training.n_iter_test is None:  # a test on what was trained would pass for one on something else
            several = 1 if self.task.evaluates_splits else TEST_BATCHES
            self.training.n_iter_test = several if self.task.batches_differ else 0
        self._check_fits()
        self.connectivity.check(self.sizes)
        self._check_recording()
        self._check_initial_moments()
        self._check_stopping()
        check_objective(self)
        self._check_loggers()
        if self.plots.metric is not None:
            parse_objective(self.plots.metric, {column.name: column.better for column in self.columns}, "plots.metric")
        for group in VARIED:
            variant(group, getattr(self, group).name).check(self)

    @property
    def task_class(self) -> type[Task]:
        """The task that is to be learned."""
        return task_class(self.task.name)

    @property
    def loss(self) -> Loss:
        """The loss that training makes small."""
        loss = variant("loss", self.neuron.out.loss)()
        assert isinstance(loss, Loss)
        return loss

    @property
    def has_classes(self) -> bool:
        """Whether the readout that is largest on average is the answer."""
        return self.loss.needs_classes or self.task_class.has_classes

    @property
    def timing(self) -> Timing:
        """When things happen in a sequence."""
        steps = self.task.sequence_steps, self.task.learning_window_steps
        timing = variant("neuron", self.neuron.name).make_timing(*steps, self.kernel.resolution)
        assert isinstance(timing, Timing)
        return timing

    @property
    def model(self) -> Model:
        """The model family with its parameters."""
        model = variant("neuron", self.neuron.name)(self.neuron, self.synapse, self.timing)
        assert isinstance(model, Model)
        return model

    @property
    def sizes(self) -> dict[str, int]:
        """How many neurons there are: in, rec, out."""
        return {"in": self.task.n_in, "rec": self.model.n_rec, "out": self.task.n_out}

    def constraints(self, wiring: Wiring) -> Constraints:
        """What the weights of a network keep to."""
        recurrent = {population.name: population.size for population in self.model.populations}
        return make_constraints(self.connectivity, {"in": {"in": self.task.n_in}, "rec": recurrent}, wiring)

    @property
    def needs(self) -> str:
        """What the training needs of the engine: GRADIENT or STREAM."""
        needs: str = variant("training", self.training.name).needs
        return needs

    def make_optimizer(self) -> Optimizer:
        """The optimizer with its parameters."""
        optimizer = variant("optimizer", self.optimizer.name)(self.optimizer)
        assert isinstance(optimizer, Optimizer)
        return optimizer

    def learning_rate(self, iteration: int) -> float:
        """The learning rate of the synapses in a training iteration, counted from 0; for streams."""
        return self.model.learning_rate(learning_rate(self.optimizer.schedule, self.optimizer.eta, iteration))

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What is computed from the readouts of each batch."""
        return self.loss.metrics(self.task.n_out, self.has_classes)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of metrics.csv between the phase and the seconds."""
        rates = (rate_column(population.name, population.label) for population in self.model.populations)
        epoch = (EPOCH,) if self.task_class.has_epochs else ()
        return (*(metric.column for metric in self.metrics), *epoch, *rates)

    @property
    def criterion(self) -> Criterion:
        """When training stops early."""
        columns = {column.name: column for column in self.columns}
        return Criterion(self.training.stop_crit, columns[self.training.stop_metric].better == HIGHER)

    def _check_fits(self) -> None:
        losses = self.task_class.losses
        name, key = self.neuron.out.loss, "neuron.out.loss"
        require(
            fits("loss", name, losses), key, name, f"does not fit task={self.task.name}, which has {', '.join(losses)}"
        )
        model = variant("neuron", self.neuron.name)
        remedy = f"needs a softmax, which neuron={self.neuron.name} does not have; choose mean_squared_error"
        require(model.softmax or not self.loss.softmax, key, name, remedy)
        constraint = f"does not go with neuron={self.neuron.name}; choose synapse={model.fits[0] if model.fits else ''}"
        require(fits("synapse", self.synapse.name, model.fits), "synapse", self.synapse.name, constraint)

    def _check_loggers(self) -> None:
        for name, keys in self.logger.items():
            logger = variant("logger", keys.name)
            there = logger.package is None or find_spec(logger.package) is not None
            logger.check(f"logger.{name}.name", keys.name, there)

    def _check_recording(self) -> None:
        interval, dt, sequence = self.recording.interval, self.kernel.resolution, self.task.sequence_steps
        check_multiple("recording.interval", interval, dt, f"kernel.resolution ({dt} ms)")
        constraint = f"must divide the sequence ({sequence * dt:g} ms)"
        require(sequence % round(interval / dt) == 0, "recording.interval", interval, constraint)

    def _check_initial_moments(self) -> None:
        entries, key = self.synapse.init_optimizer, "synapse.init_optimizer"
        if entries:
            has_moments = bool(self.make_optimizer().moments)
            require(has_moments, key, entries, "needs optimizer=adam; remove it")
        autapses = not self.connectivity.rules["rec_rec"].without_self
        for entry in entries:
            pre, post = (self.sizes[population] for population in ends(entry.projection))
            require(0 <= entry.pre < pre, f"{key}.pre", entry.pre, f"must be from 0 to {pre - 1}")
            in_range = all(0 <= index < post for index in entry.post)
            require(in_range, f"{key}.post", entry.post, f"must be from 0 to {post - 1}")
            once = len(set(entry.post)) == len(entry.post)
            require(once, f"{key}.post", entry.post, "must not name a neuron twice")
            autapse = entry.projection == "rec_rec" and entry.pre in entry.post and not autapses
            require(not autapse, f"{key}.post", entry.post, "must not hold pre: there are no autapses")
            require(entry.v >= 0, f"{key}.v", entry.v, "must be at least 0")

    def _check_stopping(self) -> None:
        training = self.training
        columns = {column.name: column for column in self.columns if column.better}
        metric = training.stop_metric
        require(metric in columns, "training.stop_metric", metric, f"must be one of {', '.join(columns)}")
        column, crit = columns[metric], training.stop_crit
        possible = (column.least is None or crit >= column.least) and (column.most is None or crit <= column.most)
        upper = f" to {column.most:g}" if column.most is not None else ""
        require(possible, "training.stop_crit", crit, f"must be from {column.least}{upper}, as {metric} is")
        if training.do_early_stopping:
            remedy = "has nothing to validate on, as every batch of this task is the same; set it to false"
            require(self.task.batches_differ, "training.do_early_stopping", True, remedy)


def default_metric(columns: tuple[Column, ...]) -> str:
    """What training stops at unless told otherwise."""
    names = [column.name for column in columns]
    return next(name for name in STOP_METRICS if name in names)
