"""A directory that somebody sends is data: what is in it is checked like what a user types, and never run."""

import json
import os
import pickle
import shutil
import sys
from pathlib import Path

import pytest
from forked import run_command
from omegaconf import OmegaConf
from small import BARE, SMALL
from synthetic_run import write_run

from eprop_cli.cli import eprop_compare, eprop_plot, eprop_run
from eprop_cli.config.foreign import trusted
from eprop_cli.errors import UserError, legible
from eprop_cli.runs.allowed import allow, take_allowed
from eprop_cli.runs.beginning import earlier_config
from eprop_cli.runs.code import find_kept_by_jobs
from eprop_cli.runs.directory import check_inside
from eprop_cli.runs.files import write_text
from eprop_cli.sweeps.foreign import check_arguments_of
from eprop_cli.sweeps.record import SweepRecord

QUICK = (*SMALL, *BARE, "training=data_parallel", "engine=compiled", "task.n_iter=1", "task.n_batch=2")


class Executed:
    """Leaves a file when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    directory = tmp_path_factory.mktemp("begun")
    run_command(*QUICK, "hydra.run.dir=run", cwd=directory, check=True)
    return directory / "run"


@pytest.fixture
def run(begun, tmp_path, monkeypatch):
    """A copy of a run, in the working directory, with a module beside it that leaves a file when it is imported."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("import os\nos.mkdir('executed')\nclass T:\n    pass\n")
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(Executed()))
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    yield shutil.copytree(begun, tmp_path / "run")
    assert not (tmp_path / "executed").exists()


@pytest.fixture
def call(monkeypatch, capsys):
    """Exit status and what a command prints to stderr."""

    def call(command, *arguments):
        monkeypatch.setattr(sys, "argv", [command.__module__, *map(str, arguments)])
        with pytest.raises(SystemExit) as ending:
            command()
        return ending.value.code, capsys.readouterr().err

    return call


def change(run, change):
    record = json.loads((run / "run.json").read_text())
    change(record)
    (run / "run.json").write_text(json.dumps(record))


def put(key, value):
    def change(record):
        *above, last = key.split(".")
        for part in above:
            record = record.setdefault(part, {})
        record[last] = value

    return change


FOREIGN = {
    "config.hydra.callbacks.x._target_": ("joblib.load", "the key hydra.callbacks.x._target_, which is none of"),
    "config.task._target_": ("joblib.load", "the key task._target_, which is none of a config's"),
    "config.task.name": ("evil:T", "task.name=evil:T, which is not ours; if you trust it, add --allow-module evil"),
    "config.neuron.name": ("evil:T", "neuron.name=evil:T, which is not ours"),
    "config.synapse.name": ("evil:T", "synapse.name=evil:T, which is not ours"),
    "config.optimizer.name": ("evil:T", "optimizer.name=evil:T, which is not ours"),
    "config.engine.name": ("evil:T", "engine.name=evil:T, which is not ours"),
    "config.training.name": ("evil:T", "training.name=evil:T, which is not ours"),
    "config.neuron.out.loss": ("evil:T", "neuron.out.loss=evil:T, which is not ours"),
    "config.connectivity.rec_rec": ("evil:T", "connectivity.rec_rec=evil:T, which is not ours"),
    "config.connectivity.in_rec": ({"rule": "evil:T"}, "connectivity.in_rec=evil:T, which is not ours"),
    "config.connectivity.out_rec": ('{"rule": "evil\\x3aT"}', "connectivity.out_rec=evil:T, which is not ours"),
    "config.plots.figures": (["evil:T"], "plots.figures=evil:T, which is not ours"),
    "config.objective": ("${oc.env:HOME}", "objective=${oc.env:HOME}, and references are not taken from a directory"),
    "config.seed": ("${task.n_iter}", "seed=${task.n_iter}, and references are not taken from a directory"),
    "config.engine.scheduler": ("tcp://elsewhere:1", "engine.scheduler=tcp://elsewhere:1, whose answers are programs"),
    "config.colour": (1, "the key colour, which is none of a config's"),
    "config.task.a\x1b[2J": ("${x}", "task.a\\x1b[2J=${x}"),
    "config": (5, "its config is not that of a run: 5"),
}


@pytest.mark.parametrize("key", FOREIGN)
def test_a_config_that_is_more_than_values_is_refused(run, call, key):
    value, line = FOREIGN[key]
    change(run, put(key, value))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    status, told = call(eprop_run.main, "resume=run")
    assert status == 2
    assert told.startswith("eprop-run: resume=run: cannot be resumed: its run.json ")
    assert line in told
    assert told.count("\n") == 1
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_what_hydra_kept_of_a_run_is_not_replayed(run):
    target = "+hydra.callbacks.x={_target_: joblib.load, filename: x.pkl}"
    OmegaConf.save([*QUICK, target, "task.name=evil:T"], run / ".hydra" / "overrides.yaml")
    hydra = OmegaConf.load(run / ".hydra" / "hydra.yaml")
    hydra.hydra.callbacks.x = {"_target_": "joblib.load", "filename": "x.pkl"}
    OmegaConf.save(hydra, run / ".hydra" / "hydra.yaml")
    done = run_command("resume=run", "task.n_iter=2")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_module_that_is_given_or_allowed_is_taken(run):
    change(run, put("config.task.name", "mine.tasks:T"))
    assert earlier_config(run, trusted((), ["task.name=mine.tasks:T"]))
    assert earlier_config(run, trusted(["mine.tasks"], ()))
    for names in ((), ["mine"], ["tasks"]):
        with pytest.raises(UserError, match=r"add --allow-module mine\.tasks$"):
            earlier_config(run, trusted(names, ["task.name=mine.tasks:Other"]))


def test_what_is_given_is_trusted_where_it_is_a_name():
    given = ["resume=sweep", "seed=5", "engine.scheduler='tcp://here:1'", "plots.figures=[learning,mine:Figure]"]
    assert trusted(["other"], given) == {"other", "tcp://here:1", "mine:Figure"}
    assert not trusted((), ["resume=sweep", "seed=5"])


class TestAllowing:
    def test_is_remembered_for_the_project(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        arguments, allowed = take_allowed(["--allow-module", "mine", "seed=1", "--allow-module=other.tasks:T"])
        assert (arguments, allowed) == (["seed=1"], {"mine", "other.tasks"})
        assert allow([]) == allowed
        monkeypatch.chdir("/")
        assert allow([]) == frozenset()

    @pytest.mark.parametrize("name", ["", "../evil", "a b", "a.", "5"])
    def test_takes_names_only(self, name):
        with pytest.raises(UserError, match="must be the name of a module"):
            take_allowed([f"--allow-module={name}"])

    @pytest.mark.parametrize("content", ["{", "[1]", '{"/": 5}'])
    def test_damaged_settings_are_told(self, content):
        path = Path(os.environ["XDG_CONFIG_HOME"]) / "eprop-cli" / "allowed_modules.json"
        path.parent.mkdir()
        path.write_text(content)
        with pytest.raises(UserError, match="cannot be read; remove it"):
            allow([])


class TestFigures:
    @pytest.mark.parametrize(
        ("key", "value", "line"),
        [
            ("formats", ["/../../x.png"], "plots.formats=/../../x.png: must be one of png, pdf, svg"),
            ("figures", ["evil:T"], "has plots.figures=evil:T, which is not ours"),
            ("figures", [{}], "its config is not that of a run: plots"),
            ("dpi", 1e9, "its config is not that of a run: plots"),
            ("dpi", 10**6, "plots.dpi=1000000: must be from 10 to 1200"),
        ],
        ids=str,
    )
    def test_are_drawn_as_a_user_could_ask_for(self, run, call, tmp_path, key, value, line):
        change(run, put(f"config.plots.{key}", value))
        status, told = call(eprop_plot.plot, "run")
        assert (status, told.count("\n")) == (2, 1)
        assert told.startswith("eprop-plot: run/run.json: ")
        assert line in told
        assert not list(tmp_path.glob("**/*.png"))

    def test_do_not_leave_the_directory(self, run, call, tmp_path):
        (tmp_path / "outside").mkdir()
        (run / "figures").symlink_to(tmp_path / "outside")
        change(run, put("config.plots.figures", ["learning"]))
        status, told = call(eprop_plot.plot, "run")
        assert (status, told.count("\n")) == (2, 1)
        assert "run/figures: is a link that leads out of the run directory" in told
        assert not list((tmp_path / "outside").iterdir())


@pytest.mark.parametrize("name", ["eprop-run.log", "metrics.csv", "figures", ".hydra", "weights.npz", "recordings"])
def test_no_link_that_leaves_the_directory_is_followed(run, call, tmp_path, name):
    outside = tmp_path / "outside"
    if (run / name).exists():
        (run / name).rename(outside)
    else:
        outside.mkdir()
    (run / name).symlink_to(outside)
    before = {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}
    status, told = call(eprop_run.main, "resume=run", "task.n_iter=2")
    assert status == 2
    assert told.endswith(f"run/{name}: is a link that leads out of the run directory; put there what it leads to\n")
    assert {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()} == before


def test_a_link_within_the_directory_is_followed(run):
    (run / "eprop-run.log").rename(run / "log")
    (run / "eprop-run.log").symlink_to("log")
    check_inside(run)


def test_a_named_pipe_does_not_hang(run, call):
    (run / "metrics.csv").unlink()
    os.mkfifo(run / "metrics.csv")
    assert call(eprop_run.main, "resume=run")[0] == 2
    assert call(eprop_plot.plot, "run", "--figures", "learning")[0] == 2
    assert call(eprop_compare.compare, "run")[0] == 2


def test_control_characters_are_shown_escaped(tmp_path, call, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run("run", status="FAILED", error="\x1b]0;owned\x07\r\u202e")
    write_run("other", "seed=2")
    for command, arguments in ((eprop_plot.plot, ["--list", "run"]), (eprop_compare.compare, ["run", "other"])):
        monkeypatch.setattr(sys, "argv", [command.__module__, *arguments])
        with pytest.raises(SystemExit):
            command()
        printed = capsys.readouterr().out
        assert "\\x1b]0;owned\\x07\\r\\u202e" in printed
        assert not {"\x1b", "\x07", "\r"} & set(printed)
    assert legible("\n\x00é ü") == "\\n\\x00é ü"


SWEEP = {  # a line of a sweep.json that is not taken
    "+hydra.callbacks.x={_target_: joblib.load, filename: x.pkl}",
    "hydra.launcher.setup=[rm]",
    "hydra.launcher._target_=evil.T",
    "hydra.launcher.partition='$(touch x)'",
    "hydra/launcher=evil",
    "hydra.job_logging.handlers.file.class=evil.T",
    "hydra.searchpath=[pkg://evil]",
    "hydra.job.env_set={PATH: here}",
    "hydra.sweeper.storage=sqlite:////etc/passwd",
    "hydra.sweeper.storage=postgresql://elsewhere/x",
    "hydra.sweeper.params.hydra.launcher.setup=[rm]",
    "hydra.run.dir=/etc",
    "objective=${oc.env:HOME}",
    "task.name=evil:T",
    "+engine.scheduler=tcp://elsewhere:1",
}


class TestASweep:
    @pytest.mark.parametrize("text", sorted(SWEEP))
    def test_what_is_not_taken(self, run, text):
        record = SweepRecord([], [*QUICK, "seed=1,2", text], None)
        with pytest.raises(UserError, match=r"^resume=sweep: cannot be resumed: its sweep\.json has "):
            check_arguments_of(record, Path("sweep"), frozenset(), ())

    def test_what_is_taken(self, run):
        hydras = ["hydra/launcher=slurm", "hydra.launcher.timeout_min=5", "hydra/sweeper=eprop_optuna"]
        hydras += ["hydra.sweeper.storage='sqlite:///search.db'", "hydra.sweeper.params.optimizer.eta=interval(0.1,1)"]
        check_arguments_of(SweepRecord([], [*QUICK, *hydras, "seed=1,2"], None), Path("sweep"), frozenset(), ())

    def test_what_is_given_anew_is_taken(self, run):
        for text in ("hydra.launcher.setup=[module load]", "task.name=evil:T"):
            record = SweepRecord([], [*QUICK, "hydra/launcher=slurm", text], None)
            check_arguments_of(record, Path("sweep"), trusted((), [text]), [text])

    @pytest.mark.parametrize(
        ("content", "line"),
        [
            ("hydra:\n  callbacks:\n    x:\n      _target_: evil.T\n", "has hydra.callbacks.x._target_=evil.T"),
            ("hydra:\n  launcher:\n    setup: [rm]\n", "has hydra.launcher.setup="),
            ("task:\n  name: evil:T\n", "has task.name=evil:T, which is not ours"),
        ],
    )
    def test_files_that_it_names_hold_no_more(self, run, tmp_path, call, content, line):
        (tmp_path / "conf" / "experiment").mkdir(parents=True)
        for name in ("mine", "second"):
            (tmp_path / "conf" / "experiment" / f"{name}.yaml").write_text(f"# @package _global_\n{content}")
        launcher = "hydra/launcher=slurm"
        for experiment in ("mine", "mine,second"):  # in the common config, and in each job's only
            record = SweepRecord(["--config-dir", "conf"], [*QUICK, launcher, f"experiment={experiment}"], None)
            (tmp_path / "sweep").mkdir(exist_ok=True)
            record.write(tmp_path / "sweep")
            status, told = call(eprop_run.main, "resume=sweep")
            assert (status, told.count("\n")) == (2, 1)
            assert line in told

    def test_a_config_of_another_name_is_given_anew(self, run):
        record = SweepRecord(["--config-name", "mine"], [], None)
        with pytest.raises(UserError, match=r"its sweep\.json has --config-name; give it on this command line"):
            check_arguments_of(record, Path("sweep"), frozenset(), ())


class TestModulesThatRunsOfASweepKeep:
    @pytest.fixture
    def find(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", [*sys.path])
        for name, content in {"seed-1/code/kept.py": "x = 1\n", "seed-2/code/kept.py": "x = 1\n"}.items():
            write_text(tmp_path / name, content)
        runs = [Path("seed-1"), Path("seed-2")]
        return lambda *named: find_kept_by_jobs("resume", Path("sweep"), runs, {"kept", "other"}, named)

    def test_are_found_if_they_are_named(self, find, tmp_path):
        assert find("kept") == str(tmp_path / "seed-1" / "code")
        assert sys.path[-1] == str(tmp_path / "seed-1" / "code")

    def test_are_not_where_they_are_found_otherwise(self, find, tmp_path):
        (tmp_path / "kept.py").write_text("x = 2\n")
        assert find() is None

    def test_are_not_if_they_were_allowed_elsewhere(self, find):
        remedy = "to run the one that is kept there, in code/, add --allow-module kept"
        with pytest.raises(UserError, match=f"^resume=sweep: names kept, which is not found from here; {remedy}$"):
            find("other")

    def test_are_not_if_they_differ(self, find):
        Path("seed-2/code/kept.py").write_text("x = 3\n")
        told = "and seed-1 and seed-2 keep different ones in code/; put one here"
        with pytest.raises(UserError, match=f"^resume=sweep: names kept, which is not found from here, {told}$"):
            find("kept:T")

    def test_are_not_behind_a_link(self, find, tmp_path):
        shutil.rmtree("seed-1/code")
        (tmp_path / "seed-1" / "code").symlink_to(tmp_path.parent)
        (tmp_path.parent / "kept.py").write_text("")
        with pytest.raises(UserError, match="link"):
            find("kept")
