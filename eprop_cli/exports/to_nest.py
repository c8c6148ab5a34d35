"""A plain script that builds a run's trained network in NEST and trains on, without eprop-cli."""

import copy
import pprint
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from eprop_cli.config.config import Config
from eprop_cli.config.files import conf_dir
from eprop_cli.engines.nest.kernel import kernel_parameters
from eprop_cli.errors import UserError
from eprop_cli.exports.recorded import typed
from eprop_cli.models.draws import Drawn
from eprop_cli.phases import PHASES, TRAINING
from eprop_cli.runs.files import write_text, write_whole
from eprop_cli.runs.reader import Run
from eprop_cli.training.base import INLINE, TrainingConfig, check_ready, draw_parameters, initial_network, make_task

FILES = ("continue_in_nest.py", "continue_in_nest.npz")
ITERATIONS = 5


def write(run: Run, into: Path, iterations: int = ITERATIONS) -> None:
    """Write the script, and the weights, inputs and targets that it loads; raises UserError where NEST cannot go on."""
    config = continued(run, iterations)
    schedule = config.optimizer.schedule
    if schedule.name != "constant" or schedule.warmup:
        remedy = "train on with synapse.weights_from and optimizer.schedule.name=constant"
        raise UserError(f"{run.directory}: the script has one learning rate, and this run a schedule; {remedy}")
    check_ready(config)
    config = draw_parameters(config, run.parameters)
    rng = np.random.RandomState(config.seed)
    wiring, weights = initial_network(config, rng)
    if not all(mask.is_dense for mask in wiring.values()):
        raise UserError(f"{run.directory}: the script holds dense weights only, and these are sparse")
    if not config.model.resets:
        name = config.neuron.name
        raise UserError(f"{run.directory}: the script is for neurons that are reset between sequences, unlike {name}")
    task, drawn = make_task(config, rng, wiring), dict.fromkeys(PHASES, 0)
    batches = [task.draw(rng, TRAINING, drawn) for _ in range(iterations)]
    task.close()
    spikes = np.concatenate([batch.spikes for batch in batches])
    step, neuron = np.nonzero(spikes.reshape(-1, spikes.shape[2]))
    arrays: dict[str, Any] = {
        **weights,
        "spike_steps": step.astype(np.int32),
        "spike_neurons": neuron.astype(np.int32),
        "targets": np.concatenate([batch.targets for batch in batches], axis=1),
    }
    write_whole(into / FILES[1], lambda file: np.savez_compressed(file, **arrays))
    write_text(into / FILES[0], _script(config, run))


def continued(run: Run, iterations: int) -> Config:
    """The config that trains a run's weights on in one NEST simulation, without validation and test."""
    tree: dict[str, Any] = copy.deepcopy(run.config)
    shared = [field.name for field in fields(TrainingConfig)]
    tree["training"] = {key: tree["training"][key] for key in shared if key in tree["training"]}
    tree["training"] |= {"name": "continuous", "do_early_stopping": False, "n_iter_test": 0, "evaluation": INLINE}
    nest: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / "engine" / "nest.yaml"))
    tree["engine"] = nest
    tree["synapse"] |= {"weights_from": str(run.directory), "init_optimizer": []}
    tree["task"]["n_iter"] = iterations
    tree["resume"] = None
    return typed(tree)


def _script(config: Config, run: Run) -> str:
    model, timing, loss = config.model, config.timing, config.loss
    synapse, each_synapse = model.plastic()
    optimizer = config.make_optimizer().nest_parameters() | {"batch_size": config.task.n_batch}
    populations = [
        (each.name, each.model, each.size, _plain(model.parameters(each.name))) for each in model.populations
    ]
    values = {
        "KERNEL": kernel_parameters(config),
        "POPULATIONS": populations,
        "READOUT": (model.readout, config.task.n_out, _plain(model.parameters("out"))),
        "SYNAPSE": (model.synapse, {"optimizer": optimizer} | synapse, each_synapse),
        "LEARNING_SIGNAL": model.learning_signal,
        "SOFTMAX": loss.softmax,
        "N_IN": config.task.n_in,
        "N_BATCH": config.task.n_batch,
        "SEQUENCE": timing.sequence,
        "LEARNING_WINDOW": timing.learning_window,
        "LAG": timing.total_offset,
    }
    lines = [f"{name} = {pprint.pformat(value, width=100, sort_dicts=False)}" for name, value in values.items()]
    template = Path(__file__).with_name("continue_in_nest.txt").read_text(encoding="utf-8")
    name = run.directory.resolve().name.encode("ascii", "replace").decode()
    return template.replace("RUN_NAME", repr(name)).replace("PARAMETERS", "\n".join(lines))


def _plain(parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters as Python spells them; those of each neuron as lists."""
    return {
        key: list(map(float, value)) if isinstance(value, list | Drawn) else value for key, value in parameters.items()
    }
