"""What users get wrong: one line, exit status 2, and nothing changed on disk."""

import json
import os
import re
import shutil
import sys

import numpy as np
import pytest
from forked import run_command
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobRuntime
from small import BARE, SMALL, config
from synthetic_run import write_run

from eprop_cli.cli import eprop_compare, eprop_plot
from eprop_cli.cli import eprop_run as cli
from eprop_cli.config.arguments import one_line
from eprop_cli.config.files import conf_dir, read_keys
from eprop_cli.errors import UserError
from eprop_cli.registry import VARIANTS
from eprop_cli.training.base import check_ready

ENTRIES = {"eprop-run": cli.main, "eprop-plot": eprop_plot.plot, "eprop-compare": eprop_compare.compare}
PARALLEL = "training=data_parallel"
BACKEND = "engine.backend: is a key of engine=nest, not of the file chosen"
BETA_1 = "optimizer.beta_1: is a key of optimizer=adam, not of the file chosen"
N_WORKRS = "engine.n_workrs: there is no such key; closest: engine.n_workers (threads that share each batch)"
FORM = "is not KEY=VALUE (see eprop-run --help), or its quotes or brackets do not match"
OPTIONS = "see eprop-run --help and --hydra-help"
TASKS = ", ".join(sorted(path.stem for path in conf_dir().glob("task/*.yaml")))
EXPERIMENTS = ", ".join(sorted(path.stem for path in conf_dir().glob("experiment/*.yaml")))
METRICS = "loss, accuracy, recall_error, rate_reg, rate_ad"
FAMILIES = "must be one of bsshslm_2020, eprop_iaf, eprop_iaf_adapt, eprop_iaf_psc_delta, eprop_iaf_psc_delta_adapt, "
OWN = "or module:Class with a Config that extends eprop_cli.{} (docs/extending.md)"
NOT_NEST = "needs training=data_parallel; NEST's own optimizer does not have it"
NO_RECORD = "is not a run directory: it has no readable run.json"
FIRES = "must not make neurons fire in the first step; lower it, or raise V_th"
WEIGHTS_FROM = "must be a run directory, its weights.npz, or a .npz of yours, whole and readable"
NO_WEIGHTS = "does not exist; give a run directory, its weights.npz, or a .npz of yours"
TAU = "must be a number, a list with one per neuron, or {distribution: normal, mean: M, std: S}"
STEPS = "must be a group with the keys cue, spacing, bg_noise, recall, learning_window"
NO_SUBDIR = "cannot be set: a run's config is looked for in .hydra"
CONTINUOUS = list(read_keys(conf_dir() / "training" / "continuous.yaml"))
INTERVAL = "must divide the sequence (2250 ms)"
NO_MODE = "KeyError raised while resolving interpolation: \"Environment variable 'NO_SUCH_THING' not found\""


def tree(directory):
    """All that is in a directory."""
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(directory.rglob("*"))}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A directory to stand in, with what wrong arguments may name."""
    place = tmp_path / "here"
    place.mkdir()
    (place / "file").write_text("of the user\n")
    (place / "full").mkdir()
    (place / "full" / "notes.txt").write_text("of the user\n")
    (place / "empty").mkdir()
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def refuse(here, monkeypatch, capsys, recwarn):
    """Gives the one line on stderr by which a command refuses its arguments, without its name."""

    def run(program, *arguments):
        monkeypatch.setattr(sys, "argv", [program, *map(str, arguments)])
        monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
        monkeypatch.setattr(JobRuntime.instance(), "conf", JobRuntime().conf.copy())
        before = tree(here)
        with pytest.raises(SystemExit) as ending:
            ENTRIES[program]()
        out, err = capsys.readouterr()
        assert (ending.value.code, out) == (2, "")
        assert tree(here) == before
        assert err.startswith(f"{program}: ")
        assert err.endswith("\n")
        assert err.count("\n") == 1
        assert not [warning for warning in recwarn if issubclass(warning.category, UserWarning)]  # Hydra's
        return err.removeprefix(f"{program}: ").removesuffix("\n")

    return run


# A line "KEY=VALUE: constraint" for that very override.
VALUES = {
    # task
    "task.n_iter=-1": "must be at least 0",
    "task.n_iter=0": "must be at least 1 unless training.n_iter_test is",
    "task.n_iter=1.5": "must be a whole number",
    "task.n_iter=many": "must be a whole number",
    "task.n_iter=": "must be a whole number",
    "task.n_iter=null": "must be a whole number",
    "task.n_iter=true": "must be a whole number",
    "task.n_iter=[5]": "must be a whole number",
    "task.n_iter=3000000000": "must be at most 2147483647",
    "task.n_batch=0": "must be at least 1",
    "task.n_in=0": "must be at least 1",
    "task.n_in=41": "must be a multiple of n_input_symbols (4)",
    "task.n_out=3": "must be 2 in this task, one readout per side",
    "task.n_out=0": "must be at least 1",
    "task.n_input_symbols=3": "must be at least 4 (left, right, recall, noise)",
    "task.n_cues=6": "must be odd and at least 1, so that one side has more cues",
    "task.n_cues=-1": "must be odd and at least 1, so that one side has more cues",
    "task.prob_group=1.5": "must be a probability, from 0 to 1",
    "task.prob_group=half": "must be a number",
    "task.input_spike_prob=-0.1": "must be a probability, from 0 to 1",
    "task.input_spike_prob=nan": "must be a finite number",
    "task.steps.cue=0": "must be at least 1 time steps",
    "task.steps.cue=10.5": "must be a whole number",
    "task.steps.spacing=-1": "must be at least 0 time steps",
    "task.steps.bg_noise=-1": "must be at least 0 time steps",
    "task.steps.recall=0": "must be at least 1 time steps",
    "task.steps.learning_window=0": "must be at least 1 time steps",
    "task.steps.learning_window=2251": "must be from 1 to the length of the sequence (2250 steps)",
    "task.steps.learning_window=2249": (
        "must be at most 2248 with training=continuous and cross_entropy (sequence less 2 steps)"
    ),
    "task.steps=5": STEPS,
    "task.steps=null": STEPS,
    "task.name=nosuch:Task": "cannot be imported (No module named 'nosuch')",
    "task.name=json:loads": f"must be one of {', '.join(VARIANTS['task'])}, "
    + OWN.format("tasks.base:TaskConfig"),
    # neuron
    "neuron.n_reg=-1": "must be at least 0",
    "neuron.n_reg=100000000": (
        "must be lower, or connectivity.rec_rec sparser: 1e+16 synapses, and 1 x 2250 steps of 100000050 neurons, need"
    ),
    "neuron.n_ad=a": "must be a whole number",
    "neuron.rec.C_m=0.0": "must be positive",
    "neuron.rec.c_reg=-1.0": "must be non-negative",
    "neuron.rec.f_target=-1.0": "must be non-negative",
    "neuron.rec.gamma=0.0": "must be positive",
    "neuron.reg.t_ref=-1.0": "must be non-negative",
    "neuron.ad.t_ref=2.5": "must be a multiple of kernel.resolution (1.0 ms)",
    "neuron.rec.tau_m=0": "must be positive",
    "neuron.rec.tau_m=fast": TAU,
    "neuron.rec.tau_m=null": TAU,
    "neuron.rec.tau_m=[10, 20]": "must be one number here; give lists under the population",
    "neuron.reg.tau_m=[10, 20]": "must have one value per neuron (50)",
    "neuron.ad.adapt_tau=-5": "must be positive",
    "neuron.ad.adapt_tau=inf": "must be a finite number",
    "neuron.ad.adapt_beta_scale=-1.0": "must be non-negative",
    "neuron.ad.adaptation=nan": "must be a finite number",
    "neuron.rec.V_th=0.0": "must be positive",
    "neuron.rec.V_min=1.0": "must be below V_th (0.6)",
    "neuron.rec.V_min=low": "must be a number, or null",
    "neuron.reg.V_m=5.0": FIRES,
    "neuron.ad.I_e=5.0": FIRES,
    "neuron.rec.E_L=-1e+300": "must be from -1e+09 to 1e+09",
    "neuron.rec.regular_spike_arrival=often": "must be true or false",
    "neuron.rec.regular_spike_arrival=null": "must be true or false",
    "neuron.rec.surrogate_gradient_function=step": (
        "must be one of piecewise_linear, exponential, fast_sigmoid_derivative, arctan_derivative"
    ),
    "neuron.reg.flush_event_send_interval=0.5": "must be a multiple of kernel.resolution (1.0 ms)",
    "neuron.reg.flush_event_send_interval=100.0": "must be at least one sequence (2250 ms)",
    "neuron.out.tau_m=-20.0": "must be positive",
    "neuron.out.tau_m=[10, 20]": "must be a number",
    "neuron.out.C_m=0.0": "must be positive",
    "neuron.out.loss=hinge": "must be one of cross_entropy, mean_squared_error, or module:Class (docs/extending.md)",
    "neuron.name=lif": FAMILIES + OWN.format("models.base:NeuronConfig"),
    # synapse
    "synapse.weight_scale.in_rec=-1.0": "must be non-negative",
    "synapse.weight_scale.out_rec=1e+300": "makes weights of out_rec infinite or NaN",
    "synapse.dtype_weights=float16": "must be one of float32, float64",
    "synapse.average_gradient=2.5": "must be true or false",
    "synapse.weights_from=nowhere": NO_WEIGHTS,
    "synapse.weights_from=file/weights.npz": NO_WEIGHTS,
    "synapse.weights_from=file": WEIGHTS_FROM,
    "synapse.weights_from=empty": WEIGHTS_FROM,
    "synapse.weights_from=": WEIGHTS_FROM,
    "synapse.init_optimizer=3": "must be a list, as in [a, b]",
    # optimizer
    "optimizer.eta=-0.1": "must be non-negative",
    "optimizer.eta=high": "must be a number",
    "optimizer.eta=inf": "must be a finite number",
    "optimizer.beta_1=1.0": "must be from 0 to below 1",
    "optimizer.beta_2=-0.1": "must be from 0 to below 1",
    "optimizer.epsilon=0.0": "must be positive",
    "optimizer.Wmin=200.0": "must be below Wmax (100.0)",
    "optimizer.Wmin=-0.1": "must not be above the smallest initial weight of in_rec (-0.4986)",
    "optimizer.Wmax=0.1": "must not be below the largest initial weight of in_rec (0.6259)",
    "optimizer.weight_decay=-1.0": "must be non-negative",
    "optimizer.weight_decay=0.1": NOT_NEST,
    "optimizer.clip_norm=0.0": "must be positive",
    "optimizer.clip_norm=1.0": NOT_NEST,
    "optimizer.schedule.name=linear": "must be one of constant, step, cosine",
    "optimizer.schedule.warmup=-1": "must be non-negative",
    "optimizer.schedule.step_every=0": "must be positive",
    "optimizer.schedule.step_factor=-1.0": "must be non-negative",
    "optimizer.schedule.eta_min=-1.0": "must be non-negative",
    "optimizer.name=gradient_descent": (
        "stands among the keys of adam; choose optimizer=gradient_descent, which brings its own"
    ),
    # training, engine
    "training.n_iter_validate_every=0": "must be positive",
    "training.n_iter_early_stop=0": "must be positive",
    "training.n_iter_test=-1": "must be non-negative",
    "training.stop_crit=1.5": "must be from 0.0 to 1, as recall_error is",
    "training.stop_crit=low": "must be a number",
    "training.stop_metric=nrmse": "must be one of loss, accuracy, recall_error",
    "training.stop_metric=rate_reg": "must be one of loss, accuracy, recall_error",
    "training.do_early_stopping=maybe": "must be true or false",
    "training.name=online": "must be one of continuous, data_parallel, " + OWN.format("training.base:TrainingConfig"),
    "synapse.name=fast": "must be one of bsshslm_2020, eprop_synapse, "
    + OWN.format("connectivity.synapses:SynapseConfig"),
    "optimizer.name=sgd": "must be one of gradient_descent, adam, " + OWN.format("optimizers.base:OptimizerConfig"),
    "engine.name=gpu": f"must be one of {', '.join(VARIANTS['engine'])}, " + OWN.format("engines.base:EngineConfig"),
    "engine=compiled": "needs training=data_parallel",
    # recording, kernel, plots
    "plots.band=sem": "must be one of range, std, ci95",
    "plots.metric=nrmse": f"must be a metric ({METRICS}), or val_, test_, best_, mean10_ or median5_ of one",
    "recording.n_record=-1": "must be non-negative",
    "recording.n_record_w=-1": "must be non-negative",
    "recording.interval=0.5": "must be a multiple of kernel.resolution (1.0 ms)",
    "recording.interval=7.0": INTERVAL,
    "recording.interval=0.0": "must be positive",
    "recording.iterations=[0]": "must list first, last, or numbers from 1",
    "recording.iterations=[null]": "must list first, last, or numbers from 1",
    "recording.iterations=first": "must be a list, as in [a, b]",
    "kernel.resolution=0.0": "must be positive",
    "kernel.resolution=inf": "must be a finite number",
    "kernel.resolution=0.0015": "must be a multiple of NEST's finest time step (0.001 ms)",
    "engine.local_num_threads=0": "must be at least 1",
    "engine.max_retries=-1": "must be non-negative",
    "engine.backend=mpi": "must be one of loky, dask",
    "plots.dpi=0": "must be from 10 to 1200",
    "plots.dpi=1000000": "must be from 10 to 1200",
    # the rest
    "seed=-1": "must be from 0 to 4294967295",
    "seed=4294967296": "must be from 0 to 4294967295",
    "seed=1.5": "must be a whole number",
    "seed=null": "must be a whole number",
    "objective=nrmse": f"must be a metric ({METRICS}), or val_, test_, best_, mean10_ or median5_ of one",
    "objective=test_loss": "needs a test; set training.n_iter_test, e.g. to 4",
    "objective=val_error": "needs validation; set training.do_early_stopping=true",
    "resume=": "must be a run directory, or null for a run of its own",
    "resume=nowhere": NO_RECORD,
    "resume=file": NO_RECORD,
    "resume=full": NO_RECORD,
    "hydra.run.dir=full": "holds files already; choose another directory or remove it",
    "hydra.run.dir=file": "cannot be made or read (File exists); choose another",
    "hydra.run.dir=file/run": "cannot be made or read (Not a directory); choose another",
    "hydra.run.dir=/proc/nowhere": "cannot be made or read (No such file or directory); choose another",
    "hydra.output_subdir=null": NO_SUBDIR,
    "hydra.output_subdir=other": NO_SUBDIR,
    # names of files in conf/
    "experiment=smok": f"must be one of {EXPERIMENTS}. Did you mean smoke?",
    "experiment=nosuch": f"must be one of {EXPERIMENTS}",
    "experiment=null": f"must be one of {EXPERIMENTS}",
    "task=navigation": f"must be one of {TASKS}",
    "task=null": f"must be one of {TASKS}",
    "optimizer=5": "must be one of adam, gradient_descent",
}  # fmt: skip


def is_of_the_config(override):
    """Whether it takes no more than the config to refuse an override: it is no choice of a file, nor a directory."""
    key = override.partition("=")[0]
    return not key.startswith(("hydra.", "resume")) and not (conf_dir() / key).is_dir()


def refused_by_the_config(*overrides):
    """The line by which loading and checking a config refuses overrides."""
    with pytest.raises(UserError) as error:
        check_ready(config(*overrides))
    return one_line(error.value)


# Hydra composes twice before it has a config to refuse, so the command is tried with a few of these; see below.
@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("override", [key for key in VALUES if is_of_the_config(key)])
def test_a_value(override):
    line = re.sub(r" about \S+ GiB and do not fit into memory .*", "", refused_by_the_config(override))  # the machine's
    assert line == f"{override}: {VALUES[override]}"


AS_A_COMMAND = ["task.n_in=41", "task.n_iter=many", "task.name=nosuch:Task", "synapse.weights_from=empty", "seed=null"]


@pytest.mark.parametrize("override", [*AS_A_COMMAND, *(key for key in VALUES if not is_of_the_config(key))])
def test_a_value_given_to_the_command(refuse, override):
    assert refuse("eprop-run", override) == f"{override}: {VALUES[override]}"


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["task.n_input_symbols=7"], "task.n_in=40: must be a multiple of n_input_symbols (7)"),
        (["task.n_batch=2000000000", "task.n_cues=1", "task.steps.cue=1000000000"],
         "task.n_batch=2000000000: must be lower: that many sequences of 1000001250 steps of 40 inputs do not fit into "
         "memory"),
        (["neuron.n_reg=0", "neuron.n_ad=0"], "neuron.n_reg=0: n_reg and n_ad must not both be 0"),
        (["kernel.resolution=0.3"], "neuron.reg.t_ref=5.0: must be a multiple of kernel.resolution (0.3 ms)"),
        (
            ["task.n_cues=1", "task.steps={cue: 1, spacing: 0, bg_noise: 1, recall: 1}", PARALLEL],
            "task.sequence_steps=3: must be at least 5; make the sequence longer",
        ),
        (["recording.interval=5", "task.n_cues=1", "task.steps.recall=151"],
         "recording.interval=5.0: must divide the sequence (1351 ms)"),
        (["optimizer.Wmin=1", "optimizer.Wmax=1"], "optimizer.Wmin=1.0: must be below Wmax (1.0)"),
        (["synapse.weight_scale.rec_rec=1000"],
         "optimizer.Wmin=-100.0: must not be above the smallest initial weight of rec_rec (-365.6)"),
        ([PARALLEL, "engine.n_workers=0"], "engine.n_workers=0: must be at least 1"),
        ([PARALLEL, "engine.n_workers=2"],
         "engine.n_workers=2: must be at most task.n_batch (1): a worker takes at least one sequence"),
        ([PARALLEL, "training.checkpoint_every=0"], "training.checkpoint_every=0: must be positive"),
        ([PARALLEL, "engine=compiled", "engine.n_workers=2"],
         "engine.n_workers=2: must be at most task.n_batch (1): a worker takes at least one sequence"),
        ([PARALLEL, "engine.backend=dask"], "engine.scheduler=null: must be the address of a Dask scheduler, "
         "e.g. tcp://host:8786, with backend=dask"),
        ([PARALLEL, "kernel.eprop_reset_neurons_on_update=false"],
         "kernel.eprop_reset_neurons_on_update=false: must be true with training=data_parallel, where sequences are "
         "independent; or use training=continuous"),
        ([PARALLEL, "engine=compiled", "neuron.reg.I_e=5"],
         "neuron.reg.I_e=5.0: must not make neurons fire in the first step of a sequence; lower it, or raise V_th"),
        (["neuron.out.loss=mean_squared_error", "objective=nrmse"],
         f"objective=nrmse: must be a metric ({METRICS}), or val_, test_, best_, mean10_ or median5_ of one"),
        (["training.stop_metric=accuracy", "training.stop_crit=-1"],
         "training.stop_crit=-1.0: must be from 0.0 to 1, as accuracy is"),
        (["synapse.init_optimizer=[{projection: in_rec, pre: 0, post: [1], m: 0.1}]"],
         "synapse.init_optimizer[0].v: is missing"),
        (["synapse.init_optimizer=[{projection: in_rec, pre: 40, post: [1], m: 0, v: 0}]"],
         "synapse.init_optimizer.pre=40: must be from 0 to 39"),
        (["synapse.init_optimizer=[{projection: out_rec, pre: 0, post: [1], m: 0, v: 0}]"],
         "synapse.init_optimizer.projection=out_rec: must be one of in_rec, rec_rec, rec_out"),
        (["synapse.init_optimizer=[{projection: rec_rec, pre: 1, post: [1], m: 0, v: 0}]"],
         "synapse.init_optimizer.post=[1]: must not hold pre: there are no autapses"),
        (["synapse.init_optimizer=[{projection: in_rec, pre: 1, post: [1, 1], m: 0, v: 0}]"],
         "synapse.init_optimizer.post=[1, 1]: must not name a neuron twice"),
        (["synapse.init_optimizer=[{projection: in_rec, pre: 1, post: [1], m: nan, v: 0}]"],
         "synapse.init_optimizer.m=nan: must be a finite number"),
        (["plots.figures=[losses]"],
         f"plots.figures=losses: must be one of {', '.join(VARIANTS['figure'])}, or module:Class (docs/extending.md)"),
        (["plots.formats=[gif]"], "plots.formats=gif: must be one of png, pdf, svg"),
        (["engine.local_num_threads=1000"], f"engine.local_num_threads=1000: must be at most the number of cores "
         f"({os.cpu_count()}): NEST's threads wait for each other spinning"),
    ],
    ids=str,
)  # fmt: skip
def test_values_that_do_not_fit_together(overrides, line):
    assert refused_by_the_config(*overrides) == line


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["task.n_itr=50"], "task.n_itr: there is no such key; closest: task.n_iter (training iterations)"),
        (["taks=evidence_accumulation"], "taks: there is no such key; closest: task"),
        (["colour=red"], "colour: there is no such key; search them: eprop-run --keys WORD"),
        ([PARALLEL, "engine=compiled", "engine.backend=loky"], BACKEND),
        ([PARALLEL, "engine.n_workrs=2"], N_WORKRS),
        (["optimizer=gradient_descent", "optimizer.beta_1=0.5"], BETA_1),
        (["+colour=red"], "colour: there is no such key; search them: eprop-run --keys WORD"),
        (["++task.n_itr=50"], "task.n_itr: there is no such key; closest: task.n_iter (training iterations)"),
        (["~seed"], "seed: is missing"),
        (["~optimizer"], "optimizer: is missing"),
        (["hydra.colour=red"], "hydra.colour: there is no such key; Hydra's keys: eprop-run --cfg hydra"),
        (
            ["hydra.launcher.n_jobs=2"],
            "hydra.launcher.n_jobs: is no key of the hydra/launcher chosen; the keys of one: eprop-run "
            "hydra/launcher=NAME --cfg hydra -p hydra.launcher",
        ),
        (["hydra.mode=fast"], "hydra.mode=fast: Invalid value 'fast', expected one of [RUN, MULTIRUN]"),
        (["task.n_iter"], f"task.n_iter: {FORM}"),
        (["=5"], f"=5: {FORM}"),
        ([""], f"'': {FORM}"),
        (["help"], f"help: {FORM}"),
        (["task.n_iter==5"], f"task.n_iter==5: {FORM}"),
        (["task..n_iter=5"], f"task..n_iter=5: {FORM}"),
        (["task.n_iter=[1"], f"task.n_iter=[1: {FORM}"),
        (["task.n_iter={a: 1"], f"task.n_iter={{a: 1: {FORM}"),
        (["task.n_iter='5"], f"task.n_iter='5: {FORM}"),
        (["task.n_iter=5)"], f"task.n_iter=5): {FORM}"),
        (["seed=1", "extra"], f"extra: {FORM}"),
        (["seed=1.5e0"], "seed=1.5: must be a whole number"),
        (["task.n_iter=${nosuch}"], "task.n_iter: Interpolation key 'nosuch' not found"),
        (["task.n_iter=${oc.env:NO_SUCH_THING}"], f"task.n_iter: {NO_MODE}"),
        (["seed=1,2"], "seed=1,2: has several values; add -m for a run with each, or write a list as [a, b]"),
        (["seed=range(1,3)"], "Sweep parameters 'seed=range(1,3)' requires --multirun"),
        (["--colour"], f"unrecognized arguments: --colour; {OPTIONS}"),
        (["-x", "seed=1"], f"unrecognized arguments: -x; {OPTIONS}"),
        (["--experimental-rerun", "file"], "--experimental-rerun file: is Hydra's; use resume=RUN_DIR"),
        (["--cfg"], f"argument --cfg/-c: expected one argument; {OPTIONS}"),
        (["--config-dir", "nowhere"], "Additional config directory 'HERE/nowhere' not found"),
        (["-m", "seed="], "seed=: must be a whole number"),
        (["-m", "seed=[]"], "seed=[]: must be a whole number"),
        (["-m", "seed=1,"], f"seed=1,: {FORM}"),
        (["-m", "seed=choice()"], "seed=choice(): ValueError while evaluating 'choice()': empty choice is not legal"),
        (["-m", "seed=range(1,1)"], "seed=range(1,1): has no values, so there would be no job"),
        (["-m", "seed=-1,-2"], "seed=-1: must be from 0 to 4294967295"),
        (["-m", "task.n_itr=1,2"], "task.n_itr: there is no such key; closest: task.n_iter (training iterations)"),
        (["-m", "experiment=a,b"], f"experiment=a: must be one of {EXPERIMENTS}"),
        (["-m", "experiment=smoke,null"], f"experiment=null: must be one of {EXPERIMENTS}"),
        (["-m", "optimizer=range(1,3)"], "optimizer=1: must be one of adam, gradient_descent"),
        (["-m", "seed=1,2", "hydra.sweep.dir=full"],
         "hydra.sweep.dir=HERE/full: holds files, but no multirun's; choose another"),
        (["-m", "seed=1,2", "hydra.sweep.dir=file/sweep"],
         "hydra.sweep.dir=HERE/file/sweep: cannot be made or read (Not a directory); choose another"),
        (["-m", "seed=1,2", "hydra.sweep.subdir=x"],
         "hydra.sweep.subdir=x: cannot be set: jobs are named after their overrides"),
        (["-m", "seed=1,2", "hydra.output_subdir=null"], f"hydra.output_subdir=null: {NO_SUBDIR}"),
        (["-m", "seed=1,2", "hydra.output_subdir=other"], f"hydra.output_subdir=other: {NO_SUBDIR}"),
        (["-m", "+resume=full,empty"], "resume=full,empty: cannot be swept; continue each run by itself, without -m"),
    ],
    ids=str,
)  # fmt: skip
def test_arguments(refuse, here, arguments, line):
    assert refuse("eprop-run", *arguments) == line.replace("HERE", str(here))


def test_another_directory_for_a_multirun_that_goes_on(refuse, here):
    (here / "full" / "sweep.json").write_text('{"options": [], "overrides": ["seed=1,2"]}')
    line = "hydra.sweep.dir=other: cannot be given with resume; leave it out"
    assert refuse("eprop-run", "resume=full", "hydra.sweep.dir=other") == line


@pytest.mark.parametrize("multirun", [[], ["-m"]])
@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"seed: [1\n", "MINE: is not YAML (expected ',' or ']', but got '<stream end>', line 2)"),
        (b"seed: 1\nseed: 2\n", "MINE: is not YAML (found duplicate key seed, line 2)"),
        (b"a: \xff\n", "MINE: cannot be read as keys and values (UnicodeDecodeError: 'utf-8' codec can't decode byte "
         "0xff in position 3: invalid start byte)"),
        (b"5\n", "MINE: cannot be read as keys and values (OSError: Invalid loaded object type: int)"),
        (b"# @package _global_\ntask: 5\n", "task=5: must be a group of keys, as a file of its own has them"),
        (b"# @package _global_\noptimizer: null\n",
         "optimizer=null: must be a group of keys, as a file of its own has them"),
    ],
    ids=str,
)  # fmt: skip
def test_an_experiment_of_ones_own(refuse, here, multirun, content, line):
    mine = here / "conf" / "experiment" / "mine.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(content)
    told = refuse("eprop-run", "--config-dir", "conf", *multirun, "experiment=mine")
    assert told == line.replace("MINE", "conf/experiment/mine.yaml")


@pytest.mark.parametrize(
    ("choice", "plugin", "package", "extra"),
    [
        ("hydra/launcher=slurm", "submitit_slurm", "hydra-submitit-launcher", "slurm"),
        ("hydra/launcher=slurm_local", "submitit_local", "hydra-submitit-launcher", "slurm"),
    ],
)
def test_a_plugin_that_is_not_installed(refuse, monkeypatch, choice, plugin, package, extra):
    Plugins.instance()  # it is here that plugins register their configs
    group = choice.split("=")[0].removeprefix("hydra/")
    monkeypatch.delitem(ConfigStore.instance().repo["hydra"][group], f"{plugin}.yaml")
    line = f"{choice}: needs {package}, which is not installed; pip install '.[{extra}]' in the checkout"
    assert refuse("eprop-run", "-m", choice) == line


def test_a_search_without_optuna(refuse, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    missing = "needs optuna, which is not installed; pip install '.[optuna]' in the checkout"
    line = refuse("eprop-run", "-m", "hydra/sweeper=optuna", "optimizer.eta=interval(1e-4,1e-2)")
    assert line == f"hydra/sweeper=optuna: {missing}"


def damage(path, how):
    """Spoil a file that should be an archive of arrays."""
    if how == "cut off":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "missing":
        path.unlink()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The directory of a finished run of smoke."""
    return write_run(tmp_path_factory.mktemp("written") / "run", "plots.dpi=40")


@pytest.mark.parametrize("how", ["cut off", "empty", "missing"])
def test_trained_weights_that_are_damaged(refuse, here, written, how):
    shutil.copytree(written, here / "run")
    damage(here / "run" / "weights.npz", how)
    line = refuse("eprop-run", "experiment=smoke", "synapse.weights_from=run")
    assert line == f"synapse.weights_from=run: {WEIGHTS_FROM}"


def test_trained_weights_of_another_size_or_without_meaning(refuse, here, written):
    shutil.copytree(written, here / "run")
    reason = "has in_rec weights of shape (20, 40), but the network needs (100, 40)"
    assert refuse("eprop-run", "synapse.weights_from=run") == f"synapse.weights_from=run: {reason}"
    with np.load(written / "weights.npz") as file:
        arrays = dict(file)
    np.fill_diagonal(arrays["rec_rec_after"], 0)
    arrays["rec_out_after"][0, 0] = np.nan
    np.savez(here / "run" / "weights.npz", **arrays)
    line = refuse("eprop-run", "experiment=smoke", "synapse.weights_from=run")
    assert line == "synapse.weights_from=run: makes weights of rec_out infinite or NaN"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Directory of a data-parallel run of 2 iterations."""
    directory = tmp_path_factory.mktemp("finished")
    overrides = (*SMALL, *BARE, PARALLEL, "training.n_iter_test=0", "task.n_iter=2")
    run_command(*overrides, "hydra.run.dir=run", cwd=directory, check=True)
    return directory / "run"


@pytest.mark.nest
class TestResume:
    def test_what_contradicts_the_run(self, refuse, here, finished):
        shutil.copytree(finished, here / "run")
        for override, line in {
            "task.n_iter=1": "is less than the 2 iterations that the run in run has done",
            "seed=2": "contradicts the checkpoint in run, which has 1; leave it out",
            "optimizer.eta=0.1": "contradicts the checkpoint in run, which has 0.005; leave it out",
        }.items():
            assert refuse("eprop-run", "resume=run", override) == f"{override}: {line}"

    def test_another_directory(self, refuse, here, finished):
        shutil.copytree(finished, here / "run")
        shutil.copytree(finished, here / "copy")
        for place in ("copy", "empty", "nowhere"):
            line = f"hydra.run.dir={place}: cannot be given with resume; leave it out"
            assert refuse("eprop-run", "resume=run", f"hydra.run.dir={place}") == line

    @pytest.mark.parametrize(
        ("name", "content", "line"),
        [
            ("run.json", None, "resume=run: is not a run directory: it has no readable run.json"),
            ("run.json", "{", "resume=run: cannot be resumed: its run.json is damaged "
             "(Expecting property name enclosed in double quotes: line 1 column 2 (char 1))"),
            ("run.json", "[1]", "resume=run: cannot be resumed: its run.json is damaged "
             "(it does not say what became of the run)"),
            ("checkpoint.npz", None, "run/checkpoint.npz: no such file, so there is nothing to resume from; "
             "a COMPLETED run keeps it if it is small, "
             "or with training.keep_checkpoint=true; to begin a run from its weights: synapse.weights_from=run"),
            ("checkpoint.npz", "", "run/checkpoint.npz: damaged (File is not a zip file), "
             "so there is nothing to resume from"),
            ("metrics.csv", "", "run/metrics.csv: damaged (it has 0 of 2 rows), so the run cannot go on"),
        ],
        ids=str,
    )  # fmt: skip
    def test_what_is_damaged(self, refuse, here, finished, name, content, line):
        shutil.copytree(finished, here / "run")
        if content is None:
            (here / "run" / name).unlink()
        else:
            (here / "run" / name).write_text(content)
        assert refuse("eprop-run", "resume=run") == line

    def test_a_run_in_one_simulation(self, refuse, here, finished):
        shutil.copytree(finished, here / "run")
        record = json.loads((here / "run" / "run.json").read_text())
        training = {key: record["config"]["training"][key] for key in CONTINUOUS}
        record["config"]["training"] = training | {"name": "continuous", "evaluation": "inline"}
        (here / "run" / "run.json").write_text(json.dumps(record))
        reason = "a continuous run cannot be continued exactly, as NEST does not give out the state of its synapses"
        remedy = "start again with training=data_parallel, which can"
        assert refuse("eprop-run", "resume=run") == f"resume=run: {reason}; {remedy}"


@pytest.mark.parametrize(
    ("program", "arguments", "line"),
    [
        ("eprop-plot", [], "the following arguments are required: RUN_DIR; see eprop-plot --help"),
        ("eprop-plot", ["nowhere"], "nowhere: does not exist"),
        ("eprop-plot", ["empty"], "empty: is not a run directory: it holds no run.json"),
        ("eprop-plot", ["file"], "file: is a file; give the run directory"),
        ("eprop-plot", ["run", "--figures", "loss"],
         f"--figures loss: must be one of {', '.join(VARIANTS['figure'])}"),
        ("eprop-plot", ["run", "--figures", ","],
         "argument --figures: must name at least one; see eprop-plot --help"),
        ("eprop-plot", ["run", "--formats", "gif"], "--formats gif: must be one of png, pdf, svg"),
        ("eprop-plot", ["run", "--dpi", "5"], "--dpi 5: must be from 10 to 1200"),
        ("eprop-plot", ["run", "--dpi", "high"],
         "argument --dpi: must be a whole number from 1; see eprop-plot --help"),
        ("eprop-plot", ["run", "--output", "file/in"], "file/in: cannot be made: Not a directory"),
        ("eprop-plot", ["run", "--output", "file"], "file: cannot be made: File exists"),
        ("eprop-plot", ["run", "--colour"], "unrecognized arguments: --colour; see eprop-plot --help"),
        ("eprop-compare", [], "the following arguments are required: RUN_DIR; see eprop-compare --help"),
        ("eprop-compare", ["nowhere"], "nowhere: no such directory"),
        ("eprop-compare", ["no*where"], "no*where: no such directory"),
        ("eprop-compare", ["empty"], "empty: no run directory in there (none holds a run.json)"),
        ("eprop-compare", ["file"], "file: no run directory in there (none holds a run.json)"),
        ("eprop-compare", ["run", "--formats", ""],
         "argument --formats: must name at least one; see eprop-compare --help"),
        ("eprop-compare", ["run", "--dpi", "5000"], "--dpi 5000: must be from 10 to 1200"),
        ("eprop-compare", ["run", "--output", "/proc/nowhere/x"],
         "/proc/nowhere/x: cannot be made: No such file or directory"),
        ("eprop-compare", ["run", "--force=1"],
         "argument --force: ignored explicit argument '1'; see eprop-compare --help"),
    ],
    ids=str,
)  # fmt: skip
def test_looking_at_runs(refuse, here, written, program, arguments, line):
    shutil.copytree(written, here / "run")
    assert refuse(program, *arguments) == line


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("run.json", "{", "is damaged: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("run.json", "[]", "is damaged: it does not say what became of the run"),
        ("run.json", "{}", "is damaged: it does not say what became of the run"),
        ("run.json", '{"status": "COMPLETED"}', "is damaged: config is missing"),
        ("run.json", '{"status": "COMPLETED", "config": {}}', "is damaged: training is missing"),
        ("run.json", '{"status": "COMPLETED", "seconds": 5}',
         "is damaged: its seconds is not that of a run: 5"),
    ],
    ids=str,
)  # fmt: skip
def test_plotting_what_is_damaged(refuse, here, name, content, line, written):
    shutil.copytree(written, here / "run")
    (here / "run" / name).write_text(content)
    assert refuse("eprop-plot", "run") == f"run/{name}: {line}"


def test_a_damaged_table_is_told_once_though_it_spoils_several_figures(here, written, monkeypatch, capsys):
    shutil.copytree(written, here / "run")
    (here / "run" / "metrics.csv").unlink()
    monkeypatch.setattr(sys, "argv", ["eprop-plot", "run", "--output", "drawn"])
    with pytest.raises(SystemExit) as ending:
        eprop_plot.plot()
    line = "eprop-plot: run/metrics.csv: is missing: it belongs to every run\n"
    assert (ending.value.code, capsys.readouterr().err) == (2, line)
    assert {path.name for path in (here / "drawn").iterdir()} >= {"weight_matrices.png"}


# As users start them: another process, nothing of the tests around.
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["task.n_in=41"], "task.n_in=41: must be a multiple of n_input_symbols (4)"),
        (["task.n_itr=50"], "task.n_itr: there is no such key; closest: task.n_iter (training iterations)"),
        (["experiment=smok"], f"experiment=smok: must be one of {EXPERIMENTS}. Did you mean smoke?"),
        (["task=5"], f"task=5: must be one of {TASKS}"),
        (["=5"], f"=5: {FORM}"),
        (["--colour"], f"unrecognized arguments: --colour; {OPTIONS}"),
        (["-m", "seed=range(1,1)"], "seed=range(1,1): has no values, so there would be no job"),
        (["-m", "seed=-1,-2"], "seed=-1: must be from 0 to 4294967295"),
        (["neuron.rec.V_m=3"], f"neuron.reg.V_m=3.0: {FIRES}"),
        (["resume=nowhere"], f"resume=nowhere: {NO_RECORD}"),
        (["synapse.weights_from=nowhere"], f"synapse.weights_from=nowhere: {NO_WEIGHTS}"),
        (["hydra.run.dir=/dev/null/run"],
         "hydra.run.dir=/dev/null/run: cannot be made or read (Not a directory); choose another"),
    ],
    ids=str,
)  # fmt: skip
def test_as_a_process(eprop_run, tmp_path, arguments, line):
    done = eprop_run(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"eprop-run: {line}\n")
    assert not list(tmp_path.iterdir())


def test_a_wrong_value_in_one_job_of_several(eprop_run, tmp_path):
    done = eprop_run("-m", *SMALL, *BARE, "task.n_iter=1", "seed=1,-1", "hydra.sweep.dir=sweep")
    none = "must be from 0 to 4294967295; 1 of 2 jobs cannot run, so none was started"
    assert (done.returncode, done.stderr) == (2, f"eprop-run: seed=-1: {none}\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.nest
def test_a_run_that_fails_by_itself(eprop_run, tmp_path):
    done = eprop_run(*SMALL, *BARE, "neuron.out.E_L=1e9", "hydra.run.dir=run")
    assert (done.returncode, done.stderr) == (1, "")
    assert "FAILED: nothing trained (the loss became nan in training iteration 1)" in done.stdout
