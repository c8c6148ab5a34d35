"""eprop-verify: does a run come out again, do NEST and another engine agree on a config, and a script with us?

Both engines train for a few iterations on the same inputs, each with its own gradients; what they give is compared on
the way. Runs are compared in verify_run.py, scripts in verify_script.py.
"""

import argparse
import copy
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from omegaconf import OmegaConf

from eprop_cli.cli.verify_run import is_run_dir, verify_run
from eprop_cli.cli.verify_script import verify_script
from eprop_cli.config.composed import without_hydra
from eprop_cli.config.composition import compose
from eprop_cli.config.config import Config
from eprop_cli.config.files import conf_dir
from eprop_cli.config.load import load
from eprop_cli.config.moved import moved_among, with_new_names
from eprop_cli.connectivity.base import PLASTIC
from eprop_cli.engines.base import make_engine
from eprop_cli.errors import ConfigError, TrainingError, UserError, reason, require
from eprop_cli.models.base import GRADIENT, STREAM
from eprop_cli.optimizers.base import set_moments
from eprop_cli.phases import TRAINING
from eprop_cli.registry import variant
from eprop_cli.runs.allowed import allow
from eprop_cli.terminal import Parser, leave, positive
from eprop_cli.training.base import check_ready, draw_parameters, initial_network, make_task

if TYPE_CHECKING:
    from eprop_cli.engines.base import Outcome
    from eprop_cli.values import Table, Weights


REFERENCE, OTHER = "nest", "compiled"  # the other one unless the config names one
FAILED = 1  # exit status
PLACE = {"sequence", "time", "population", "neuron"}  # columns that say where a row of a recording belongs
# Of streams NEST may record another row's, where it has erased the one in question.
ELSEWHERE = {"learning_signal"}
ITERATIONS = 3
HELP = """\
does a run come out again?
  eprop-verify RUN_DIR                       all of it
  eprop-verify RUN_DIR --iterations 5        its first iterations
  It is run in a directory that is removed afterwards. Metrics, recordings and
  weights are compared bit by bit; what differs first is shown, and in which
  versions, code and machine this differs from the run. Keys of the engine may
  be given: engine.n_workers=1.

do we give the losses of a script that NEST ships?
  eprop-verify --script regression_lemniscate_bsshslm_2020 --iterations 10
  Any other NAME lists the names. Numbers are changed in both: --seed 2,
  task.n_batch=2.

do NEST and the compiled engine agree?
  eprop-verify                               the default network
  eprop-verify experiment=bellec2020 task.n_batch=4
                                             a config before a long run on
                                             engine=compiled
  eprop-verify synapse.weights_from=RUN_DIR  with trained weights
  eprop-verify engine=cuda                   NEST and a GPU, instead of the
                                             compiled engine
  eprop-verify experiment=sine_waves_eprop_iaf
                                             a model that trains with
                                             training=continuous
  Both engines train with training=data_parallel on the same inputs, each with
  its own gradients; models whose weights change at every spike, with
  training=continuous, in one simulation each. The table shows the largest
  differences in units of the largest value; of spikes it counts those that
  only one engine has. "evaluation" is the readout signal of both without
  learning, compared with that of NEST with learning.

Nothing is left behind. Exit status: 0 if identical, equal or within tolerance,
1 if not or if something failed, 2 if something was wrong with the input.
"""
# Sums in another order round differently; Adam's division magnifies that where gradients are small.
TOLERANCES = {
    "loss": 1e-12,
    "readout signal": 1e-12,
    "evaluation": 1e-12,
    "spikes": 0.0,
    "dynamic variables": 1e-12,
    **{f"gradient {projection}": 1e-12 for projection in PLASTIC},  # of 100 steps or less; see tolerances()
    **{f"weights {projection}": 1e-10 for projection in PLASTIC},
}
SUMMED = 100  # steps


@dataclass(frozen=True)
class Compared:
    """A quantity in one iteration: its largest value, and the difference in units of that; of spikes, numbers."""

    quantity: str
    largest: float
    difference: float


def main() -> NoReturn:
    """Entry point of eprop-verify."""
    parser = Parser("eprop-verify", "Run again, and compare: a run, a script of NEST's, or both engines.", HELP)
    parser.add_argument(
        "arguments", nargs="*", metavar="RUN_DIR | KEY=VALUE", help="a run, or a config as for eprop-run"
    )
    parser.add_argument("--script", metavar="NAME", help="compare with a script of NEST's installation")
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="config files of your own, as for eprop-run")
    parser.add_argument(
        "--iterations",
        type=positive,
        metavar="N",
        help=f"training iterations (default: all of a run, else at most {ITERATIONS})",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="the same as seed=N")
    parser.add_argument(
        "--allow-module", action="append", default=[], metavar="NAME", help="module of your own that a run may name"
    )
    leave(parser.prog, lambda: _verify(parser.prog, parser.parse_intermixed_args()))


def _verify(prog: str, options: argparse.Namespace) -> int:
    directories = [argument for argument in options.arguments if is_run_dir(argument)]
    overrides = [argument for argument in options.arguments if argument not in directories]
    overrides += [] if options.seed is None else [f"seed={options.seed}"]
    config_dir = options.config_dir
    if config_dir is not None and not config_dir.is_dir():
        raise UserError(f"--config-dir {config_dir}: is not a directory")
    if len(directories) > 1 or (directories and options.script is not None):
        raise UserError(f"{directories[-1]}: is one too many; compare one run, or one script, at a time")
    try:
        if directories:
            allowed, named = allow(options.allow_module), options.allow_module
            return verify_run(Path(directories[0]), overrides, config_dir, options.iterations, allowed, named)
        if options.script is not None:
            return verify_script(options.script, [*overrides, *_iterations(options)], config_dir)
        return _verify_engines(overrides, config_dir, options.iterations or ITERATIONS)
    except (TrainingError, SystemExit) as error:  # a task of the user's may raise the latter
        print(f"{prog}: {reason(error)}", file=sys.stderr)
        return FAILED


def _iterations(options: argparse.Namespace) -> list[str]:
    """The number of iterations of a script as an override."""
    given = options.iterations is not None or not any(each.startswith("task.n_iter=") for each in options.arguments)
    return [f"task.n_iter={options.iterations or ITERATIONS}"] if given else []


def _verify_engines(overrides: list[str], config_dir: Path | None, iterations: int) -> int:
    config = compose_for_both(overrides, config_dir)
    n_iter = min(iterations, config.task.n_iter)
    require(n_iter > 0, "task.n_iter", config.task.n_iter, "must be at least 1 to compare anything")
    compared = " and ".join(engines(config))
    print(f"engines {compared}, seed {config.seed}, iterations {n_iter}, n_batch {config.task.n_batch}")
    rows = worst(compare_engines(config, n_iter))
    allowed = tolerances(config)
    _show(rows, allowed)
    return 0 if all(within(row, allowed) for row in rows) else FAILED


def compose_for_both(overrides: list[str], config_dir: Path | None) -> Config:
    """The config of eprop-run with a training that both engines compute; raises UserError unless they take it."""
    for line in moved_among(overrides):
        print(f"eprop-verify: {line}", file=sys.stderr)
    overrides = with_new_names(overrides)
    if config_dir is not None and not config_dir.is_dir():
        raise UserError(f"--config-dir {config_dir}: is not a directory")
    if not any(override.startswith("training=") for override in overrides):
        # Other keys may be those of the training that is yet to be found.
        choices = [override for override in overrides if override.partition("=")[0] in ("experiment", "neuron")]
        training = _training(OmegaConf.select(compose(choices, config_dir), "neuron.name"))
        overrides.append(f"training={training}")
    config = load(without_hydra(compose(overrides, config_dir)))
    model, name = variant("neuron", config.neuron.name), config.training.name
    if any(config.needs not in variant("engine", engine).provides(model) for engine in engines(config)):
        remedy = f"must be {_training(config.neuron.name)}, which both engines compute; leave it out"
        raise ConfigError("training", name, remedy)
    if config.resume is not None:
        raise ConfigError("resume", config.resume, "goes with eprop-run; for trained weights, synapse.weights_from")
    for engine in engines(config):
        check_ready(_with_engine(config, engine))
    return config


def engines(config: Config) -> tuple[str, str]:
    """The engines that are compared."""
    return REFERENCE, OTHER if config.engine.name == REFERENCE else config.engine.name


def _training(neuron: str | None) -> str:
    """The training by which a model can be compared."""
    streams = neuron is not None and GRADIENT not in variant("neuron", neuron).computes
    return "continuous" if streams else "data_parallel"


def compare_engines(config: Config, n_iter: int) -> Iterator[Compared]:
    """Train with each engine and yield what they differ in after each iteration."""
    config = copy.deepcopy(config)
    config.recording.spikes = True
    config = draw_parameters(config)
    return _streams(config, n_iter) if config.needs == STREAM else _gradients(config, n_iter)


def _streams(config: Config, n_iter: int) -> Iterator[Compared]:
    """Train in one simulation each."""
    import numpy as np

    rng = np.random.RandomState(config.seed)
    wiring, initial = initial_network(config, rng)
    task = make_task(config, rng, wiring)
    batches = [task.batch_at(rng, TRAINING, index) for index in range(n_iter)]
    with ExitStack() as stack:
        made = {name: make_engine(_with_engine(config, name), wiring) for name in engines(config)}
        open_engines = {name: stack.enter_context(closing(engine)) for name, engine in made.items()}
        streams = {name: engine.stream(initial) for name, engine in open_engines.items()}
        for index in range(n_iter + 1):
            if index < n_iter:
                eta = config.learning_rate(index)
                outcomes = {name: stream.begin(batches[index], eta, True) for name, stream in streams.items()}
                for stream in streams.values():
                    stream.go_on()
            else:
                outcomes = {name: stream.finish() for name, stream in streams.items()}
            known = {name: outcome for name, outcome in outcomes.items() if outcome is not None}
            if known:
                yield _loss(config, known, batches[index - 1].targets[:, :, -config.task.learning_window_steps :])
                yield from _outcomes(known, {})
        yield from _matrices("weights", {name: stream.weights() for name, stream in streams.items()})


def _gradients(config: Config, n_iter: int) -> Iterator[Compared]:
    """Train with gradients of batches."""
    import numpy as np

    rng = np.random.RandomState(config.seed)
    wiring, initial = initial_network(config, rng)
    names = engines(config)
    weights, constraints = dict.fromkeys(names, initial), config.constraints(wiring)
    optimizer = config.make_optimizer()
    begun = optimizer.initial_state(initial)
    set_moments(begun, wiring, config.synapse.init_optimizer)
    state = dict.fromkeys(names, begun)
    task = make_task(config, rng, wiring)
    batches = [task.batch_at(rng, TRAINING, index) for index in range(n_iter + 1)]
    with ExitStack() as stack:
        made = {name: make_engine(_with_engine(config, name), wiring) for name in names}
        open_engines = {name: stack.enter_context(closing(engine)) for name, engine in made.items()}
        for batch, next_batch in pairwise(batches):
            following = next_batch.spikes[0, 1] > 0 if config.training.as_continuous else None
            learning, evaluation = {}, {}
            for name, engine in open_engines.items():
                evaluation[name] = engine.evaluate(weights[name], batch)
                learning[name] = engine.gradient(weights[name], batch, following, True)
                gradients = learning[name].gradients
                assert gradients is not None
                learning_of = {projection: gradients[projection] for projection in constraints.learning}
                stepped, state[name] = optimizer.optimize(state[name], weights[name], learning_of)
                weights[name] = constraints.keep(stepped)
            yield _loss(config, learning, batch.targets[:, :, -config.task.learning_window_steps :])
            yield from _outcomes(learning, evaluation)
            yield from _matrices("gradient", {name: outcome.gradients for name, outcome in learning.items()})
            yield from _matrices("weights", weights)


def _loss(config: Config, learning: "Mapping[str, Outcome]", target: Any) -> Compared:
    nest, other = (config.loss.value(outcome.readout, target) for outcome in learning.values())
    return _compared("loss", nest, other)


def _outcomes(learning: "Mapping[str, Outcome]", evaluation: "Mapping[str, Outcome]") -> Iterator[Compared]:
    nest, other = learning.values()
    assert nest.recording is not None
    assert other.recording is not None
    yield _compared("readout signal", nest.readout, other.readout)
    for outcome in evaluation.values():
        yield _compared("evaluation", nest.readout, outcome.readout)
    spikes, others = _spikes(nest.recording["spikes"]), _spikes(other.recording["spikes"])
    yield Compared("spikes", float(len(spikes)), float(len(spikes ^ others)))
    for name, table in nest.recording.items():
        for column in table.keys() - PLACE - (set() if evaluation else ELSEWHERE):
            yield _compared("dynamic variables", table[column], other.recording[name][column])


def _matrices(kind: str, matrices: "Mapping[str, Weights | None]") -> Iterator[Compared]:
    nest, other = matrices.values()
    assert nest is not None
    assert other is not None
    for projection in PLASTIC:
        yield _compared(f"{kind} {projection}", nest[projection], other[projection])


def _compared(quantity: str, values: Any, others: Any) -> Compared:
    """Two numbers or two arrays."""
    import numpy as np

    largest, difference = (float(np.abs(each).max(initial=0.0)) for each in (values, values - others))
    return Compared(quantity, largest, difference / largest if largest else difference)


def _spikes(table: "Table") -> set[tuple[Any, ...]]:
    return set(zip(*(table[key].tolist() for key in sorted(PLACE)), strict=True))


def worst(compared: Iterator[Compared]) -> list[Compared]:
    """A row per quantity: the largest of its values and of its differences, NaN being larger than any."""
    import numpy as np

    rows: dict[str, Compared] = {}
    for row in compared:
        before = rows.get(row.quantity, row)
        largest, difference = np.maximum([before.largest, before.difference], [row.largest, row.difference])
        rows[row.quantity] = Compared(row.quantity, float(largest), float(difference))
    return [rows[quantity] for quantity in TOLERANCES if quantity in rows]


def tolerances(config: Config) -> dict[str, float]:
    """Largest differences that are let pass, by quantity: what a gradient sums over rounds once a step."""
    n_summed = config.task.n_batch * config.task.learning_window_steps
    growth = max(1.0, n_summed / SUMMED)
    grown = {name: allowed * growth for name, allowed in TOLERANCES.items() if name.startswith("gradient")}
    return TOLERANCES | grown


def within(row: Compared, allowed: Mapping[str, float]) -> bool:
    """Whether a difference is within tolerance."""
    return row.difference <= allowed[row.quantity]


def _show(rows: list[Compared], allowed: Mapping[str, float]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("", "largest value", "difference", "tolerance"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in rows:
        values = (row.largest, row.difference, allowed[row.quantity])
        table.add_row(
            row.quantity,
            *(f"{value:.0f}" if value.is_integer() else f"{value:.3g}" for value in values),
            "agree" if within(row, allowed) else "DIFFER",
        )
    console = Console(highlight=False, markup=False)
    with console.capture() as shown:  # printed by itself it would end the process where the reader has had enough
        console.print(table)
    print(shown.get(), end="")


def _with_engine(config: Config, name: str) -> Config:
    """The config with another engine, which has as many workers."""
    if config.engine.name == name:
        return config
    keys = dict(OmegaConf.load(conf_dir() / "engine" / f"{name}.yaml")) | {"n_workers": config.engine.n_workers}
    return replace(config, engine=variant("engine", name).Config(**keys))
