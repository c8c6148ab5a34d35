"""The typed config: where conf/ is found, what each key may be, and the checks that need more than one group.

Values live in conf/*.yaml and carry their unit and meaning there; the classes below give types and constraints.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, Node, OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException, ValidationError

from eprop_cli.errors import ConfigError, UserError, require
from eprop_cli.metrics import LOSSES
from eprop_cli.tasks import task_class

PROJECTIONS = ("in_rec", "rec_rec", "rec_out")  # plastic ones, in the tutorial's order
SURROGATE_GRADIENTS = ("piecewise_linear", "exponential", "fast_sigmoid_derivative", "arctan_derivative")
FIGURES = ("learning", "dynamics", "weight_time_courses", "weight_matrices")
FORMATS = ("png", "pdf", "svg")
TIC = 0.001  # ms, NEST's finest time step
MOST = 1e9  # largest parameter of a neuron; far beyond, NEST and the compiled kernels overflow differently
MOST_COUNT = 2**31 - 1
LEAST_DPI, MOST_DPI = 10, 1200  # letters of less vanish, a figure of more takes gigabytes of memory
KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", list: "a list, as in [a, b]"}


def conf_dir() -> Path:
    """Directory of the config files: inside the package when installed, at the top of a checkout."""
    package = Path(__file__).resolve().parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


@dataclass
class Recurrent:
    """Parameters of a recurrent population."""

    C_m: float
    c_reg: float
    E_L: float
    f_target: float
    gamma: float
    I_e: float
    regular_spike_arrival: bool
    surrogate_gradient_function: str
    t_ref: float
    tau_m: Any  # float, or one per neuron
    V_m: float
    V_min: float | None
    V_th: float
    flush_event_send_interval: float | None


@dataclass
class Adaptive(Recurrent):
    """Parameters of the adaptive population."""

    adapt_tau: Any  # float, or one per neuron
    adapt_beta_scale: float
    adaptation: float


@dataclass
class Readout:
    """Parameters of the readout neurons."""

    C_m: float
    E_L: float
    I_e: float
    loss: str
    regular_spike_arrival: bool
    tau_m: float
    V_m: float
    V_min: float | None


@dataclass
class Neuron:
    """The three populations behind the input."""

    name: str
    n_reg: int
    n_ad: int
    rec: Recurrent
    reg: Recurrent
    ad: Adaptive
    out: Readout

    def __post_init__(self) -> None:
        for key in ("n_reg", "n_ad"):
            require(getattr(self, key) >= 0, f"neuron.{key}", getattr(self, key), "must be at least 0")
        require(self.n_reg + self.n_ad > 0, "neuron.n_reg", self.n_reg, "n_reg and n_ad must not both be 0")
        for name, size in {"rec": None, "reg": self.n_reg, "ad": self.n_ad}.items():
            self._check_recurrent(f"neuron.{name}", getattr(self, name), size)
        _check(self.out, "neuron.out", {"C_m": "positive", "tau_m": "positive"})
        _check_choice("neuron.out.loss", self.out.loss, LOSSES)

    @staticmethod
    def _check_recurrent(key: str, group: Recurrent, size: int | None) -> None:
        for name in ("tau_m", "adapt_tau"):
            if hasattr(group, name):
                setattr(group, name, _number_or_list(f"{key}.{name}", getattr(group, name), size))
        positive = dict.fromkeys(("C_m", "gamma", "t_ref", "V_th", "flush_event_send_interval"), "positive")
        _check(group, key, positive | dict.fromkeys(("c_reg", "f_target", "adapt_beta_scale"), "non-negative"))
        _check_choice(f"{key}.surrogate_gradient_function", group.surrogate_gradient_function, SURROGATE_GRADIENTS)
        if group.V_min is not None:
            require(group.V_min < group.V_th, f"{key}.V_min", group.V_min, f"must be below V_th ({group.V_th})")


@dataclass
class WeightScale:
    """Factors on the initial weights, per projection."""

    in_rec: float
    rec_rec: float
    rec_out: float
    out_rec: float


@dataclass
class InitialMoments:
    """Initial Adam moments of the synapses from neuron pre to the neurons post (indices within populations)."""

    projection: str
    pre: int
    post: list[int]
    m: float
    v: float


@dataclass
class Synapse:
    """Plastic synapses and their initial weights."""

    name: str
    average_gradient: bool
    weight_scale: WeightScale
    dtype_weights: str
    weights_from: str | None
    init_optimizer: list[InitialMoments]

    def __post_init__(self) -> None:
        _check(self.weight_scale, "synapse.weight_scale", dict.fromkeys(vars(self.weight_scale), "non-negative"))
        _check_choice("synapse.dtype_weights", self.dtype_weights, ("float32", "float64"))


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
        _check_choice("optimizer.schedule.name", self.name, ("constant", "step", "cosine"))
        kinds = dict.fromkeys(("warmup", "cosine_iter", "eta_min", "step_factor"), "non-negative")
        _check(self, "optimizer.schedule", kinds | {"step_every": "positive"})


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
        _check(self, "optimizer", {"eta": "non-negative", "weight_decay": "non-negative", "clip_norm": "positive"})
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
        _check(self, "optimizer", {"epsilon": "positive"})


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
        _check(self, "training", kinds | {"n_iter_test": "non-negative"})
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
        _check(self, "training", kinds)
        _check_choice("training.backend", self.backend, ("loky", "dask"))
        _check_choice("training.select_weights", self.select_weights, ("last", "best"))
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
        _check(self, "recording", {"n_record": "non-negative", "n_record_w": "non-negative", "interval": "positive"})
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
        _check(self, "kernel", {"resolution": "positive", "local_num_threads": "positive"})
        cores = os.cpu_count() or 1
        constraint = f"must be at most the number of cores ({cores}): NEST's threads wait for each other spinning"
        require(self.local_num_threads <= cores, "kernel.local_num_threads", self.local_num_threads, constraint)
        _check_multiple("kernel.resolution", self.resolution, TIC, f"NEST's finest time step ({TIC} ms)")


@dataclass
class Plots:
    """Figures drawn at the end of a run."""

    figures: list[str]
    formats: list[str]
    dpi: int

    def __post_init__(self) -> None:
        for name in self.figures:
            _check_choice("plots.figures", name, FIGURES)
        for name in self.formats:
            _check_choice("plots.formats", name, FORMATS)
        allowed = LEAST_DPI <= self.dpi <= MOST_DPI
        require(allowed, "plots.dpi", self.dpi, f"must be from {LEAST_DPI} to {MOST_DPI}")


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
            _check_multiple(f"neuron.{group}.t_ref", neuron.t_ref, dt, grid)
            flush, key = neuron.flush_event_send_interval, f"neuron.{group}.flush_event_send_interval"
            if flush is not None:
                _check_multiple(key, flush, dt, grid)
                constraint = f"must be at least one sequence ({sequence * dt:g} ms)"
                require(round(flush / dt) >= sequence, key, flush, constraint)
        _check_multiple("recording.interval", self.recording.interval, dt, grid)
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
            _check_choice(f"{key}.projection", entry.projection, PROJECTIONS)
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


# Schemas by the group's name; the groups not listed have one, tasks name their own.
SCHEMAS: dict[str, dict[str, type]] = {
    "neuron": {"bsshslm_2020": Neuron},
    "synapse": {"bsshslm_2020": Synapse},
    "optimizer": {"adam": Adam, "gradient_descent": Optimizer},
    "training": {"continuous": Training, "data_parallel": DataParallel},
    "engine": {"nest": Engine, "compiled": Engine},
}


def load(composed: DictConfig) -> Config:
    """Check a composed config and turn it into its typed form.

    Raises UserError (most often ConfigError) with one line for the first thing wrong.
    """
    try:
        schema = OmegaConf.structured(Config)
        for group in ("task", *SCHEMAS):
            whole = isinstance(composed[group], DictConfig)
            require(whole, group, composed[group], "must be a group of keys, as a file of its own has them")
        schema.task = OmegaConf.structured(task_class(str(composed.task.name)).Config)
        for group, choices in SCHEMAS.items():
            schema[group] = OmegaConf.structured(_schema(group, composed[group], choices))
        merged = OmegaConf.merge(schema, composed)
        for key, value in _numbers(OmegaConf.to_container(merged, resolve=True)):
            _check_magnitude(key, value)
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise UserError(explain(error)) from error
    assert isinstance(config, Config)
    return config


def explain(error: OmegaConfBaseException) -> str:
    """OmegaConf's error as one line that begins with the key."""
    message = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, ValidationError) and (kind := _wanted(error)):
        value = error.value._value() if isinstance(error.value, Node) else error.value
        return str(ConfigError(str(error.full_key), value, f"must be {kind}"))
    if isinstance(error, MissingMandatoryValue) or message.startswith("Missing key"):
        message = "is missing"
    elif isinstance(error, ConfigKeyError):
        message = "there is no such key"
    return f"{error.full_key}: {message}" if error.full_key else message


def to_dict(config: Any) -> dict[str, Any]:
    """A typed config as plain, JSON-able values."""
    container = OmegaConf.to_container(OmegaConf.create({"config": _plain(config)}))
    assert isinstance(container, dict)
    plain: dict[str, Any] = container["config"]
    return plain


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as {"group.key": value}."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _schema(group: str, composed: Any, choices: dict[str, type]) -> type:
    """The schema that a group's name means."""
    key, name = f"{group}.name", composed.name
    _check_choice(key, name, choices)
    keys = {other: {field.name for field in fields(schema)} for other, schema in choices.items()}
    mixed = ", ".join(other for other in choices if set(composed) == keys[other] != keys[name])
    require(not mixed, key, name, f"stands among the keys of {mixed}; choose {group}={name}, which brings its own")
    return choices[name]


def _wanted(error: OmegaConfBaseException) -> str | None:
    """What the value that an error is about should be; None if there is no telling."""
    wanted: Any = error.ref_type
    if is_dataclass(error.object_type):
        wanted = get_type_hints(error.object_type).get(str(error.key))
    elif error.object_type is list:
        (wanted,) = get_args(error.ref_type)
    if optional := isinstance(wanted, UnionType):
        wanted = next(kind for kind in get_args(wanted) if kind is not NoneType)
    if is_dataclass(wanted):
        return f"a group with the keys {', '.join(field.name for field in fields(wanted))}"
    kind = KINDS.get(get_origin(wanted) or wanted)
    return f"{kind}, or null" if kind and optional else kind


def _numbers(tree: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Every number in nested dictionaries and lists, with its key."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield from _numbers(value, f"{key}.{name}" if key else str(name))
    elif isinstance(tree, list):
        for item in tree:
            yield from _numbers(item, key)
    elif isinstance(tree, int | float) and not isinstance(tree, bool):
        yield key, tree


def _check_magnitude(key: str, value: float) -> None:
    require(math.isfinite(value), key, value, "must be a finite number")
    if isinstance(value, int) and key != "seed":
        require(value <= MOST_COUNT, key, value, f"must be at most {MOST_COUNT}")
    if key.startswith("neuron."):
        require(abs(value) <= MOST, key, value, f"must be from {-MOST:g} to {MOST:g}")


def _check(group: Any, key: str, kinds: dict[str, str]) -> None:
    """Check values (those that exist and are not null) to be "positive" or "non-negative"."""
    for name, kind in kinds.items():
        value = getattr(group, name, None)
        for item in value if isinstance(value, list) else [value]:
            if item is not None:
                require(item > 0 if kind == "positive" else item >= 0, f"{key}.{name}", value, f"must be {kind}")


def _check_choice(key: str, value: Any, choices: Any) -> None:
    require(value in choices, key, value, f"must be one of {', '.join(choices)}")


def _check_multiple(key: str, value: float, unit: float, name: str) -> None:
    ratio = value / unit
    whole = ratio > 0.5 and math.isclose(ratio, round(ratio), rel_tol=1e-9)
    require(whole, key, value, f"must be a multiple of {name}")


def _number_or_list(key: str, value: Any, size: int | None) -> Any:
    """A float, or a list of one float per neuron (size None: no list allowed)."""
    items = value if isinstance(value, list) else [value]
    numeric = all(isinstance(item, int | float) and not isinstance(item, bool) for item in items)
    require(numeric, key, value, "must be a number in ms, or a list with one per neuron")
    if not isinstance(value, list):
        require(value > 0, key, value, "must be positive")
        return float(value)
    require(size is not None, key, value, "must be one number here; give lists under neuron.reg or neuron.ad")
    require(len(value) == size, key, value, f"must have one value per neuron ({size})")
    for item in value:
        require(item > 0, key, value, "must be positive")
    return [float(item) for item in value]


__all__ = ["Config", "ConfigError", "load"]
