import dataclasses
import itertools
import json
import pickle
import re
import typing
from pathlib import Path
from types import SimpleNamespace

import hydra
import numpy as np
import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException as OmegaConfError
from small import BARE, SMALL, compose, config

from eprop_cli import api
from eprop_cli.config.config import VARIED, Config
from eprop_cli.config.files import all_keys, conf_dir
from eprop_cli.config.load import explain, load
from eprop_cli.config.moved import MOVED, moved_among, with_new_names
from eprop_cli.config.sources import remembered
from eprop_cli.errors import ConfigError, UserError, require
from eprop_cli.optimizers.adam import AdamConfig
from eprop_cli.optimizers.base import OptimizerConfig
from eprop_cli.registry import VARIANTS, variant
from eprop_cli.schema import check_rules, flatten, to_dict, units

FILES = sorted(path.relative_to(conf_dir()).with_suffix("") for path in conf_dir().rglob("*.yaml"))
PARTS = [path for path in FILES if len(path.parts) > 2 and path.parts[0] not in ("hydra",)]  # of other files
# What a file needs beside it to be valid.
NEEDS = {
    "engine/compiled": ["training=data_parallel"],
    "engine/cuda": ["training=data_parallel"],
    **{str(path): ["hydra/sweeper=optuna"] for path in FILES if path.match("hydra/sweeper/*/*")},
    "synapse/eprop_synapse": ["neuron=eprop_iaf"],
    **{f"neuron/{path.name}": ["synapse=eprop_synapse"] for path in FILES if path.match("neuron/eprop_iaf*")},
}
EXPERIMENTS = [path.name for path in FILES if path.parent.name == "experiment"]

# NEST's tutorial, shared/seed: key -> value.
RECURRENT = {
    "C_m": 1.0,
    "c_reg": 2.0,
    "E_L": 0.0,
    "f_target": 10.0,
    "gamma": 0.3,
    "I_e": 0.0,
    "regular_spike_arrival": True,
    "surrogate_gradient_function": "piecewise_linear",
    "t_ref": 5.0,
    "tau_m": 20.0,
    "V_m": 0.0,
    "V_th": 0.6,
}
TUTORIAL = {
    "seed": 1,
    "task.n_iter": 5,
    "task.n_batch": 1,
    "task.n_in": 40,
    "task.n_out": 2,
    "task.n_input_symbols": 4,
    "task.n_cues": 7,
    "task.prob_group": 0.3,
    "task.input_spike_prob": 0.04,
    "task.steps.cue": 100,
    "task.steps.spacing": 50,
    "task.steps.bg_noise": 1050,
    "task.steps.recall": 150,
    "task.steps.learning_window": 150,
    "neuron.n_reg": 50,
    "neuron.n_ad": 50,
    "neuron.ad.adapt_tau": 2000.0,
    "neuron.ad.adaptation": 0.0,
    "neuron.ad.adapt_beta_scale": 1.7,
    "neuron.out.C_m": 1.0,
    "neuron.out.E_L": 0.0,
    "neuron.out.I_e": 0.0,
    "neuron.out.loss": "cross_entropy",
    "neuron.out.regular_spike_arrival": False,
    "neuron.out.tau_m": 20.0,
    "neuron.out.V_m": 0.0,
    "synapse.average_gradient": True,
    "synapse.dtype_weights": "float32",
    "optimizer.name": "adam",
    "optimizer.beta_1": 0.9,
    "optimizer.beta_2": 0.999,
    "optimizer.epsilon": 1e-8,
    "optimizer.eta": 5e-3,
    "optimizer.Wmin": -100.0,
    "optimizer.Wmax": 100.0,
    "recording.n_record": 1,
    "recording.n_record_w": 3,
    "recording.interval": 1.0,
    "kernel.resolution": 1.0,
    "kernel.eprop_reset_neurons_on_update": True,
    "engine.local_num_threads": 1,
} | {f"neuron.{population}.{key}": value for population in ("reg", "ad") for key, value in RECURRENT.items()}


@pytest.mark.parametrize("path", [path for path in FILES if path not in PARTS], ids=str)
def test_every_file_composes_and_validates(path):
    chosen = [] if path.name == "config" else [f"{path.parent}={path.name}"]
    with remembered(), hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        composed = hydra.compose("config", overrides=[*chosen, *NEEDS.get(str(path), [])], return_hydra_config=True)
    assert path.name == "config" or str(path.parent) in str(composed.hydra.runtime.choices)
    OmegaConf.set_struct(composed, False)
    del composed["hydra"]
    assert isinstance(load(composed), Config)


def test_there_are_files_of_every_group():
    groups = {field.name for field in dataclasses.fields(Config)} - {"seed", "resume", "objective", "report"}
    assert {path.parent.name for path in FILES} - {"", "help", "job_logging"} >= {*groups, "experiment"}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_holds_only_what_differs(name):
    file = OmegaConf.load(conf_dir() / "experiment" / f"{name}.yaml")
    entries = [{"experiment": entry} if isinstance(entry, str) else entry for entry in file.pop("defaults", [])]
    defaults = [f"{key.removeprefix('override /')}={value}" for entry in entries for key, value in entry.items()]
    without, experiment = flatten(OmegaConf.to_container(compose(*defaults))), flatten(OmegaConf.to_container(file))
    # A key may have keys below it where its default is a number: a distribution in its place.
    assert all(key in without or key.rpartition(".")[0] in without for key in experiment)
    same = [key for key, value in experiment.items() if without.get(key, ...) == value]
    assert not same
    others = [default for default in defaults if default.startswith("experiment=")]
    groups = OmegaConf.to_container(compose(*others))
    changed = [default.split("=") for default in defaults if not default.startswith("experiment=")]
    assert not [group for group, name in changed if groups[group].get("name") == name]


def test_defaults_are_the_tutorials():
    values = flatten(to_dict(config()))
    assert {key: values[key] for key in TUTORIAL} == TUTORIAL


def dataclasses_of(cls):
    """A config's dataclass and those of its keys, whichever of a group is chosen."""
    yield cls
    for field in dataclasses.fields(cls):
        kind = typing.get_type_hints(cls)[field.name]
        kinds = [kind]
        if cls is Config and field.name in VARIED:
            kinds = [variant(field.name, name).Config for name in VARIANTS[field.name]]
        kinds += typing.get_args(kind)
        for inner in kinds:
            if dataclasses.is_dataclass(inner):
                yield from dataclasses_of(inner)


def test_no_default_is_written_twice():
    classes = set(dataclasses_of(Config))
    assert len(classes) > 15
    for cls in classes:
        for field in dataclasses.fields(cls):
            assert field.default is dataclasses.MISSING, f"{cls.__name__}.{field.name}"
            assert field.default_factory is dataclasses.MISSING, f"{cls.__name__}.{field.name}"


def chosen(group, name):
    """The config with a variant of a group."""
    file = next(path for path in FILES if path.parent.name == group and name_in(path) == name)
    return compose(f"{group}={file.name}", *NEEDS.get(str(file), []))


def name_in(path):
    return OmegaConf.load(conf_dir() / path.with_suffix(".yaml")).get("name")


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in VARIED for name in VARIANTS[group]])
def test_a_schema_and_its_file_have_the_same_keys(group, name):
    schema = variant(group, name).Config
    assert set(chosen(group, name)[group]) == {field.name for field in dataclasses.fields(schema)}


def test_the_groups_without_variants_too():
    composed = compose()
    for group, cls in typing.get_type_hints(Config).items():
        if dataclasses.is_dataclass(cls):
            assert set(composed[group]) == {field.name for field in dataclasses.fields(cls)}, group


# Rules and units beside the keys

KEYS = all_keys()
UNITS = {"ms", "MiB", "mV", "pF", "pA", "pixels", "spikes/s", "iterations"}


def written_unit(key):
    """The unit with which the comment of a key in conf/ begins; none if it begins with something else."""
    unit = re.split(r"[ ,;]", KEYS[key].meaning)[0] if key in KEYS else ""
    return unit if unit in UNITS else ""


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in VARIED for name in VARIANTS[group]])
def test_units_are_those_of_the_comments(group, name):
    schema = variant(group, name).Config
    found = units(schema, group)
    keys = flatten(OmegaConf.to_container(chosen(group, name)[group], resolve=True), group)
    physical = {key for key in keys if written_unit(key) and written_unit(key) != "iterations"}
    assert {key: found.get(key) for key in physical} == {key: written_unit(key) for key in physical}
    for key, unit in found.items():
        if key in keys and unit not in ("iterations", "steps"):  # counts, which comments have in words
            assert written_unit(key) == unit or not KEYS[key].meaning, key


def test_units_of_the_groups_without_variants():
    found = units(config())
    assert {
        key: found[key] for key in ("kernel.resolution", "recording.interval", "neuron.rec.C_m", "optimizer.Wmax")
    } == {
        "kernel.resolution": "ms",
        "recording.interval": "ms",
        "neuron.rec.C_m": "pF",
        "optimizer.Wmax": "pA",
    }
    assert written_unit("kernel.resolution") == written_unit("recording.interval") == "ms"
    assert "task.n_in" not in found


def test_a_rule_is_checked_of_each_item_and_in_nested_groups():
    plots = config().plots
    plots.formats = ["png", "gif"]
    with pytest.raises(ConfigError, match=r"^plots\.formats=gif: must be one of png, pdf, svg$"):
        check_rules(plots, "plots")
    neuron = config().neuron
    neuron.ad.C_m = 0.0
    with pytest.raises(ConfigError, match=r"^neuron\.ad\.C_m=0\.0: must be positive$"):
        check_rules(neuron, "neuron")
    neuron.ad.C_m, neuron.ad.flush_event_send_interval = 1.0, None  # null is no number to be judged
    check_rules(neuron, "neuron")


# Keys that have moved


def test_overrides_of_keys_that_have_moved_are_renamed():
    assert with_new_names(["training.n_workers=2", "+training.backend=dask", "seed=1", "training.n_workers"]) == [
        "++engine.n_workers=2", "++engine.backend=dask", "seed=1", "training.n_workers",
    ]  # fmt: skip
    assert moved_among(["seed=1", "kernel.local_num_threads=2"]) == [
        "kernel.local_num_threads is now engine.local_num_threads"
    ]


@pytest.mark.parametrize("old", MOVED)
def test_a_file_of_a_users_with_a_key_that_has_moved_is_read(old, caplog):
    composed, new = compose("training=data_parallel", "task.n_batch=4"), MOVED[old]
    value = {"backend": "loky", "scheduler": "tcp://host:1"}.get(old.split(".")[1], 1)
    OmegaConf.update(composed, old, value, force_add=True)
    loaded = load(composed)
    assert flatten(to_dict(loaded))[new] == value
    assert old not in flatten(to_dict(loaded))
    assert caplog.messages == [f"{old} is now {new}"]


def test_a_key_of_nests_that_has_moved_is_no_hindrance_to_another_engine(caplog):
    composed = compose("training=data_parallel", "engine=compiled", "task.n_batch=4")
    OmegaConf.update(composed, "kernel.local_num_threads", 1, force_add=True)
    OmegaConf.update(composed, "training.n_workers", 2, force_add=True)
    loaded = load(composed)
    assert loaded.engine.n_workers == 2
    assert not hasattr(loaded.engine, "local_num_threads")
    assert set(caplog.messages) == {
        "training.n_workers is now engine.n_workers", "kernel.local_num_threads is now engine.local_num_threads",
    }  # fmt: skip


def test_on_the_command_line_a_line_tells(eprop_run, tmp_path):
    given = [*SMALL, *BARE, "training=data_parallel", "engine=compiled", "training.n_iter_test=0", "task.n_iter=1"]
    moved = ["training.n_workers=2", "kernel.local_num_threads=1"]
    done = eprop_run(*given, "task.n_batch=2", *moved, "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    told = done.stdout + done.stderr
    assert told.count("training.n_workers is now engine.n_workers") == 1
    assert told.count("kernel.local_num_threads is now engine.local_num_threads") == 1
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["config"]["engine"] == {"name": "compiled", "n_workers": 2}


# When training stops


@pytest.mark.parametrize(
    ("overrides", "metric", "higher"),
    [
        ([], "recall_error", False),
        (["training.stop_metric=loss", "training.stop_crit=12"], "loss", False),
        (["training.stop_metric=loss", "training.stop_crit=-1"], "loss", False),
        (["training.stop_metric=accuracy", "training.stop_crit=0.9"], "accuracy", True),
        (["neuron.out.loss=mean_squared_error", "training.stop_metric=loss", "training.stop_crit=3"], "loss", False),
    ],
)
def test_training_may_stop_by_any_metric(overrides, metric, higher):
    given = config("training.do_early_stopping=true", *overrides)
    assert given.training.stop_metric == metric
    assert given.criterion.higher_is_better is higher
    better, worse = given.training.stop_crit - 0.01, given.training.stop_crit + 0.01
    assert (given.criterion.met(better), given.criterion.met(worse)) == ((False, True) if higher else (True, False))
    assert not given.criterion.met(given.training.stop_crit)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["training.stop_metric=nrmse"], "training.stop_metric=nrmse: must be one of loss, accuracy, recall_error"),
        (["training.stop_metric=rate_reg"],
         "training.stop_metric=rate_reg: must be one of loss, accuracy, recall_error"),
        (["training.stop_crit=1.5"], "training.stop_crit=1.5: must be from 0.0 to 1, as recall_error is"),
        (["training.stop_crit=-0.5"], "training.stop_crit=-0.5: must be from 0.0 to 1, as recall_error is"),
        (["training.stop_metric=accuracy", "training.stop_crit=2"],
         "training.stop_crit=2.0: must be from 0.0 to 1, as accuracy is"),
    ],
)  # fmt: skip
def test_a_metric_by_which_training_cannot_stop_is_refused(overrides, line):
    with pytest.raises(ConfigError) as error:
        config(*overrides)
    assert str(error.value) == line


def test_values_follow_those_they_refer_to():
    values = flatten(
        to_dict(
            config(
                "task.steps.recall=80",
                "neuron.rec.tau_m=30",
                "neuron.ad.tau_m=10",
                "kernel.resolution=0.5",
                "task.n_iter=17",
            )
        )
    )
    assert values["task.steps.learning_window"] == 80
    assert values["neuron.reg.tau_m"] == 30.0
    assert values["neuron.ad.tau_m"] == 10.0
    assert values["recording.interval"] == 0.5
    assert values["optimizer.schedule.cosine_iter"] == 17


def test_numbers_have_the_types_that_nest_needs():
    loaded = config("neuron.n_reg=2", "neuron.reg.tau_m=[10, 20]", "neuron.ad.tau_m=15", "optimizer.eta=1")
    assert loaded.neuron.reg.tau_m == [10.0, 20.0]
    assert [type(value) for value in loaded.neuron.reg.tau_m] == [float, float]
    assert isinstance(loaded.neuron.ad.tau_m, float)
    assert isinstance(loaded.optimizer.eta, float)


def test_gradient_descent_has_no_moments():
    optimizer = config("optimizer=gradient_descent").optimizer
    assert type(optimizer) is OptimizerConfig
    assert not hasattr(optimizer, "beta_1")
    assert isinstance(config().optimizer, AdamConfig)


def test_no_file_of_ours_asks_for_several_runs():
    """As sources.py takes for granted."""
    assert [
        path for path in conf_dir().rglob("*.yaml") if re.search(r"^\s*(hydra\.)?mode:", path.read_text(), re.M)
    ] == []


def test_a_default_may_refer_to_another(tmp_path):
    for name, text in {
        "config": "defaults: [{left: one}, {right: '${left}'}]",
        **{"left/one": "a: 1", "left/two": "a: 2", "right/one": "b: 1", "right/two": "b: 2"},
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text(text)
    with remembered(), hydra.initialize_config_dir(str(tmp_path), version_base="1.3"):
        assert hydra.compose("config") == {"left": {"a": 1}, "right": {"b": 1}}
        assert hydra.compose("config", ["left=two"]) == {"left": {"a": 2}, "right": {"b": 2}}


def test_what_is_composed_again_is_another_config_of_another_time(monkeypatch):
    ticks = map(str, itertools.count())
    clock = SimpleNamespace(now=lambda: SimpleNamespace(strftime=lambda pattern: next(ticks)))
    monkeypatch.setattr("hydra.core.utils.datetime", clock)
    with remembered(), hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        first, second = (hydra.compose("config", ["task=sine_waves"], return_hydra_config=True) for _ in range(2))
    days = [Path(each.hydra.sweep.dir).parts[1] for each in (first, second)]
    assert days[0] != days[1]
    first.task.n_iter = 12345
    assert second.task.n_iter != 12345


def test_a_file_is_read_again_only_once_it_has_changed(tmp_path, monkeypatch):
    read = []
    load_file = OmegaConf.load
    monkeypatch.setattr(OmegaConf, "load", lambda file: read.append(file.name) or load_file(file))
    mine = tmp_path / "experiment" / "mine.yaml"
    mine.parent.mkdir()
    mine.write_text("# @package _global_\nseed: 3\n")
    assert api.compose(["experiment=mine"], tmp_path).seed == 3
    assert str(mine) in read
    read.clear()
    assert api.compose(["experiment=mine", "task.n_iter=1"], tmp_path).seed == 3
    assert read == []
    mine.write_text("# @package _global_\nseed: 42\n")
    assert api.compose(["experiment=mine"], tmp_path).seed == 42
    assert read == [str(mine)]


def test_a_typed_config_is_json_and_loads_again():
    given = config(
        "training=data_parallel", "synapse.init_optimizer=[{projection: in_rec, pre: 1, post: [2], m: 1, v: 2}]"
    )
    plain = to_dict(given)
    assert load(OmegaConf.create(json.loads(json.dumps(plain)))) == given


def test_what_is_not_json_is_named():
    given = config()
    given.task.steps = np.zeros(3)
    with pytest.raises(UserError, match=r"^task\.steps: is of type ndarray, which cannot be written; keep it out of"):
        to_dict(given)


def test_flatten():
    assert flatten({"a": {"b": 1, "c": {"d": [2, 3]}}, "e": None}) == {"a.b": 1, "a.c.d": [2, 3], "e": None}


def test_an_error_of_omegaconf_begins_with_the_key_and_is_one_line():
    composed = compose()
    composed.task.n_iter = "many"
    with pytest.raises(UserError, match=r"^task\.n_iter=many: must be a whole number$"):
        load(composed)
    error = OmegaConfError("first\nsecond")
    assert explain(error) == "first"
    error.full_key = "some.key"
    assert explain(error) == "some.key: first"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (1.5, "1.5"),
        ("x", "x"),
        ([None, {"a": [1]}], "[null, {a: [1]}]"),
    ],
)
def test_a_config_error_spells_values_as_the_command_line(value, text):
    with pytest.raises(ConfigError, match=f"^group.key={re.escape(text)}: must be other$") as raised:
        require(False, "group.key", value, "must be other")
    assert raised.value.key == "group.key"
    copy = pickle.loads(pickle.dumps(raised.value))
    assert (type(copy), str(copy), copy.key) == (ConfigError, str(raised.value), "group.key")


def test_a_condition_that_holds_raises_nothing():
    require(True, "group.key", 0, "must be other")


# What each key may be is tried on the command line, in test_bad_input.py. Here are the edges of what is allowed.
@pytest.mark.parametrize(
    "overrides",
    [
        ["task.prob_group=0", "task.input_spike_prob=1"],
        ["task.n_cues=1", "task.steps={cue: 1, spacing: 0, bg_noise: 2, recall: 1}"],
        ["task.n_in=4"],
        ["neuron.n_reg=0", "recording.n_record_w=0"],
        ["neuron.n_ad=0", "recording.n_record_w=0"],
        ["neuron.rec.V_min=-1", "neuron.out.V_min=-1"],
        ["neuron.rec.c_reg=0", "neuron.rec.f_target=0", "optimizer.eta=0"],
        ["optimizer.beta_1=0", "optimizer.beta_2=0"],
        ["training.stop_crit=0"],
        ["training.stop_crit=1"],
        ["seed=0"],
        ["seed=4294967295"],
        ["task.n_iter=0", "training.n_iter_test=1"],
        ["task.steps.learning_window=2248"],
        ["task.steps.learning_window=2250", "neuron.out.loss=mean_squared_error"],
        ["task.steps.learning_window=2250", "training=data_parallel"],
        ["kernel.resolution=0.1"],
        ["kernel.resolution=0.25", "neuron.rec.t_ref=0.75"],
        ["recording.interval=2250"],
        ["recording.iterations=[first, 3, last]", "plots.figures=[]"],
        ["training=data_parallel", "task.n_batch=3", "engine.n_workers=3"],
        ["neuron.rec.t_ref=0"],
        ["neuron.out.loss=null", "training.stop_metric=null"],
        [
            "training=data_parallel",
            "optimizer.weight_decay=0.1",
            "optimizer.clip_norm=1",
            "optimizer.schedule.name=step",
        ],
        ["kernel.eprop_reset_neurons_on_update=false"],
    ],
    ids=" ".join,
)
def test_what_is_just_allowed(overrides):
    assert isinstance(config(*overrides), Config)
