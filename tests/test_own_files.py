"""Config files of users' own that are not as they should be: one line, status 2, and nothing left behind."""

import subprocess

import pytest
from conftest import EPROP_RUN

from eprop_cli import api
from eprop_cli.errors import ConfigError, UserError

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


@pytest.mark.parametrize("content", ["defaults: smoke\n", "defaults: [mine]\n"])
def test_as_a_process(mine, tmp_path, content):
    mine.write_text(GLOBAL + content)
    done = subprocess.run([EPROP_RUN, "--config-dir", "conf", "experiment=mine"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert FILES[content] in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["conf"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--resolve", "seed=1"], "The --resolve flag can only be used in conjunction with --cfg or --help"),
        (["--run", "-m", "seed=1"], "Only one of --run, --multirun, --cfg, --info and --shell_completion can be"),
        (["hydra.run.dir="], "hydra.run.dir=: must be a directory; leave it out for a new one"),
        (["hydra.searchpath=[file:///nowhere]"], "nowhere is not available"),
    ],
    ids=str,
)
def test_options_that_do_not_go_together(tmp_path, arguments, line):
    done = subprocess.run([EPROP_RUN, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert line in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["neuron.rec.tau_m", "neuron.out.tau_m", "neuron.rec.C_m", "neuron.ad.adapt_tau"])
def test_numbers_too_small_to_compute_with(key):
    with pytest.raises(ConfigError, match="must be 0, or at least 1e-12 away from it"):
        api.compose([f"{key}=1e-320"])


def test_more_synapses_than_there_is_memory_for(monkeypatch):
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PAGE_SIZE": 4096}.get(name, 2**22))  # 17 GB
    with pytest.raises(ConfigError, match=r"need about 375 GiB and do not fit into memory \(16 GiB\)"):
        api.check_ready(api.compose(["neuron.n_ad=40000"]))
