"""A run's config is run again: as a run of its own with like=, and by eprop-verify, bit by bit."""

import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial

import pytest
from forked import run_command
from small import ONLINE, SMALL

from eprop_cli import api
from eprop_cli.cli import eprop_verify
from eprop_cli.errors import UserError
from eprop_cli.runs.reader import Run

OF_THE_ENGINE = ("training=data_parallel", "engine=compiled", "plots=none")
QUICK = (*SMALL, *OF_THE_ENGINE, "task.n_iter=4", "task.n_batch=2", "training.n_iter_test=1")
SIGNS = """
import numpy as np
from helper import FACTOR
from eprop_cli.optimizers.gradient_descent import GradientDescent

class Signs(GradientDescent):
    def step(self, state, gradients, eta):
        return {name: FACTOR * eta * np.sign(values) for name, values in gradients.items()}, state
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty working directory, and scratch directories beside; sys.path and modules as they were."""
    (tmp_path / "here").mkdir()
    (tmp_path / "scratch").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path / "here"
    forget()
    assert not list((tmp_path / "scratch").iterdir())


def forget():
    """Modules of one's own are as if never imported."""
    for name in ("signs_of_mine", "helper"):
        sys.modules.pop(name, None)


@pytest.fixture
def verify(in_process):
    """Exit status, standard output and standard error of eprop-verify."""
    return partial(in_process, "eprop-verify", eprop_verify.main)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    directory = tmp_path_factory.mktemp("begun") / "run"
    schedule = ("optimizer.schedule.name=cosine", "recording.iterations=[2]")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory.parent)  # which is in no repository
        api.run([*QUICK, *schedule], directory)
    return directory


def losses(directory):
    with (directory / "metrics.csv").open() as file:
        return [(row["iteration"], row["phase"], row["loss"]) for row in csv.DictReader(file)]


def edit(directory, change):
    record = json.loads((directory / "run.json").read_text())
    change(record)
    (directory / "run.json").write_text(json.dumps(record))


class TestLike:
    def test_the_same_config_gives_the_same_run(self, begun, here):
        done = run_command(f"like={begun}", "hydra.run.dir=again", check=True)
        assert done.stderr == ""
        assert losses(here / "again") == losses(begun)
        record = Run("again").record
        assert record["command"] == ["eprop-run", f"like={begun}", "hydra.run.dir=again"]
        assert record["like"] == str(begun)
        assert record["config"] == Run(begun).record["config"]

    def test_overrides_come_on_top(self, begun):
        run = api.run([f"like={begun}", "task.n_iter=2", "optimizer=gradient_descent", "recording=none"], "other")
        config, before = run.config, Run(begun).config
        assert (config["task"]["n_iter"], config["optimizer"]["name"]) == (2, "gradient_descent")
        assert config["neuron"] == before["neuron"]
        assert run.recorded == []
        assert losses(run.directory)[0] == losses(begun)[0]

    def test_a_run_that_was_resumed_begins_afresh(self, begun, here):
        shutil.copytree(begun, "resumed")
        edit(here / "resumed", lambda record: record["config"].update(resume="resumed"))
        run = api.run(["like=resumed", "task.n_iter=1", "recording=none"], "fresh")
        assert run.config["resume"] is None
        assert losses(run.directory)[0] == losses(begun)[0]

    @pytest.mark.parametrize(
        ("arguments", "line"),
        [
            (["like=nowhere"], "like=nowhere: is not a run directory: it has no readable run.json"),
            (["-m", "like=run", "seed=1,2"], "-m: cannot be given with like; leave it out"),
            (["like=run", "resume=run"], "resume=run: cannot be given with like; leave one of them out"),
            (["like=run", "task.n_itr=3"], "task.n_itr: there is no such key; closest: task.n_iter"),
        ],
        ids=str,
    )
    def test_bad_input_gets_one_line_and_leaves_nothing(self, begun, here, arguments, line):
        shutil.copytree(begun, "run")
        done = run_command(*arguments)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert done.stderr.startswith(f"eprop-run: {line}")
        assert [path.name for path in here.iterdir()] == ["run"]

    @pytest.mark.parametrize(
        ("key", "value", "problem"),
        [
            ("seed", "${oc.env:HOME}", "references are not taken"),
            ("hydra", {"_target_": "os.getcwd"}, "which is none of a config's"),
        ],
        ids=["reference", "target"],
    )
    def test_a_config_that_is_more_than_values_is_refused(self, begun, here, key, value, problem):
        shutil.copytree(begun, "run")
        edit(here / "run", lambda record: record["config"].update({key: value}))
        with pytest.raises(UserError, match=problem):
            api.run(["like=run"], "fresh")
        assert not (here / "fresh").exists()


class TestVerify:
    def test_a_run_is_identical(self, begun, verify):
        status, output, error = verify(begun)
        assert (status, error) == (0, "")
        first, *others = output.splitlines()
        assert first == "identical: 5 rows of metrics.csv, the recording of iteration 2, weights"
        assert others == ["as then: versions, code and machine"]

    def test_the_first_iterations_of_a_schedule_that_depends_on_their_number(self, begun, verify):
        assert verify(begun, "--iterations", 2)[:2] == (
            0,
            "identical: 2 rows of metrics.csv, the recording of iteration 2\nas then: versions, code and machine\n",
        )

    def test_a_run_that_was_resumed_with_more_iterations(self, verify):
        phases = ("training.do_early_stopping=true", "training.n_iter_validate_every=2", "training.stop_crit=0")
        api.run([*QUICK, *phases, "recording=none"], "run")
        api.run(["resume=run", "task.n_iter=6"], "run")
        status, output, _ = verify("run", "engine.n_workers=2")
        assert (status, output.splitlines()[0]) == (0, "identical: 10 rows of metrics.csv, weights")

    @pytest.mark.parametrize(
        "overrides",
        [
            (*QUICK, "connectivity.rec_rec={rule: bernoulli, p: 0.5}", "recording=none"),
            (*ONLINE, "engine=compiled", "task.n_iter=2", "plots=none", "recording=none"),
            ("experiment=digits", "task.n_iter=1", "task.n_batch=2", "training.n_iter_test=0", "plots=none"),
            pytest.param((*SMALL, "task.n_iter=2", "plots=none"), marks=pytest.mark.nest),
        ],
        ids=["sparse", "online", "data set", "NEST"],
    )
    def test_other_kinds_of_runs_are_identical(self, overrides, verify):
        api.run(overrides, "run")
        status, output, error = verify("run")
        assert (status, error) == (0, "")
        assert output.startswith("identical: ")

    def test_the_first_value_that_differs_is_told_with_what_else_is_other(self, begun, here, verify):
        shutil.copytree(begun, "run")
        lines = (here / "run" / "metrics.csv").read_text().splitlines()
        loss = lines[3].split(",")[2]
        (here / "run" / "metrics.csv").write_text(
            "\n".join([*lines[:3], lines[3].replace(loss, "0.5"), *lines[4:], ""])
        )

        def change(record):
            record["sessions"][0]["versions"]["numpy"] = "1.0.0"
            record["sessions"][0]["machine"]["processor"] = "an abacus"
            record["sessions"][0]["git_commit"] = "a" * 40

        edit(here / "run", change)
        status, output, _ = verify("run")
        place, before, after, *others = output.splitlines()
        assert (status, place) == (1, "differs: iteration 3, training: loss")
        assert (before.split(), after.split()) == (["run", "0.5"], ["here", loss])
        assert [line.split()[2] for line in others] == ["eprop-cli", "numpy", "processor"]
        assert others[1].endswith("(before 1.0.0)")

    def test_a_row_too_many_differs(self, begun, here, verify):
        shutil.copytree(begun, "run")
        table = here / "run" / "metrics.csv"
        table.write_text(table.read_text() + table.read_text().splitlines()[-1] + "\n")
        assert verify("run")[:2][0] == 1

    def test_a_weight_that_differs_in_its_last_bit_is_told(self, begun, here, verify):
        import numpy as np

        shutil.copytree(begun, "run")
        arrays = dict(np.load(here / "run" / "weights.npz"))
        arrays["rec_out_after"][1, 2] = before = np.nextafter(arrays["rec_out_after"][1, 2], 1)
        np.savez(here / "run" / "weights.npz", **arrays)
        status, output, _ = verify("run")
        assert status == 1
        assert output.splitlines()[:2] == [
            "differs: weights of rec_out after training, at 1, 2",
            f"  run   {before}",
        ]

    @pytest.mark.parametrize(
        ("arguments", "line"),
        [
            (["nowhere"], "nowhere: is not a run directory: it has no readable run.json"),
            (["run", "run2"], "run2: is one too many; compare one run, or one script, at a time"),
            (["run", "seed=2"], "seed=2: would make it another run; eprop-run like=RUN_DIR takes it"),
            (["run", "--seed", "2"], "seed=2: would make it another run; eprop-run like=RUN_DIR takes it"),
        ],
        ids=str,
    )
    def test_bad_input_gets_one_line(self, begun, arguments, line, verify):
        shutil.copytree(begun, "run")
        assert verify(*arguments) == (2, "", f"eprop-verify: {line}\n")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run with an optimizer of one's own, beside its module."""
    directory = tmp_path_factory.mktemp("project")
    (directory / "signs_of_mine.py").write_text(SIGNS)
    (directory / "helper.py").write_text("FACTOR = 1.0\n")
    optimizer = ("optimizer=gradient_descent", "optimizer.name=signs_of_mine:Signs")
    run_command(*QUICK, "recording=none", *optimizer, "hydra.run.dir=run", cwd=directory, check=True)
    return directory / "run"


class TestOwnModules:
    @pytest.fixture
    def own(self, made, tmp_path):
        """A copy of it, elsewhere."""
        return shutil.copytree(made, tmp_path / "run")

    def test_are_kept_with_what_they_import_and_found_there_again(self, own, here, verify, tmp_path):
        assert {path.name for path in (own / "code").iterdir()} == {"signs_of_mine.py", "helper.py"}
        assert (own / "code" / "signs_of_mine.py").read_text() == SIGNS
        assert Run(own).record["code"].keys() == {"signs_of_mine.py", "helper.py"}
        status, output, error = verify(own)
        assert (status, output, error.count("\n")) == (2, "", 1)
        assert error.endswith("which is not ours; if you trust it, add --allow-module signs_of_mine\n")
        status, output, _ = verify(own, "--allow-module", "signs_of_mine")
        assert (status, output.splitlines()[0]) == (0, "identical: 5 rows of metrics.csv, weights")
        # By now it is allowed here: but a copy in a directory is run only if the command itself names it.
        sys.path.remove(str(own / "code"))
        forget()
        status, _, error = verify(own)
        assert (status, error.count("\n")) == (2, 1)
        remedy = "which is not found from here; to run the one that is kept there, in code/, add --allow-module"
        assert f"names signs_of_mine, {remedy}" in error
        arguments = [f"resume={own}", "task.n_iter=5", "--allow-module", "signs_of_mine"]
        done = run_command(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert Run(own).record["sessions"][1]["command"] == ["eprop-run", *arguments]

    def test_one_that_has_changed_is_told(self, own, here):
        (here / "signs_of_mine.py").write_text(SIGNS)
        (here / "helper.py").write_text("FACTOR = 2.0\n")
        done = run_command(f"like={own}", "--allow-module", "signs_of_mine", "hydra.run.dir=again", check=True)
        (told,) = [line for line in done.stdout.splitlines() if "helper.py" in line]
        assert told.startswith(f"Besides its config, this is other than in {own}: helper.py ")
        assert "signs_of_mine" not in told
        assert losses(here / "again")[-1] != losses(own)[-1]

    def test_a_link_out_of_the_directory_is_not_followed(self, own, here, verify, tmp_path):
        (own / "code" / "helper.py").unlink()
        (own / "code" / "helper.py").symlink_to(tmp_path / "elsewhere.py")
        status, _, error = verify(own, "--allow-module", "signs_of_mine")
        assert (status, error.count("\n")) == (2, 1)
        assert "is a link that leads out of the run directory" in error


@pytest.mark.nest
class TestScripts:
    def test_losses_are_those_of_the_script(self, verify):
        status, output, error = verify("--script", "regression_lemniscate_bsshslm_2020", "--iterations", 2, "--seed", 3,
                                       "task.steps.sequence=100")  # fmt: skip
        assert (status, error) == (0, "")
        title, _, first, _second, last = output.splitlines()
        assert title == "regression_lemniscate_bsshslm_2020 and experiment=lemniscate, seed 3, iterations 2"
        number, phase, theirs, ours, _ = first.split()
        assert (number, phase) == ("1", "training")
        assert float(ours) == pytest.approx(float(theirs), rel=1e-10)
        assert last.startswith("equal: ")

    @pytest.mark.parametrize(
        ("arguments", "line"),
        [
            (["--script", "mine"], "--script mine: must be one of classification_evidence-accumulation_bsshslm_2020, "),
            (["--script", "lemniscate", "task.n_in=5"], "task.n_in=5: is not changed in a script; what is: seed, "),
            (["--script", "lemniscate", "task.periods=[1]"], "task.periods: is a key of task=sine_waves"),
        ],
        ids=str,
    )
    def test_bad_input_gets_one_line(self, arguments, line, verify):
        status, output, error = verify(*arguments)
        assert (status, output, error.count("\n")) == (2, "", 1)
        assert error.startswith(f"eprop-verify: {line}")


def test_the_environment_and_the_users_own_repository_are_recorded(here):
    def git(*arguments):
        identity = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
        return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    (here / "notes").write_text("1\n")
    git("add", ".")
    git("commit", "-qm", "first")
    api.run([*QUICK, "task.n_iter=1", "recording=none"], "clean")
    (here / "notes").write_text("2\n")
    api.run(["like=clean"], "changed")
    commit = git("rev-parse", "HEAD")
    for name, clean in (("clean", True), ("changed", False)):
        assert Run(name).record["repositories"] == [{"of": "working directory", "commit": commit, "clean": clean}]
    packages = (here / "clean" / "packages.txt").read_text().splitlines()
    assert f"omegaconf=={Run('clean').record['versions']['omegaconf']}" in packages
    assert packages == sorted(packages)


def test_without_git_nothing_is_said(here, monkeypatch, capfd):
    os.mkdir("bin")
    monkeypatch.setenv("PATH", str(here / "bin"))
    run = api.run([*QUICK, "task.n_iter=1", "recording=none"], "run")
    assert run.record["repositories"] == []
    assert capfd.readouterr() == ("", "")
