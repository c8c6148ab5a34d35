"""Keys are found by what they mean, by other names, and by slips: through the command."""

import os

import pytest
from small import BARE, SMALL, config

from eprop_cli.cli.keys import show_keys
from eprop_cli.config.files import all_keys
from eprop_cli.config.words import OTHER_NAMES, found, unknown
from eprop_cli.runs.reader import Run


def test_other_names_are_of_keys_that_there_are():
    assert {key for keys in OTHER_NAMES.values() for key in keys} <= all_keys().keys()


@pytest.mark.parametrize(
    ("key", "closest"),
    [
        ("neuron.ad.tau_adapt", "neuron.ad.adapt_tau"),
        ("neuron.ad.threshold", "neuron.ad.V_th"),
        ("optimizer.learning_rate", "optimizer.eta"),
        ("lr", "optimizer.eta"),
        ("batch_size", "task.n_batch"),
        ("epochs", "task.n_iter"),
        ("beta", "neuron.ad.adapt_beta_scale"),
        ("hidden_size", "neuron.n_reg"),
        ("task.n_itr", "task.n_iter"),
        ("optimiser", "optimizer"),
    ],
)
def test_the_closest_key(key, closest):
    assert unknown(key).startswith(f"there is no such key; closest: {closest}")


@pytest.mark.parametrize("key", ["synapse.delay", "neuron.rec.capacity", "neuron.ad.tau_x_slow"])
def test_none_of_other_physics_is_close(key):
    assert unknown(key) == "there is no such key; search them: eprop-run --keys WORD"


def test_a_key_of_another_file_is_told_from_one_that_there_is_not():
    assert unknown("optimizer.beta_1") == "is a key of optimizer=adam, not of the file chosen"


@pytest.mark.parametrize("word", ["spikes/s", "learning rate", "learning_rate", "Threshold", "c_reg"])
def test_keys_have_units_meanings_and_other_names(word):
    assert found(word)
    assert len(found(word)) < len(all_keys())


@pytest.mark.parametrize("columns", [80, 160])
def test_a_search_fits_the_screen(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    show_keys(["--keys", "tau"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    assert any(line.startswith("neuron.ad.adapt_tau=2000.0 ") for line in lines)


@pytest.mark.parametrize(("arguments", "told"), [(["xyzzy"], "no key has that"), (["a", "b"], "takes one word")])
def test_what_cannot_be_searched(eprop_run, tmp_path, arguments, told):
    done = eprop_run("--keys", *arguments)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert told in done.stderr
    assert not list(tmp_path.iterdir())


def test_whole_numbers_may_have_exponents():
    typed = config("training=data_parallel", "task.n_iter=1e3", "optimizer.schedule.warmup=2.0")
    assert (typed.task.n_iter, typed.optimizer.schedule.warmup) == (1000, 2)


def test_options_stand_anywhere_and_a_directory_of_the_project_is_found(eprop_run, tmp_path):
    own = tmp_path / "conf" / "experiment"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("# @package _global_\ntask:\n  n_iter: 7\n")
    environment = os.environ | {"EPROP_CONFIG_DIR": str(tmp_path / "conf")}
    done = eprop_run("seed=3", "--cfg", "job", "experiment=mine", env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "n_iter: 7" in done.stdout
    wrong = eprop_run("seed=3", env=os.environ | {"EPROP_CONFIG_DIR": "nowhere"})
    told = "eprop-run: EPROP_CONFIG_DIR=nowhere: is not a directory; unset it, or name one\n"
    assert (wrong.returncode, wrong.stderr) == (2, told)


@pytest.mark.parametrize(
    ("overrides", "is_told"),
    [(["task.steps={cue: 15, spacing: 1, bg_noise: 25, recall: 30}"], False), ([], True)],
)
def test_a_finer_resolution_does_not_shorten_a_task_without_a_word(eprop_run, overrides, is_told):
    small = [override for override in SMALL if "steps" not in override]
    compiled = ("training=data_parallel", "engine=compiled", "training.n_iter_test=0", "task.n_iter=1")
    done = eprop_run(*small, *BARE, *compiled, "kernel.resolution=0.1", "task.n_batch=1", *overrides)
    assert done.returncode == 0
    assert ("kernel.resolution=0.1: a sequence lasts" in done.stdout) == is_told
    assert not is_told or "task.steps.cue, " in done.stdout


def test_a_run_with_the_directory_of_the_project_is_resumed_without_it(eprop_run, tmp_path):
    own = tmp_path / "conf" / "experiment"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("# @package _global_\ntask:\n  n_batch: 2\n")
    compiled = ("training=data_parallel", "engine=compiled", "training.n_iter_test=0")
    environment = os.environ | {"EPROP_CONFIG_DIR": str(tmp_path / "conf")}
    begun = eprop_run(
        *SMALL, *BARE, *compiled, "experiment=mine", "task.n_iter=1", "hydra.run.dir=run", env=environment
    )
    assert begun.returncode == 0
    resumed = eprop_run("resume=run", "task.n_iter=2")
    assert (resumed.returncode, resumed.stderr) == (0, "")
    assert Run(tmp_path / "run").metrics["iteration"].tolist() == [1, 2]
