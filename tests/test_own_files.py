"""Config files of users' own that are not as they should be: one line, status 2, and nothing left behind."""

import subprocess

import pytest
from forked import EPROP_RUN, run_command

from eprop_cli import api
from eprop_cli.errors import ConfigError, UserError
from eprop_cli.training.base import check_ready

GLOBAL = "# @package _global_\n"
FILES = {
    "defaults: smoke\n": "defaults must be a list (got str)",
    "defaults: {a: b}\n": "defaults must be a list (got mapping)",
    "defaults: 5\n": "defaults must be a list (got int)",
    "defaults: [5]\n": "Unsupported type in defaults : int",
    "defaults: [[smoke]]\n": "Unsupported type in defaults : ListConfig",
    "defaults: [null]\n": "Unsupported type in defaults : NoneType",
    "defaults: [{a: b, c: d}]\n": "Too many keys in default item",
    "defaults: [mine]\n": "a config file has itself in its defaults, or in those of a file in them",
    "task: [\n": "is not YAML",
}


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    return tmp_path / "conf" / "experiment" / "mine.yaml"


@pytest.mark.parametrize("content", FILES, ids=str.strip)
def test_what_hydra_does_not_take(mine, content):
    mine.write_text(GLOBAL + content)
    with pytest.raises(UserError) as caught:
        api.compose(["experiment=mine"], "conf")
    if "YAML" not in FILES[content]:  # there the file is looked for among the arguments of the command
        assert FILES[content] in str(caught.value)
    assert "\n" not in str(caught.value)


WITHOUT_GLOBAL = "experiment: the file that was chosen must begin with the line # @package _global_"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (f"{GLOBAL}5: 3\n", "5: there is no such key; search them: eprop-run --keys WORD"),
        (f"{GLOBAL}1.5: {{a: b}}\n", "1.5: there is no such key; search them: eprop-run --keys WORD"),
        (f"{GLOBAL}task: {{5: 3}}\n", "task.5: there is no such key"),
        ("task: {n_iter: 3}\n", WITHOUT_GLOBAL),
        ("defaults: [smoke]\n", WITHOUT_GLOBAL),
    ],
)
def test_keys_that_are_none(mine, content, line):
    mine.write_text(content)
    with pytest.raises(UserError) as caught:
        api.compose(["experiment=mine"], "conf")
    assert str(caught.value).split("; search")[0] == line.split("; search")[0]


def test_a_config_of_ones_own_that_raises(mine, tmp_path):
    source = "from eprop_cli.tasks.evidence_accumulation import EvidenceAccumulation, EvidenceAccumulationConfig\n"
    source += "class Config(EvidenceAccumulationConfig):\n    def __post_init__(self):\n        1 / 0\n"
    (tmp_path / "raising.py").write_text(source + "class Raising(EvidenceAccumulation):\n    Config = Config\n")
    with pytest.raises(UserError) as caught:
        api.compose(["task.name=raising:Raising"])
    told = "task.name=raising:Raising: its Config raised ZeroDivisionError: division by zero"
    assert str(caught.value) == told


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["~task.n_iter"], "task.n_iter: is missing"),
        (["task.name=null"], "task.name=null: must be one of "),
        (["engine.name=null"], "engine.name=null: must be one of "),
        (["neuron.n_reg=2147483647"], "neuron.n_reg=2147483647: must be at most 1000000000"),
        (["synapse.init_optimizer=[{projection: rec_rec}]"], "synapse.init_optimizer[0].pre: is missing"),
        (
            ["synapse.init_optimizer=[{projection: rec_rec, pre: a, post: [1], m: 0, v: 0}]"],
            "synapse.init_optimizer[0].pre=a: must be a whole number",
        ),
        (["optimizer.bounds.in_rec=[a, b]"], "optimizer.bounds.in_rec[0]=a: must be a number"),
        (["++neuron.reg=${seed}"], "neuron.reg=1: must be a group of keys"),
        (["kernel.resolution=1e308"], "kernel.resolution=1e+308: must be a multiple of NEST's finest time step"),
    ],
    ids=str,
)
def test_wording(overrides, line):
    with pytest.raises(UserError) as caught:
        api.compose(overrides)
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize("content", ["defaults: smoke\n", "defaults: [mine]\n"])
def test_as_a_process(mine, tmp_path, content):
    mine.write_text(GLOBAL + content)
    done = run_command("--config-dir", "conf", "experiment=mine")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert FILES[content] in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["conf"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--resolve", "seed=1"], "The --resolve flag can only be used in conjunction with --cfg or --help"),
        (["--run", "-m", "seed=1"], "Only one of --run, --multirun, --cfg, --info and --shell_completion can be"),
        (
            ["--config-name", "hydra/help/eprop"],
            "--config-name=hydra/help/eprop: must have config in its defaults",
        ),
        (["hydra.run.dir="], "hydra.run.dir=: must be a directory; leave it out for a new one"),
        (["hydra.searchpath=[file:///nowhere]"], "nowhere is not available"),
    ],
    ids=str,
)
def test_options_that_do_not_go_together(tmp_path, arguments, line):
    done = run_command(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert line in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["neuron.rec.tau_m", "neuron.out.tau_m", "neuron.rec.C_m", "neuron.ad.adapt_tau"])
def test_numbers_too_small_to_compute_with(key):
    with pytest.raises(ConfigError, match="must be 0, or at least 1e-12 away from it"):
        api.compose([f"{key}=1e-320"])


def test_more_synapses_than_there_is_memory_for(monkeypatch):
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PAGE_SIZE": 4096}.get(name, 2**22))  # 17 GB
    with pytest.raises(ConfigError, match=r"need about 37\d GiB and do not fit into memory \(16 GiB\)"):
        check_ready(api.compose(["neuron.n_ad=40000"]))


def test_less_memory_than_the_libraries_take(tmp_path):
    command = ["bash", "-c", f"ulimit -v 600000; exec {EPROP_RUN}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "eprop-run: memory: needs at least 1536 MiB; ulimit -v allows 585 MiB\n"
    assert not list(tmp_path.iterdir())
