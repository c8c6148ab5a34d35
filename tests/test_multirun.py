import csv
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import optuna
import pytest
from forked import run_command, start_command
from omegaconf import OmegaConf

from eprop_cli import run
from eprop_cli.cli import eprop_run as cli
from eprop_cli.sweeps.resume import _still_given

# Jobs of a second, and of a few: long enough to be stopped half-way.
QUICK = ("experiment=smoke", "plots=none", "recording=none", "training=data_parallel", "engine=compiled")
LONG = (*QUICK, "task.n_iter=1200", "training.n_iter_test=0", "training.checkpoint_every=20")
SEARCH = (*QUICK, "hydra/sweeper=eprop_optuna", "task.n_iter=1", "task.n_batch=2", "training.n_iter_test=1")
MINE = """
from eprop_cli.tasks.evidence_accumulation import EvidenceAccumulation


class Mine(EvidenceAccumulation):
    pass
"""
LATE = """
import warnings

from eprop_cli.sweeps import closing
from eprop_cli.tasks.evidence_accumulation import EvidenceAccumulation as Late

write = closing._write


def warn_and_write(*arguments, **keys):
    warnings.warn("it is late")
    return write(*arguments, **keys)


closing._write = warn_and_write
"""
NAME = "engine-compiled__experiment-{}__recording-none__training-data_parallel"  # of an experiment's run
NOWHERE = "hydra.sweep.dir=/proc/nowhere"  # which cannot be made: that ends it after a warning
LAUNCHERS = ("basic", "parallel", "slurm_local")


def table(sweep):
    with (sweep / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


def results(sweep):
    """The table without its seconds and numbers."""
    return [{key: value for key, value in row.items() if key not in ("seconds", "index")} for row in table(sweep)]


def record(directory):
    return json.loads((directory / "run.json").read_text())


def printed_command(output):
    """Arguments of the command that a multirun printed last."""
    return output.splitlines()[-1].split(": eprop-run ")[1].split()


def waited(condition, timeout=300):
    """What the condition gives as soon as it gives anything."""
    until = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < until
        time.sleep(0.02)
    return found


def training(sweep, seed):
    """The run directory of a seed in a sweep of LONG, once it has trained 50 iterations."""

    def look():
        found = list(sweep.glob(f"*seed-{seed}*/metrics.csv"))
        return found[0].parent if found and found[0].read_bytes().count(b"\n") > 50 else None

    return waited(look)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def children(pid):
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    return [each for each in pids if alive(each) and parent(each) == pid]


@pytest.fixture
def start(tmp_path):
    """Start eprop-run and go on; what it prints is in the file out."""
    started = []

    def start(*arguments):
        with (tmp_path / "out").open("w") as out:
            started.append(start_command(*arguments, cwd=tmp_path, stdout=out, stderr=out, start_new_session=True))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.wait(300)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The results of three seeds, one run after another."""
    directory = tmp_path_factory.mktemp("undisturbed")
    run_command("-m", *LONG, "seed=1,2,3", "hydra.sweep.dir=sweep", cwd=directory, check=True)
    return results(directory / "sweep")


@pytest.fixture(scope="session")
def completed_once(tmp_path_factory):
    """A sweep of two keys, and what was printed of it."""
    directory = tmp_path_factory.mktemp("finished")
    swept = ("task.n_iter=1", "training.n_iter_test=1", "optimizer.eta=1e-3,5e-3", "seed=1,2")
    done = run_command("-m", *QUICK, *swept, "hydra.sweep.dir=sweep", cwd=directory, check=True)
    return directory / "sweep", done.stdout


@pytest.fixture
def finished(completed_once, tmp_path):
    """A copy of a sweep that is COMPLETED."""
    return shutil.copytree(completed_once[0], tmp_path / "sweep")


@pytest.fixture
def refused(monkeypatch, tmp_path, capsys):
    """What eprop-run prints when it refuses to begin; in this process, which saves the start of another."""

    def run(*arguments, leaves=()):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["eprop-run", *arguments])
        with pytest.raises(SystemExit) as ending:
            cli.main()
        printed = capsys.readouterr()
        assert (ending.value.code, printed.out) == (2, "")
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(leaves)
        return printed.err

    return run


@pytest.mark.parametrize(
    "launcher", [pytest.param(each, marks=[pytest.mark.slow] * (each != "basic")) for each in LAUNCHERS]
)
def test_jobs_that_fail_do_not_stop_the_others(eprop_run, tmp_path, launcher):
    bounds = ("optimizer=gradient_descent", "optimizer.Wmin=-1e308", "optimizer.Wmax=1e308")
    values = "optimizer.eta=1e300,1e-3"
    ended = eprop_run("-m", *QUICK, *bounds, values, f"hydra/launcher={launcher}", "hydra.sweep.dir=sweep")
    assert ended.returncode == 1
    rows = {row["optimizer.eta"]: row for row in table(tmp_path / "sweep")}
    assert {eta: (row["status"], row["error"]) for eta, row in rows.items()} == {
        "1e+300": ("FAILED", "the loss became nan in training iteration 2"),
        "0.001": ("COMPLETED", ""),
    }
    assert ended.stdout.splitlines()[-3:] == [
        "Jobs: 1 COMPLETED, 1 FAILED",
        f"Not COMPLETED: {rows['1e+300']['run']}",
        "Run what is not COMPLETED, and nothing else: eprop-run resume=sweep",
    ]
    assert "Traceback" not in ended.stderr
    assert not list(tmp_path.rglob("%j"))


def test_a_run_of_before_that_cannot_be_read_is_told_of(eprop_run, finished):
    run = next(path.parent for path in sorted(finished.glob("*/run.json")))
    (run / "metrics.csv").write_text("nothing\n")
    ended = eprop_run("resume=sweep")
    what = "is damaged: its first line does not name iteration; move its directory away, and resume runs it again"
    assert (ended.returncode, ended.stderr.splitlines()) == (1, [f"eprop-run: {run}/metrics.csv: {what}"])
    assert ended.stdout.splitlines()[-1] == "Jobs: 4 SKIPPED (COMPLETED before)"


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_what_is_completed_is_not_launched(eprop_run, finished, launcher):
    before = results(finished)
    ended = eprop_run("resume=sweep", f"hydra/launcher={launcher}")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines()[-1] == "Jobs: 4 SKIPPED (COMPLETED before)"
    assert "HYDRA" not in ended.stdout  # launchers tell what they launch
    assert results(finished) == before


@pytest.mark.slow
def test_a_job_that_is_killed_runs_again_and_nothing_else_does(start, eprop_run, tmp_path, undisturbed):
    process = start("-m", *LONG, "seed=2,3", "hydra.sweep.dir=sweep")
    killed = training(tmp_path / "sweep", 2)
    os.kill(record(killed)["pid"], signal.SIGKILL)
    assert process.wait(300) == 1
    rows = table(tmp_path / "sweep")
    assert [row["status"] for row in rows] == ["FAILED", "COMPLETED"]
    assert rows[0]["error"] == "its process was killed by SIGKILL"
    other = tmp_path / "sweep" / rows[1]["run"] / "run.json"
    before = other.read_bytes()
    again = eprop_run(*printed_command((tmp_path / "out").read_text()))
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.splitlines()[-1] == "Jobs: 1 COMPLETED, 1 SKIPPED (COMPLETED before)"
    assert "Resuming after iteration" in (killed / "eprop-run.log").read_text()
    assert other.read_bytes() == before
    assert results(tmp_path / "sweep") == undisturbed[1:]


@pytest.mark.slow
def test_the_process_that_starts_the_jobs_is_replaced_when_it_is_gone(start, tmp_path, undisturbed):
    process = start("-m", *LONG, "seed=2,3", "hydra.sweep.dir=sweep")
    os.kill(parent(record(training(tmp_path / "sweep", 2))["pid"]), signal.SIGKILL)
    assert process.wait(300) == 0
    assert results(tmp_path / "sweep") == undisturbed[1:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "seeds", "number", "status"),
    [
        ("basic", [1, 2, 3], signal.SIGINT, 130),  # one is COMPLETED then, one begun, one not
        ("parallel", [2, 3], signal.SIGKILL, -9),
        ("slurm_local", [2, 3], signal.SIGTERM, 143),
    ],
)
def test_a_sweep_that_was_stopped_goes_on(start, eprop_run, tmp_path, undisturbed, launcher, seeds, number, status):
    sweep = tmp_path / "sweep"
    values = ",".join(map(str, seeds))
    process = start("-m", *LONG, f"seed={values}", f"hydra/launcher={launcher}", "hydra.sweep.dir=sweep")
    stopped = training(sweep, 2)
    started = children(process.pid)
    process.send_signal(number)
    assert process.wait(300) == status
    waited(lambda: not any(map(alive, [*started, record(stopped)["pid"]])))
    assert record(stopped)["status"] == "INTERRUPTED"
    if number != signal.SIGKILL:
        assert printed_command((tmp_path / "out").read_text()) == ["resume=sweep"]
    again = eprop_run("resume=sweep")
    assert again.returncode == 0
    assert "Resuming after iteration" in (stopped / "eprop-run.log").read_text()
    assert results(sweep) == undisturbed[-len(seeds) :]
    assert not [path.name for path in sweep.iterdir() if ".old" in path.name or path.name == ".jobs"]


@pytest.mark.parametrize("launcher", [pytest.param("basic", marks=pytest.mark.slow), "parallel"])
def test_a_sweep_ends_in_order_when_its_terminal_is_closed(start, tmp_path, launcher):
    process = start("-m", *LONG, "seed=2,3", f"hydra/launcher={launcher}", "hydra.sweep.dir=sweep")
    stopped = training(tmp_path / "sweep", 2)
    os.killpg(process.pid, signal.SIGHUP)
    assert process.wait(300) == 143
    assert record(stopped)["error"] == "interrupted by SIGTERM"
    assert {row["status"] for row in table(tmp_path / "sweep")} == {"INTERRUPTED"}
    assert not (tmp_path / "sweep" / ".jobs").exists()


@pytest.mark.slow
def test_a_cluster_job_that_is_preempted_goes_on(start, tmp_path, undisturbed):
    process = start("-m", *LONG, "seed=2,3", "hydra/launcher=slurm_local", "hydra.sweep.dir=sweep")
    preempted = training(tmp_path / "sweep", 2)
    os.kill(parent(parent(record(preempted)["pid"])), signal.SIGUSR2)  # as SLURM does some time before the limit
    assert process.wait(300) == 0
    assert "Resuming after iteration" in (preempted / "eprop-run.log").read_text()
    assert results(tmp_path / "sweep") == undisturbed[1:]


def test_experiments_of_the_users_own_are_swept(eprop_run, tmp_path):
    (tmp_path / "my conf" / "experiment").mkdir(parents=True)
    own = "# @package _global_\ndefaults: [smoke]\ntask: {n_batch: 1}\nreport: true\n"
    (tmp_path / "my conf" / "experiment" / "single.yaml").write_text(own)
    options = ("--config-dir", "my conf")
    ended = eprop_run(*options, "-m", "experiment=smoke,single", *QUICK[1:], "hydra.sweep.dir=sweep")
    assert (ended.returncode, ended.stderr) == (0, "")
    columns = ("run", "experiment", "task.n_batch", "status", "iterations")
    assert [tuple(row[column] for column in columns) for row in table(tmp_path / "sweep")] == [
        (NAME.format("single"), "single", "1", "COMPLETED", "2"),
        (NAME.format("smoke"), "smoke", "2", "COMPLETED", "2"),
    ]
    assert "Files: sweep/sweep.csv, sweep/sweep.png, sweep/report.html" in ended.stdout.splitlines()
    pages = {path.parent.name: path.read_text() for path in (tmp_path / "sweep").rglob("report.html")}
    assert pages.keys() == {"sweep", NAME.format("single")}
    assert all(NAME.format(name) in pages["sweep"] for name in ("single", "smoke"))
    again = eprop_run("resume=sweep")
    assert again.stdout.splitlines()[-1] == "Jobs: 2 SKIPPED (COMPLETED before)"


def test_the_table_has_what_was_swept_and_what_came_out(completed_once):
    sweep, printed = completed_once
    rows = table(sweep)
    assert list(rows[0]) == [
        *("index", "run", "seed", "optimizer.eta", "status", "iterations", "final_loss", "best_loss", "mean10_loss"),
        *("accuracy", "test_error", "seconds", "error"),
    ]
    expected = {(eta, seed) for eta in ("0.001", "0.005") for seed in ("1", "2")}
    assert {(row["optimizer.eta"], row["seed"]) for row in rows} == expected
    for row in rows:
        _, training, test = (sweep / row["run"] / "metrics.csv").read_text().splitlines()
        assert [row["iterations"], row["final_loss"], row["accuracy"]] == ["1", *training.split(",")[2:4]]
        assert row["test_error"] == test.split(",")[4]
    shown = printed.split("4 runs in")[1]
    assert shown.split("\n")[2].split() == ["eta", "test_error", "mean10_loss", "n", "best", "run"]
    assert (sweep / "sweep.png").exists()


class TestResume:
    def test_from_another_directory(self, eprop_run, finished, tmp_path):
        (tmp_path / "elsewhere").mkdir()
        ended = eprop_run("resume=../sweep", cwd=tmp_path / "elsewhere")
        assert ended.stdout.splitlines()[-1] == "Jobs: 4 SKIPPED (COMPLETED before)"
        assert not list((tmp_path / "elsewhere").iterdir())

    def test_of_a_task_of_ones_own_that_only_its_runs_keep(self, eprop_run, tmp_path):
        there, here = tmp_path / "there", tmp_path / "here"
        for place in (there, here):
            place.mkdir()
        (there / "mine.py").write_text(MINE)
        quick = (*QUICK, "task.name=mine:Mine", "task.n_iter=1", "task.n_batch=1", "training.n_iter_test=0")
        assert eprop_run("-m", *quick, "seed=1,2", "hydra.sweep.dir=sweep", cwd=there).returncode == 0
        shutil.move(there / "sweep", here)
        shutil.rmtree(there)
        asked = eprop_run("resume=sweep", "seed=1,2,3", cwd=here)
        assert (asked.returncode, asked.stderr.splitlines()[-1][-19:]) == (2, "--allow-module mine")
        ended = eprop_run("--allow-module", "mine", "resume=sweep", "seed=1,2,3", cwd=here)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout.splitlines()[-1] == "Jobs: 1 COMPLETED, 2 SKIPPED (COMPLETED before)"

    def test_what_was_begun_before_formats_had_numbers(self, eprop_run, tmp_path):
        shutil.copytree(Path(__file__).parent / "data" / "sweep_format_1", tmp_path / "sweep")
        ended = eprop_run("resume=sweep", "seed=1,2,3")
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout.splitlines()[-1] == "Jobs: 1 COMPLETED, 2 SKIPPED (COMPLETED before)"
        assert [row["seed"] for row in table(tmp_path / "sweep")] == ["1", "2", "3"]
        written = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
        assert (written["format"], written["beginning"]) == (2, None)

    def test_with_another_launcher(self, eprop_run, finished):
        """What was given for the one before, which it does not have, is left out, now and from then on."""
        path = finished / "sweep.json"
        written = json.loads(path.read_text())
        written["overrides"] += ["hydra/launcher=parallel", "hydra.launcher.n_jobs=2"]
        path.write_text(json.dumps(written))
        ended = eprop_run("resume=sweep", "hydra/launcher=basic")
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout.splitlines()[0] == "Left out, as hydra/launcher=basic: hydra.launcher.n_jobs=2"
        assert ended.stdout.splitlines()[-1] == "Jobs: 4 SKIPPED (COMPLETED before)"
        assert "hydra.launcher.n_jobs=2" not in json.loads(path.read_text())["overrides"]

    @pytest.mark.parametrize(
        ("earlier", "anew"),
        [
            (["hydra/launcher=slurm", "hydra.launcher.partition=short"], ["hydra/launcher='slurm'", "seed=1"]),
            (["hydra/launcher=slurm", "hydra.launcher.partition=short"], ["seed=1"]),
            (["experiment=names_one", "hydra.launcher.n_jobs=2"], ["hydra/launcher=parallel"]),
        ],
    )
    def test_with_the_same_launcher_or_none_that_is_known(self, earlier, anew, capsys):
        assert _still_given(earlier, anew) == earlier
        assert capsys.readouterr().out == ""

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (
                '{"format": 3, "options": []}',
                "has format 3, but this eprop-run knows 2; use a newer one",
            ),
            ('{"format": "x"}', "is damaged (ValueError: it is not a multirun's)"),
            ('{"options": []}', "is damaged (KeyError: 'overrides')"),
            (
                '{"options": [], "overrides": [1]}',
                "is damaged (ValueError: options and overrides must be lists of text)",
            ),
        ],
    )
    def test_another_record_is_refused(self, refused, finished, content, message):
        (finished / "sweep.json").write_text(content)
        before = sorted(path.name for path in finished.iterdir())
        told = refused("resume=sweep", leaves=["sweep"])
        assert told == f"eprop-run: resume=sweep: cannot be resumed: sweep/sweep.json {message}\n"
        assert sorted(path.name for path in finished.iterdir()) == before


class TestSearch:
    @pytest.mark.parametrize("n_jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
    def test_trials_are_pruned_wherever_they_run_and_the_search_goes_on(self, eprop_run, tmp_path, monkeypatch, n_jobs):
        """Two at a time, in other processes, with -m slow; what is not pruned has the rows of a run alone."""
        keys = ("hydra.sweeper.storage=sqlite:///search.db", "hydra.sweeper.n_trials=6")
        keys += ("hydra/launcher=parallel", "hydra.launcher.n_jobs=2", "hydra.sweeper.n_jobs=2") if n_jobs == 2 else ()
        pruner = ("hydra/sweeper/pruner=median", "hydra.sweeper.pruner.n_startup_trials=2")
        shape = ("task.n_iter=6", "hydra.sweep.dir=sweep")
        ended = eprop_run("-m", *SEARCH, *shape, *keys, *pruner)
        assert ended.returncode == 0, ended.stderr
        rows = table(tmp_path / "sweep")
        assert [row["trial"] for row in rows] == list("012345")
        assert {row["status"] for row in rows} == {"COMPLETED", "PRUNED"}
        assert [row["objective"] != "" for row in rows] == [row["status"] == "COMPLETED" for row in rows]
        (best,) = [row for row in rows if row["best"] == "*"]
        assert float(best["objective"]) == min(float(row["objective"]) for row in rows if row["objective"])
        told = ended.stdout.splitlines()
        shown = f"{float(best['objective']):.6g}"
        assert f"Best: trial {best['trial']}, test_loss {shown}: sweep/{best['run']}" in told
        n_pruned = sum(row["status"] == "PRUNED" for row in rows)
        assert told[-1] == f"Jobs: {6 - n_pruned} COMPLETED, {n_pruned} PRUNED"
        assert {path.name for path in (tmp_path / "sweep").glob("*.png")} == {
            *("sweep.png", "search_history.png", "search_importance.png", "search_slice.png"),
        }
        found = OmegaConf.load(tmp_path / "sweep" / "optimization_results.yaml")
        assert found.best_value == float(best["objective"])
        searched = ("optimizer.eta", "neuron.rec.c_reg", "neuron.rec.gamma")
        assert dict(found.best_params) == {key: float(best[key]) for key in searched}

        monkeypatch.chdir(tmp_path)
        for row in (best, next(row for row in rows if row["status"] == "PRUNED")):
            kept = (tmp_path / "sweep" / row["run"] / "metrics.csv").read_text().splitlines()
            alone = run(record(tmp_path / "sweep" / row["run"])["command"][1:], f"alone-{row['trial']}")
            whole = (alone.directory / "metrics.csv").read_text().splitlines()
            without_seconds = [[line.rsplit(",", 1)[0] for line in lines] for lines in (kept, whole)]
            assert without_seconds[0] == without_seconds[1][: len(kept)]
            assert len(kept) == len(whole) if row is best else len(kept) < len(whole) - 1
            assert record(tmp_path / "sweep" / row["run"])["error"] is None

        (tmp_path / "elsewhere").mkdir()
        here = ("hydra/launcher=basic", "hydra.sweeper.n_jobs=1")
        again = eprop_run("resume=../sweep", "hydra.sweeper.n_trials=7", *here, cwd=tmp_path / "elsewhere")
        assert again.stdout.splitlines()[-1].endswith(", 6 SKIPPED (finished before)"), again.stderr
        assert [row["run"] for row in table(tmp_path / "sweep")[:6]] == [row["run"] for row in rows]
        assert not list((tmp_path / "elsewhere").iterdir())
        study = optuna.load_study(study_name="sweep", storage=f"sqlite:///{tmp_path}/search.db")
        assert len(study.trials) == 7
        assert study.trials[best_index := int(best["trial"])].value == float(best["objective"])
        assert study.trials[best_index].params == dict(found.best_params)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                ["objective=val_los"],
                "objective=val_los: must be a metric (loss, accuracy, recall_error, rate_reg, rate_ad), or val_, "
                "test_, best_, mean10_ or median5_ of one",
            ),
            (
                ["hydra.sweeper.direction=[minimize,maximize]"],
                "hydra.sweeper.direction=[minimize, maximize]: must be minimize or maximize: a job returns one "
                "objective, so a search has one",
            ),
            (
                ["hydra.sweeper.direction=up"],
                "hydra.sweeper.direction=up: must be minimize or maximize; null: as the objective is better",
            ),
            (
                ["objective=rate_reg"],
                "hydra.sweeper.direction=null: must be minimize or maximize, as objective=rate_reg does not say what "
                "is better",
            ),
            (["hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials=0: must be a whole number from 1"),
            (["hydra.sweeper.max_failure_rate=2"], "hydra.sweeper.max_failure_rate=2: must be from 0 to 1"),
            (["objective=loss,test_loss"], "objective: cannot be searched; what is best is told by one"),
            (
                ["hydra/sweeper/sampler=motpe"],
                "hydra/sweeper/sampler=motpe: must be one of brute_force, cmaes, gp, grid, nsgaii, qmc, random, tpe. "
                "Did you mean tpe?",
            ),
            (
                ["hydra/sweeper/sampler=grid"],
                "optimizer.eta=interval(0.0005,0.05): is no list of points, which this sampler needs; give values or "
                "range()",
            ),
            (
                ["+hydra.sweeper.sampler.colour=red"],
                "hydra.sweeper.sampler: TPESampler.__init__() got an unexpected keyword argument 'colour'",
            ),
            (
                ["hydra/sweeper/pruner=threshold"],
                "hydra.sweeper.pruner: Either lower or upper must be specified",
            ),
            (
                ["optimizer.eta=tag(log,interval(0,1))"],
                "optimizer.eta=tag(log,interval(0,1)): `low > 0` must hold for `log=True`, but got (low=0.0, high=1.0)",
            ),
            (
                ["hydra.sweeper.storage=sqlite:////nowhere/search.db"],
                "hydra.sweeper.storage=sqlite:////nowhere/search.db: cannot be opened (unable to open database file)",
            ),
        ],
    )
    def test_what_no_search_can_be_made_of_is_refused_before_any_job(self, refused, arguments, message):
        told = refused("-m", *SEARCH, *arguments, "hydra.sweep.dir=sweep")
        assert told == f"eprop-run: {message}\n"

    def test_without_a_range_there_is_nothing_to_search(self, refused):
        told = refused("-m", *QUICK, "hydra/sweeper=optuna", "hydra.sweep.dir=sweep")
        remedy = "there is nothing to search; give a key several values or interval(LOW,HIGH)"
        assert told == f"eprop-run: hydra/sweeper: {remedy}\n"


def test_a_warning_after_the_jobs_is_no_full_disk(eprop_run, tmp_path):
    """The log of a job's beginning, in which warnings are kept, is gone by then."""
    (tmp_path / "late.py").write_text(LATE)
    ended = eprop_run("-m", *QUICK, "task.n_iter=1", "task.name=late:Late", "seed=1", "hydra.sweep.dir=sweep")
    assert ended.returncode == 0, ended.stderr
    assert "UserWarning: it is late" in ended.stderr
    assert ended.stdout.splitlines()[-1] == "Jobs: 1 COMPLETED"


class TestRefused:
    """Before any job begins, with one line and nothing left behind."""

    @pytest.mark.parametrize(
        ("argument", "message"),
        [
            ("seed=-1,-2", "seed=-1: must be from 0 to 4294967295"),
            ("task.n_itr=1,2", "task.n_itr: there is no such key; closest: task.n_iter (training iterations)"),
            (
                "hydra/launcher=slurm",
                "hydra/launcher=slurm: needs SLURM's srun, which is not on this machine; slurm_local tries the same "
                "without",
            ),
            ("hydra.sweep.subdir=a", "hydra.sweep.subdir=a: cannot be set: jobs are named after their overrides"),
        ],
    )
    def test_what_is_wrong_with_every_job(self, refused, monkeypatch, argument, message):
        monkeypatch.setenv("PATH", "")
        assert refused("-m", *QUICK, argument, "hydra.sweep.dir=sweep") == f"eprop-run: {message}\n"

    def test_what_a_file_of_ones_own_makes_a_multirun(self, refused, tmp_path):
        (tmp_path / "conf" / "experiment").mkdir(parents=True)
        file = tmp_path / "conf" / "experiment" / "many.yaml"
        file.write_text("# @package _global_\nhydra: {mode: MULTIRUN}\n")
        told = refused("--config-dir", "conf", "experiment=many", "seed=-1,-2", leaves=["conf"])
        assert told == "eprop-run: seed=-1: must be from 0 to 4294967295\n"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["task.n_in=40,41"], "task.n_in=41: must be a multiple of n_input_symbols (4); 1 of 2"),
            (["optimizer.eta=-1,1e-3", "seed=1,2"], "optimizer.eta=-1.0: must be non-negative; 2 of 4"),
        ],
    )
    def test_what_is_wrong_with_some_jobs(self, refused, arguments, message):
        told = refused("-m", *QUICK, *arguments, "hydra.sweep.dir=sweep")
        assert told == f"eprop-run: {message} jobs cannot run, so none was started\n"

    def test_a_directory_that_is_taken_is_told_before_jobs_are_checked(self, refused, tmp_path):
        (tmp_path / "sweep").mkdir()
        (tmp_path / "sweep" / "thesis.tex").touch()
        told = refused("-m", *QUICK, "seed=-1,-2", "hydra.sweep.dir=sweep", leaves=["sweep"])
        assert told.endswith("/sweep: holds files, but no multirun's; choose another\n")

    def test_checks_of_many_jobs_are_told_of(self, in_lines, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("eprop_cli.sweeps.preparation.MANY", 2)
        status, out, err = in_lines("eprop-run", cli.main, "-m", *QUICK, "seed=-1,-2", "hydra.sweep.dir=sweep")
        assert (status, out) == (2, ["Checking 2 jobs, a twentieth of a second each"])
        assert err == ["eprop-run: seed=-1: must be from 0 to 4294967295"]

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("run.json", "is the directory of a run; choose another"),
            ("thesis.tex", "holds files, but no multirun's; choose another"),
        ],
    )
    def test_a_directory_of_something_else(self, refused, tmp_path, name, message):
        (tmp_path / "sweep").mkdir()
        (tmp_path / "sweep" / name).write_text("{}")
        told = refused("-m", *QUICK, "seed=1,2", f"hydra.sweep.dir={tmp_path}/sweep", leaves=["sweep"])
        assert told == f"eprop-run: hydra.sweep.dir={tmp_path}/sweep: {message}\n"
        assert [path.name for path in (tmp_path / "sweep").iterdir()] == [name]


class TestLauncher:
    @pytest.fixture
    def own(self, tmp_path):
        """Experiments of the user's own that name launchers."""
        place = tmp_path / "conf" / "experiment"
        place.mkdir(parents=True)
        text = "# @package _global_\ndefaults: [{override}]\nhydra: {{{keys}}}\n"
        three = {"override": "override /hydra/launcher: joblib", "keys": "launcher: {n_jobs: 3}"}
        for name in ("one", "two"):
            (place / f"{name}.yaml").write_text(text.format(**three))
        (place / "other.yaml").write_text("# @package _global_\nseed: 2\n")
        (place / "search.yaml").write_text("# @package _global_\ndefaults: [override /hydra/sweeper: optuna]\n")

    @pytest.fixture(autouse=True)
    def _one_core(self, monkeypatch):
        monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")

    def test_more_jobs_than_cores_are_warned_of(self, refused):
        shape = ("task.n_batch=4", "engine.n_workers=2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=3")
        told = refused("-m", *QUICK, *shape, "seed=1,2,3,4", NOWHERE)
        assert told.splitlines()[0] == (
            "eprop-run: warning: the jobs want 6 cores (3 at once x 2 each (engine.n_workers and threads)), "
            "but have 1; hydra/launcher=parallel counts them"
        )

    @pytest.mark.usefixtures("own")
    def test_one_that_all_files_name_is_used(self, refused):
        given = ("--config-dir", "conf", "-m", *QUICK[1:], "experiment=one,two", "seed=1,2")
        told = refused(*given, NOWHERE, leaves=["conf"])
        assert told.splitlines()[0].startswith("eprop-run: warning: the jobs want 3 cores (3 at once")

    @pytest.mark.usefixtures("own")
    @pytest.mark.parametrize(
        ("name", "message"),
        [
            (
                "other",
                "hydra/launcher=joblib, basic: files that are swept over name several, or with several keys; give "
                "hydra/launcher=... for all jobs",
            ),
            ("search", "hydra/sweeper=optuna: is named in a file that is swept over; give it on the command line"),
        ],
    )
    def test_others_are_refused(self, refused, name, message):
        values = "one,other" if name == "other" else "other,search"
        given = ("--config-dir", "conf", "-m", *QUICK[1:], f"experiment={values}", "hydra.sweep.dir=sweep")
        assert refused(*given, leaves=["conf"]) == f"eprop-run: {message}\n"


@pytest.mark.slow
def test_the_engine_is_compiled_once_before_the_jobs(eprop_run, tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "LOKY_MAX_CPU_COUNT": "2"}
    ended = eprop_run("-m", *QUICK, "seed=1,2", "hydra/launcher=parallel", "hydra.sweep.dir=sweep", env=environment)
    assert ended.returncode == 0
    compiled = max(path.stat().st_mtime for path in (tmp_path / "cache").rglob("*.nbc"))
    began = min((path / ".hydra" / "config.yaml").stat().st_mtime for path in (tmp_path / "sweep").glob("*seed*"))
    assert compiled < began
