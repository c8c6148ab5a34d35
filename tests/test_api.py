"""From Python a run is what it is from the command line, and leaves the process as it was."""

import inspect
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import version
from hydra.core.global_hydra import GlobalHydra
from hydra.version import VersionBase
from small import BARE, SMALL
from synthetic_run import training_rows, write_run

import eprop_cli
from eprop_cli.errors import ConfigError, TrainingError, UserError
from eprop_cli.runs.reader import Run
from eprop_cli.tasks.evidence_accumulation import EvidenceAccumulation

DOCS = Path(__file__).resolve().parent.parent / "docs"
QUICK = (*SMALL, *BARE, "training=data_parallel", "engine=compiled", "task.n_iter=3", "training.n_iter_test=1")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def rows(directory):
    """metrics.csv without its seconds."""
    return [line.rsplit(",", 1)[0] for line in (Path(directory) / "metrics.csv").read_text().splitlines()]


def files(directory):
    return {str(path.relative_to(directory)) for path in Path(directory).rglob("*") if path.is_file()}


def log_of(directory):
    return (Path(directory) / "eprop-run.log").read_text().splitlines()


def state():
    """What a run could leave changed in its process."""
    loggers = [logging.getLogger(name) for name in ("", "eprop_cli", "eprop_cli.file", "eprop_cli.runs")]
    kept = [(each.level, each.propagate, each.disabled, tuple(each.handlers)) for each in loggers]
    signals = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    hydra = GlobalHydra.instance().is_initialized(), VersionBase.instance().version_base
    return kept, logging.raiseExceptions, signals, hydra, os.getcwd(), tuple(sys.argv)


@pytest.fixture
def unchanged(monkeypatch):
    """Asserts that a process, which has not used Hydra, is afterwards as it was."""
    monkeypatch.setattr(VersionBase.instance(), "version_base", version._UNSPECIFIED_)
    before = state()
    open_files = len(os.listdir("/proc/self/fd"))
    yield
    assert state() == before
    assert len(os.listdir("/proc/self/fd")) <= open_files


class TestRun:
    def test_it_leaves_what_the_command_leaves(self, eprop_run, tmp_path):
        settings = (*QUICK, "recording=default", "plots.dpi=20", "plots.figures=[learning]")
        settings = tuple(each for each in settings if each not in BARE)
        run = eprop_cli.run(settings, directory="python")
        eprop_run(*settings, "hydra.run.dir=command", check=True)
        there = Run("command")
        assert files("python") == files("command")
        assert rows("python") == rows("command")
        assert Path("python/weights.npz").read_bytes() == Path("command/weights.npz").read_bytes()
        figure = Path("figures/learning.png")
        assert ("python" / figure).read_bytes() == ("command" / figure).read_bytes()
        for name in ("config", "overrides"):
            assert Path(f"python/.hydra/{name}.yaml").read_bytes() == Path(f"command/.hydra/{name}.yaml").read_bytes()
        ours, its = (Path(f"{name}/.hydra/hydra.yaml").read_text() for name in ("python", "command"))
        assert differing(ours, its) <= {"hydra.run.dir", "python", "command", "stamp"}
        assert run.record.keys() == there.record.keys()
        assert run.record["command"] == ["eprop_cli.run", *settings]
        assert there.record["command"][0] == "eprop-run"
        told, said = (
            [
                re.sub(r"[\d.]+ s\b|; eprop-compare \.", "", line.split(" ", 2)[2])
                for line in log_of(name)
                if " command: " not in line
            ]
            for name in ("python", "command")
        )
        assert told == [line.replace("command", "python") for line in said]

    def test_a_callback_sees_each_row_once_it_is_written(self, unchanged):
        seen = []
        run = eprop_cli.run(QUICK, "there", on_row=lambda row: seen.append((row, len(Run("there").metrics))))
        assert [row.flat() for row, _ in seen] == run.metrics.to_dict("records")
        assert [n for _, n in seen] == [1, 2, 3, 4]

    def test_nothing_is_printed(self, capfd, unchanged):
        eprop_cli.run(QUICK, "there")
        assert capfd.readouterr() == ("", "")

    def test_who_listens_hears_what_the_command_tells(self, caplog):
        caplog.set_level("INFO")
        eprop_cli.run(QUICK, "there")
        assert any(message.startswith("COMPLETED: 3 iterations in ") for message in caplog.messages)

    def test_by_default_it_goes_to_outputs(self):
        run = eprop_cli.run(QUICK)
        assert re.fullmatch(r"outputs/\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d-\d{6}", str(run.directory.relative_to(Path.cwd())))

    @pytest.mark.nest
    def test_training_in_this_process(self, unchanged):
        run = eprop_cli.run([*SMALL, *BARE, "task.n_iter=2"], "there")
        assert run.metrics["iteration"].tolist() == [1, 2]

    def test_a_directory_whose_name_hydra_would_not_take(self):
        assert eprop_cli.run(QUICK, Path("a=b, c/it's")).status == "COMPLETED"
        assert eprop_cli.run([f"resume={'a=b, c/it'}'s", "task.n_iter=4"]).metrics["iteration"].max() == 4

    def test_config_files_of_ones_own(self, monkeypatch, tmp_path, eprop_run):
        (tmp_path / "mine" / "experiment").mkdir(parents=True)
        (tmp_path / "mine" / "experiment" / "short.yaml").write_text("# @package _global_\ntask:\n  n_iter: 2\n")
        settings = [each for each in QUICK if not each.startswith("task.n_iter")]
        run = eprop_cli.run(["experiment=short", *settings], "there", config_dir="mine")
        assert run.metrics["iteration"].max() == 2
        assert eprop_run("resume=there", "task.n_iter=3", check=True)
        assert Run("there").metrics["iteration"].max() == 3
        assert eprop_cli.run(["resume=there", "task.n_iter=4"]).metrics["iteration"].max() == 4


def differing(ours, its):
    """The words on lines that two texts do not have in common; conf/ of a checkout is another one when installed."""
    lines = {line for line in set(ours.splitlines()) ^ set(its.splitlines()) if not line.endswith("/conf")}
    known = ("hydra.run.dir", "python", "command", "stamp")
    return {next((word for word in known if word in line), line) for line in lines}


class TestResume:
    @pytest.fixture
    def whole(self):
        return eprop_cli.run([*QUICK, "task.n_iter=6"], "whole")

    def assert_same(self, directory, whole):
        assert rows(directory) == rows(whole.directory)
        assert (Path(directory) / "weights.npz").read_bytes() == (whole.directory / "weights.npz").read_bytes()

    def test_by_the_command(self, whole, eprop_run):
        eprop_cli.run(QUICK, "run")
        eprop_run("resume=run", "task.n_iter=6", check=True)
        self.assert_same("run", whole)
        commands = [session["command"][0] for session in Run("run").record["sessions"]]
        assert commands == ["eprop_cli.run", "eprop-run"]

    def test_of_what_the_command_began(self, whole, eprop_run, unchanged):
        eprop_run(*QUICK, "hydra.run.dir=run", check=True)
        run = eprop_cli.run(["resume=run", "task.n_iter=6"])
        self.assert_same("run", whole)
        assert run.record["command"] == ["eprop_cli.run", "resume=run", "task.n_iter=6"]

    def test_elsewhere_is_refused(self):
        eprop_cli.run(QUICK, "run")
        with pytest.raises(ConfigError, match=r"hydra.run.dir=.*: cannot be given with resume; leave it out"):
            eprop_cli.run(["resume=run"], directory="other")
        assert not Path("other").exists()

    def test_of_a_multirun_is_refused(self):
        Path("sweep").mkdir()
        Path("sweep/sweep.json").write_text("{}")
        with pytest.raises(ConfigError, match="resume=sweep: is a multirun; resume it with the command eprop-run"):
            eprop_cli.run(["resume=sweep"])


class TestErrors:
    @pytest.mark.parametrize(
        ("overrides", "kind", "message"),
        [
            (
                ["task.n_itr=3"],
                UserError,
                "task.n_itr: there is no such key; closest: task.n_iter (training iterations)",
            ),
            (["task.n_in=41"], ConfigError, "task.n_in=41: must be a multiple of n_input_symbols (4)"),
            (["seed=x"], UserError, "seed=x: must be a whole number"),
            (["seed=1,2"], UserError, "seed=1,2: has several values; run each, or write a list as [a, b]"),
            (["seed"], UserError, None),
            (["optimizer.Wmax=-1e-9"], ConfigError, None),
            (["resume=nowhere"], ConfigError, None),
        ],
    )
    def test_bad_input_is_raised_in_one_line_and_leaves_nothing(self, overrides, kind, message, unchanged, capfd):
        with pytest.raises(kind) as error:
            eprop_cli.run([*QUICK, *overrides], "there")
        assert message in (None, str(error.value))
        assert "\n" not in str(error.value)
        assert not Path("there").exists()
        assert capfd.readouterr() == ("", "")

    def test_a_directory_that_is_taken(self, unchanged):
        eprop_cli.run(QUICK, "there")
        before = {name: Path("there", name).read_bytes() for name in files("there")}
        with pytest.raises(ConfigError, match=r"hydra.run.dir=.*there: holds files already; choose another"):
            eprop_cli.run(QUICK, "there")
        assert {name: Path("there", name).read_bytes() for name in files("there")} == before

    def test_config_files_that_are_not_there(self):
        with pytest.raises(UserError, match=r"^config_dir=nowhere: is not a directory$"):
            eprop_cli.run(QUICK, "there", config_dir="nowhere")

    def test_training_that_explodes(self, unchanged, capfd):
        exploding = ("optimizer.eta=1e300", "optimizer.Wmin=-1e300", "optimizer.Wmax=1e300")
        with pytest.raises(TrainingError, match="the loss became "):
            eprop_cli.run([*QUICK, *exploding], "there")
        assert Run("there").status == "FAILED"
        assert "Traceback" in Path("there/eprop-run.log").read_text()
        assert capfd.readouterr() == ("", "")

    def test_of_a_callback(self, unchanged):
        def stop(row):
            raise ZeroDivisionError("mine")

        with pytest.raises(ZeroDivisionError, match="mine"):
            eprop_cli.run(QUICK, "there", on_row=stop)
        assert (Run("there").status, len(Run("there").metrics)) == ("FAILED", 1)

    def test_a_task_that_would_end_the_process(self, monkeypatch, unchanged):
        def batch(*_):
            raise SystemExit(3)

        monkeypatch.setattr(EvidenceAccumulation, "batch", batch)
        with pytest.raises(TrainingError, match="SystemExit: 3"):
            eprop_cli.run(QUICK, "there")
        assert Run("there").status == "FAILED"


class TestInterrupts:
    def test_ctrl_c_ends_the_run_in_order_and_is_raised(self, unchanged):
        def interrupt(row):
            if row.iteration == 2:
                os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            eprop_cli.run(QUICK, "there", on_row=interrupt)
        assert Run("there").status == "INTERRUPTED"
        assert Run("there").metrics["iteration"].tolist() == [1, 2]
        eprop_cli.run(["resume=there"])
        eprop_cli.run(QUICK, "whole")
        assert rows("there") == rows("whole")

    def test_others_have_their_own_effect_afterwards(self, unchanged):
        received = []
        before = signal.signal(signal.SIGTERM, lambda number, _: received.append((number, Run("there").status)))
        try:
            with pytest.raises(KeyboardInterrupt):
                eprop_cli.run(QUICK, "there", on_row=lambda _: os.kill(os.getpid(), signal.SIGTERM))
        finally:
            signal.signal(signal.SIGTERM, before)
        assert received == [(signal.SIGTERM, "INTERRUPTED")]

    def test_one_raised_off_the_main_thread(self):
        def interrupt(row):
            raise KeyboardInterrupt

        def act():
            with pytest.raises(KeyboardInterrupt):
                eprop_cli.run(QUICK, "there", on_row=interrupt)

        in_thread(act)
        assert Run("there").status == "INTERRUPTED"


def in_thread(*acts):
    """Call functions in threads of their own, all at a time; raises what one of them does."""
    problems = []

    def guarded(act):
        try:
            act()
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=guarded, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for problem in problems:
        raise problem


def test_threads_do_not_get_into_each_others_way(unchanged):
    def act(seed):
        return lambda: eprop_cli.run([*QUICK, f"seed={seed}"], f"there/{seed}")

    in_thread(*map(act, (1, 2, 3)))
    for seed in (1, 2, 3):
        eprop_cli.run([*QUICK, f"seed={seed}"], f"alone/{seed}")
        assert rows(f"there/{seed}") == rows(f"alone/{seed}")
        log = Path(f"there/{seed}/eprop-run.log").read_text()
        assert log.count("COMPLETED: ") == 1
        assert f"Files: there/{seed}\n" in log


def test_beside_a_hydra_application(tmp_path):
    import hydra

    with hydra.initialize_config_dir(str(tmp_path), version_base="1.2"):
        before = state()
        assert eprop_cli.run(QUICK, "there").status == "COMPLETED"
        assert eprop_cli.compose(QUICK).task.n_iter == 3
        assert state() == before


class TestCompose:
    def test_it_is_typed_and_checked(self, unchanged):
        config = eprop_cli.compose(["experiment=smoke", "optimizer.eta=0.25"])
        assert (config.optimizer.eta, config.task.n_batch) == (0.25, 2)
        assert isinstance(config, eprop_cli.compose.__annotations__["return"])
        with pytest.raises(ConfigError, match="must be a multiple of"):
            eprop_cli.compose(["task.n_in=41"])

    def test_keys_that_have_moved_are_told(self, caplog):
        config = eprop_cli.compose(
            ["training=data_parallel", "engine=compiled", "training.n_workers=2", "task.n_batch=2"]
        )
        assert config.engine.n_workers == 2
        assert caplog.messages == ["training.n_workers is now engine.n_workers"]

    def test_nothing_is_written(self):
        eprop_cli.compose()
        assert not list(Path().iterdir())


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Of a sweep."""
    directory = tmp_path_factory.mktemp("sweep")
    for seed, start in ((1, 0.8), (2, 0.5), (10, 0.6)):
        write_run(directory / str(seed), f"seed={seed}", rows=training_rows(3, start))
    write_run(directory / "failed", "seed=11", rows=training_rows(3, 0.1), status="FAILED", error="no")
    return directory


class TestSweep:
    def test_runs_and_table(self, directory):
        sweep = eprop_cli.Sweep(directory)
        assert [run.directory.name for run in sweep.runs] == ["1", "2", "10", "failed"]
        assert isinstance(sweep.table, pd.DataFrame)
        assert sweep.table["seed"].tolist() == [1, 2, 10, 11]
        np.testing.assert_allclose(sweep.table["final_loss"], [0.77, 0.47, 0.57, 0.07])

    def test_the_best_of_those_that_completed(self, directory):
        sweep = eprop_cli.Sweep(directory)
        assert sweep.best().directory.name == sweep.best("best_loss").directory.name == "2"

    def test_what_is_better_follows_from_the_metric(self, directory, tmp_path):
        for seed, accuracy in ((1, 0.25), (2, 0.75)):
            run = write_run(tmp_path / str(seed), f"seed={seed}")
            table = (run / "metrics.csv").read_text().replace(",0.25,0.75,", f",{accuracy},{1 - accuracy},")
            (run / "metrics.csv").write_text(table)
        sweep = eprop_cli.Sweep(tmp_path)
        assert sweep.best("accuracy").directory.name == sweep.best("recall_error").directory.name == "2"

    def test_without_any(self, tmp_path, directory):
        with pytest.raises(UserError, match="nowhere: is no directory of runs"):
            eprop_cli.Sweep(tmp_path / "nowhere")
        with pytest.raises(UserError, match="no run in there is COMPLETED and has a value of test_loss"):
            eprop_cli.Sweep(directory).best("test_loss")
        with pytest.raises(ConfigError, match="objective=speed: must be a metric"):
            eprop_cli.Sweep(directory).best("speed")


def test_what_is_public_is_there_when_asked_for():
    code = "import sys, eprop_cli; print(eprop_cli.__version__, [m for m in ('numpy', 'hydra') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{eprop_cli.__version__} []\n"
    assert {"Run", "Sweep", "compose", "run"} <= set(dir(eprop_cli))
    assert list(inspect.signature(eprop_cli.run).parameters) == [
        "overrides",
        "directory",
        "config_dir",
        "on_row",
        "allow_modules",
    ]
    with pytest.raises(AttributeError, match="no attribute 'walk'"):
        _ = eprop_cli.walk


def test_where_run_was_found_before():
    from eprop_cli.results import Run as Before

    assert Before is eprop_cli.Run is Run


def test_types_ship():
    assert Path(eprop_cli.__file__).with_name("py.typed").exists()


def test_the_examples_in_the_docs_run(capsys):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "python.md").read_text(), re.DOTALL)
    names = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "task.n_in=41: must be a multiple of n_input_symbols (4)" in printed
    assert len(names["losses"]) == 6
    assert json.loads(Path("first/run.json").read_text())["status"] == "COMPLETED"
