import dataclasses
import json
import pickle
import re
import typing

import hydra
import pytest
from eprop_cli.optimizers.config import Adam, Optimizer
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException as OmegaConfError
from small import compose, config

from eprop_cli import schema
from eprop_cli.config import groups
from eprop_cli.config.config import Config
from eprop_cli.config.files import conf_dir
from eprop_cli.config.load import SCHEMAS, explain, load
from eprop_cli.connectivity import base
from eprop_cli.errors import ConfigError, UserError, require
from eprop_cli.models import bsshslm_2020
from eprop_cli.optimizers import config as optimizers
from eprop_cli.schema import flatten, to_dict
from eprop_cli.tasks import TASKS

FILES = sorted(path.relative_to(conf_dir()).with_suffix("") for path in conf_dir().rglob("*.yaml"))
# What a file needs beside it to be valid.
NEEDS = {"engine/compiled": ["training=data_parallel"]}
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


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_file_composes_and_validates(path):
    chosen = [] if path.name == "config" else [f"{path.parent}={path.name}"]
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        composed = hydra.compose("config", overrides=[*chosen, *NEEDS.get(str(path), [])], return_hydra_config=True)
    assert path.name == "config" or str(path.parent) in str(composed.hydra.runtime.choices)
    OmegaConf.set_struct(composed, False)
    del composed["hydra"]
    assert isinstance(load(composed), Config)


def test_there_are_files_of_every_group():
    groups = {field.name for field in dataclasses.fields(Config)} - {"seed", "resume", "objective"}
    assert {path.parent.name for path in FILES} - {"", "help", "job_logging"} >= {*groups, "experiment"}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_holds_only_what_differs(name):
    file = OmegaConf.load(conf_dir() / "experiment" / f"{name}.yaml")
    entries = [{"experiment": entry} if isinstance(entry, str) else entry for entry in file.pop("defaults", [])]
    defaults = [f"{key.removeprefix('override /')}={value}" for entry in entries for key, value in entry.items()]
    without, experiment = flatten(OmegaConf.to_container(compose(*defaults))), flatten(OmegaConf.to_container(file))
    same = [key for key, value in experiment.items() if without[key] == value]
    assert not same
    groups = OmegaConf.to_container(compose())
    changed = [default.split("=") for default in defaults if not default.startswith("experiment=")]
    assert not [group for group, name in changed if groups[group]["name"] == name]


def test_defaults_are_the_tutorials():
    values = flatten(to_dict(config()))
    assert {key: values[key] for key in TUTORIAL} == TUTORIAL


def test_no_default_is_written_twice():
    modules = [groups, base, bsshslm_2020, optimizers, schema]
    found = [cls for module in modules for cls in vars(module).values() if dataclasses.is_dataclass(cls)]
    classes = [cls for cls in found if isinstance(cls, type)]
    classes += [task.Config for task in TASKS.values()]
    assert len(classes) > 12
    for cls in classes:
        for field in dataclasses.fields(cls):
            assert field.default is dataclasses.MISSING, f"{cls.__name__}.{field.name}"
            assert field.default_factory is dataclasses.MISSING, f"{cls.__name__}.{field.name}"


def test_a_schema_and_its_file_have_the_same_keys():
    composed = compose("training=data_parallel")
    for group, cls in typing.get_type_hints(Config).items():
        choices = SCHEMAS.get(group)
        schema = choices[composed[group].name] if choices else cls
        if dataclasses.is_dataclass(schema):
            assert set(composed[group]) == {field.name for field in dataclasses.fields(schema)}, group


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
    assert type(optimizer) is Optimizer
    assert not hasattr(optimizer, "beta_1")
    assert isinstance(config().optimizer, Adam)


def test_a_typed_config_is_json_and_loads_again():
    given = config(
        "training=data_parallel", "synapse.init_optimizer=[{projection: in_rec, pre: 1, post: [2], m: 1, v: 2}]"
    )
    plain = to_dict(given)
    assert load(OmegaConf.create(json.loads(json.dumps(plain)))) == given


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
