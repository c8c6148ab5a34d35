"""eprop-run as a user starts it."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from forked import EPROP_RUN, run_command, start_command
from omegaconf import OmegaConf
from small import BARE, SMALL, compose
from synthetic_run import write_run

from benchmarks.faults import processes, wait_until
from eprop_cli import __main__
from eprop_cli.cli import eprop_run as cli
from eprop_cli.cli.eprop_run import RunCallback
from eprop_cli.cli.resume import with_earlier_arguments
from eprop_cli.config.composed import RESUMED
from eprop_cli.errors import ConfigError, UserError
from eprop_cli.runs.directory import claim
from eprop_cli.runs.reader import Run
from eprop_cli.sweeps.callback import SweepCallback
from eprop_cli.versions import RELEASE, describe_commit, of_commit

ROOT = Path(__file__).parent.parent
COMPILED = ("training=data_parallel", "engine=compiled", "training.n_iter_test=0")
LOUD = {key: value for key, value in os.environ.items() if key != "PYNEST_QUIET"}  # as a user's is
CLOSING = [
    r"COMPLETED: 2 iterations in \d+\.\d s, training loss 0\.\d{4}, recall error [01]\.\d{3}",
    r"Files: run",
    r"Next: eprop-plot run",
]


def assert_lines(output, patterns):
    lines = output.splitlines()
    assert len(lines) == len(patterns), output
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line)


class TestWithoutARun:
    @pytest.fixture(autouse=True)
    def _leaves_nothing(self, tmp_path):
        yield
        assert list(tmp_path.iterdir()) == []

    def test_help(self, eprop_run):
        done = eprop_run("--help")
        assert (done.returncode, done.stderr) == (0, "")
        for text in (
            "eprop-run experiment=smoke",
            "data_parallel: workers share each batch",
            "experiment: bellec2020, ",
        ):
            assert text in done.stdout

    def test_cfg_job(self, eprop_run):
        done = eprop_run("--cfg", "job", "task.n_iter=7")
        assert (done.returncode, done.stderr) == (0, "")
        assert OmegaConf.create(done.stdout) == compose("task.n_iter=7")

    @pytest.mark.parametrize(
        ("wrong", "nearest"),
        [
            ("task.n_itr=50", "task.n_iter (training iterations)"),
            ("neuron.ad.adapt_taus=1", "neuron.ad.adapt_tau (ms, time constant of the threshold adaptation)"),
            ("optimiser.eta=1", "optimizer"),
        ],
    )
    def test_a_misspelt_key(self, eprop_run, wrong, nearest):
        done = eprop_run(wrong)
        assert (done.returncode, done.stdout) == (2, "")
        key = wrong.split("=")[0]
        assert done.stderr == f"eprop-run: {key}: there is no such key; closest: {nearest}\n"

    def test_a_value_out_of_range(self, eprop_run):
        done = eprop_run("task.n_in=41")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "eprop-run: task.n_in=41: must be a multiple of n_input_symbols (4)\n"


@pytest.mark.nest
def test_plain_lines_where_output_is_no_terminal(eprop_run):
    done = eprop_run(*SMALL, *BARE, "task.n_iter=2", "hydra.run.dir=run", env=LOUD)
    assert (done.returncode, done.stderr) == (0, "")
    rates = r"rates \d+\.\d \(regular\) and \d+\.\d \(adaptive\) spikes/s"
    iteration = r"iteration {}/2: loss 0\.\d{{4}}, recall error [01]\.\d{{3}}, " + rates
    assert_lines(done.stdout, [iteration.format(1), iteration.format(2), *CLOSING])


@pytest.mark.parametrize("multirun", ["", "--multirun hydra.sweep.dir=. seed=1"])
def test_closed_outputs(tmp_path, multirun):
    overrides = [*SMALL, *BARE, *COMPILED, "task.n_iter=1", "hydra.run.dir=seed-1"]
    command = f"{EPROP_RUN} {multirun} {shlex.join(overrides)} >&- 2>&-"
    assert subprocess.run(command, shell=True, cwd=tmp_path).returncode == 0
    (run,) = tmp_path.glob("*/run.json")
    assert Run(run.parent).status == "COMPLETED"


def test_a_log_that_cannot_be_written_is_silent(tmp_path):
    log, pipe = "hydra.job_logging.handlers.file.filename=/dev/full", subprocess.PIPE
    overrides = [*SMALL, *BARE, *COMPILED, "task.n_iter=1", "hydra.run.dir=run", log]
    with subprocess.Popen([EPROP_RUN, *overrides], stdout=pipe, stderr=pipe, text=True, cwd=tmp_path) as process:
        process.stdout.close()  # a reader of the pipe who has had enough
        assert process.stderr.read() == ""
    assert process.returncode == 0
    assert Run(tmp_path / "run").status == "COMPLETED"


@pytest.mark.nest
def test_nest_is_heard_where_asked(eprop_run):
    done = eprop_run(*SMALL, *BARE, "task.n_iter=1", "hydra.verbose=true", env=LOUD)
    assert done.returncode == 0
    assert "The NEST Initiative" in done.stdout + done.stderr


def run_on_terminal(directory, *overrides):
    """Run eprop-run on a terminal of 100 columns and give its exit status and what it wrote there."""
    ours, its = os.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    process = start_command(*overrides, stdin=its, stdout=its, stderr=its, cwd=directory, env=environment)
    os.close(its)
    written = b""
    while True:
        try:
            written += os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
    os.close(ours)
    return process.wait(60), written.decode()


def test_a_progress_bar_on_a_terminal(tmp_path):
    status, written = run_on_terminal(tmp_path, *SMALL, *BARE, *COMPILED, "task.n_iter=2", "hydra.run.dir=run")
    assert status == 0
    bar, *closing = [line.strip() for line in re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", written).split("\n") if line.strip()]
    assert_lines("\n".join(closing), CLOSING)
    assert re.search(r"training ━+ 2/2 loss 0\.\d{4}, recall error [01]\.\d{3}  \d+\.\d sequences/s 0:00:00$", bar)
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")  # the cursor is shown again


def start(directory, *overrides):
    """Start a long run in a session of its own."""
    long = (*SMALL, *BARE, "task.n_iter=100000", "hydra.run.dir=run", *overrides)
    with (directory / "output").open("wb") as output:
        return start_command(*long, cwd=directory, stdout=output, stderr=output, start_new_session=True)


def n_rows(run):
    path = run / "metrics.csv"
    return len(path.read_text().splitlines()) - 1 if path.exists() else 0


@pytest.mark.nest
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    "way",
    [(), ("training=data_parallel", "task.n_batch=2", "training.n_workers=2")],
    ids=["continuous", "data_parallel"],
)
def test_a_signal_ends_a_run_in_order(tmp_path, way, number):
    process, run = start(tmp_path, *way), tmp_path / "run"
    assert wait_until(lambda: n_rows(run) >= 2)
    os.killpg(process.pid, number)  # as a terminal or a cluster does, to all processes
    assert process.wait(300) == 128 + number
    assert wait_until(lambda: not processes(process.pid), timeout=60)
    n = n_rows(run)
    record = Run(run).record
    assert (record["status"], record["error"]) == ("INTERRUPTED", f"interrupted by {number.name}")
    assert record["last_row"]["iteration"] == n == len(Run(run).metrics)
    assert Run(run).weights["in_rec"].after.shape == (8, 8)
    assert (run / "checkpoint.npz").exists() == ("training=data_parallel" in way)
    assert not list(run.rglob(".*.part"))
    lines = (tmp_path / "output").read_text().splitlines()
    result, *closing = lines[-4:]
    assert re.fullmatch(rf"INTERRUPTED: {n} iterations in .* \(interrupted by {number.name}\)", result)
    go_on = "Continue: eprop-run resume=run" if way else "It cannot be continued: "
    assert closing[1].startswith(go_on)
    assert [closing[0], closing[2]] == ["Files: run", "Next: eprop-plot run"]
    assert ("Stopping after this iteration (Ctrl-C again: now)." in lines) == (number == signal.SIGINT)


def test_ctrl_c_is_heeded_while_modules_are_imported(monkeypatch):
    class Interrupted:
        def find_spec(self, *_):
            raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "eprop_cli.cli.eprop_run")
    monkeypatch.delattr("eprop_cli.cli.eprop_run")
    monkeypatch.setattr(sys, "meta_path", [Interrupted()])
    with pytest.raises(SystemExit) as ending:
        __main__.main()
    assert ending.value.code == 130


def test_an_error_before_the_run_ends_it(monkeypatch, capsys):
    """Hydra would warn of it and begin the run."""
    monkeypatch.setattr("eprop_cli.training.base.check_ready", lambda _: 1 / 0)
    with pytest.raises(SystemExit) as ending:
        RunCallback().on_run_start(compose())
    assert ending.value.code == 1
    assert capsys.readouterr().err.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero\n"),
        (OSError(28, "No space left on device", "sweep/sweep.json"),
         "eprop-run: No space left on device: sweep/sweep.json\n"),
    ],
)  # fmt: skip
def test_an_error_before_the_jobs_ends_the_multirun(monkeypatch, capsys, error, told):
    def prepare(*_):
        raise error

    monkeypatch.setattr("eprop_cli.sweeps.preparation.prepare", prepare)
    with pytest.raises(SystemExit) as ending:
        SweepCallback("stamp", None).on_multirun_start(OmegaConf.create({"hydra": {"output_subdir": ".hydra"}}))
    err = capsys.readouterr().err
    assert (ending.value.code, err[-len(told) :]) == (1, told)


@pytest.mark.parametrize("earlier", [False, True])
def test_a_multirun_that_cannot_write_leaves_nothing(monkeypatch, capsys, tmp_path, earlier):
    def write_text(path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.name == "sweep.json":
            raise OSError(28, "No space left on device", path.name)
        path.write_text(text)

    sweep = tmp_path / "sweep"
    if earlier:
        sweep.mkdir()
        (sweep / "sweep.json").write_text("{}")
    monkeypatch.setattr("eprop_cli.sweeps.record.write_text", write_text)
    monkeypatch.setattr(sys, "argv", ["eprop-run", "-m", "seed=1,2", f"hydra.sweep.dir={sweep}"])
    with pytest.raises(SystemExit) as ending:
        cli.main()
    assert ending.value.code == 1
    assert capsys.readouterr().err == "eprop-run: No space left on device: sweep.json\n"
    assert [path.name for path in tmp_path.rglob("*")] == (["sweep", "sweep.json"] if earlier else [])


def both(directory, *overrides):
    """Start the same run twice at once; exit statuses and what was printed as errors."""
    given = (*SMALL, *BARE, *COMPILED, "task.n_iter=1", *overrides)
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: run_command(*given, cwd=directory), range(2)))
    return [each.returncode for each in done], [each.stderr for each in done]


def test_runs_that_start_together_have_directories_of_their_own(tmp_path):
    assert both(tmp_path) == ([0, 0], ["", ""])
    runs = [path.parent for path in tmp_path.glob("outputs/*/*/run.json")]
    assert [n_rows(run) for run in runs] == [1, 1]


def test_of_runs_that_start_together_in_one_directory_one_is_refused(tmp_path):
    statuses, errors = both(tmp_path, "hydra.run.dir=run")
    assert sorted(statuses) == [0, 2]
    message = "eprop-run: hydra.run.dir=run: holds files already; choose another directory or remove it\n"
    assert sorted(errors) == ["", message]
    assert n_rows(tmp_path / "run") == 1


def test_of_many_that_claim_a_directory_one_gets_it(tmp_path):
    def attempt(directory):
        try:
            claim(directory)
        except ConfigError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        for name in map(str, range(50)):
            assert sum(pool.map(attempt, [tmp_path / name] * 8)) == 1


def leave_unbegun(directory, *names):
    """What a run leaves that was stopped before it began."""
    (directory / ".hydra").mkdir(parents=True)
    for name in (".reserve", "eprop-run.log", *names):
        (directory / name).touch()


def test_a_directory_whose_run_never_began_is_taken_over_by_one(tmp_path):
    leave_unbegun(tmp_path / "run")
    statuses, errors = both(tmp_path, "hydra.run.dir=run")
    assert sorted(statuses) == [0, 2]
    assert sorted(errors)[1].endswith("holds files already; choose another directory or remove it\n")
    assert n_rows(tmp_path / "run") == 1


@pytest.mark.parametrize("name", ["metrics.csv", "run.json", "notes.txt"])
def test_a_directory_that_holds_more_is_not_taken_over(tmp_path, name):
    leave_unbegun(tmp_path / "run", name)
    with pytest.raises(ConfigError, match="holds files already"):
        claim(tmp_path / "run")


class TestEarlierArguments:
    @pytest.mark.parametrize("quote", ["", "'", '"'])
    def test_name_the_config_of_the_run(self, tmp_path, quote):
        directory = write_run(tmp_path / "it's=1")
        given = ["--cfg", "job", f"resume={quote}{directory}{quote}", "task.n_iter=5", "--resolve"]
        quoted = str(directory).replace("'", "\\'")
        assert with_earlier_arguments(given) == [
            *("--config-name", RESUMED, "--cfg", "job", "hydra.output_subdir=null"),
            *(f"resume='{quoted}'", "task.n_iter=5", "--resolve"),
        ]

    @pytest.mark.parametrize("arguments", [[], ["seed=1"], ["resume=null"], ["resume="]])
    def test_are_none_without_a_directory(self, arguments):
        assert with_earlier_arguments(arguments) == arguments

    def test_another_config_is_refused(self, tmp_path):
        with pytest.raises(UserError, match="--config-name=mine: cannot be given with resume; leave it out"):
            with_earlier_arguments(["--config-name=mine", f"resume={write_run(tmp_path / 'run')}"])


def test_a_run_of_ones_own_task_is_resumed(eprop_run, tmp_path):
    shutil.copytree(ROOT / "docs" / "own_task", tmp_path, dirs_exist_ok=True)
    regression = ["task=sine_wave", "neuron.out.loss=mean_squared_error", "synapse.average_gradient=false"]
    options = ["--config-dir", "conf", *regression, *COMPILED, *BARE, "task.n_iter=1", "hydra.run.dir=run"]
    assert eprop_run(*options).returncode == 0
    refused = eprop_run("resume=run", "task.n_iter=2")
    line = "which is not ours; if you trust it, add --allow-module sine_wave"
    told = f"eprop-run: resume=run: cannot be resumed: its run.json has task.name=sine_wave:SineWave, {line}\n"
    assert (refused.returncode, refused.stdout, refused.stderr) == (2, "", told)
    done = eprop_run("--allow-module", "sine_wave", "resume=run", "task.n_iter=2")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "Resuming after iteration 1"
    assert n_rows(tmp_path / "run") == 2
    again = eprop_run("resume=run", "task.n_iter=2")  # it is remembered here
    assert (again.returncode, again.stderr) == (0, "")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert eprop_run("resume=../run", "task.n_iter=2", cwd=elsewhere).returncode == 2


@pytest.mark.slow
def test_the_wheel_brings_its_config_files(tmp_path):
    def call(*command):
        return subprocess.run([*map(str, command)], check=True, capture_output=True, text=True, cwd=tmp_path).stdout

    call(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    environment = tmp_path / "environment"
    call(sys.executable, "-m", "venv", "--without-pip", environment)
    (packages,) = environment.glob("lib/python*/site-packages")
    call(sys.executable, "-m", "pip", "--python", environment / "bin" / "python", "install", "--no-deps", wheel)
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))  # these need not be installed again
    find = "from eprop_cli.config.files import conf_dir; print(conf_dir())"
    assert call(environment / "bin" / "python", "-c", find).strip() == str(packages / "eprop_cli" / "conf")
    assert OmegaConf.create(call(environment / "bin" / "eprop-run", "--cfg", "job")) == compose()
    installed = {
        path.relative_to(packages / "eprop_cli" / "conf") for path in packages.glob("eprop_cli/conf/**/*.yaml")
    }
    assert installed == {path.relative_to(ROOT / "conf") for path in ROOT.glob("conf/**/*.yaml")}
    commit = describe_commit(ROOT)  # None where the sources are in no repository
    find = "import eprop_cli, importlib.metadata as m; print(eprop_cli.__version__, m.version('eprop-cli'))"
    assert call(environment / "bin" / "python", "-c", find).split() == [of_commit(RELEASE, commit)] * 2
    find = "from eprop_cli.versions import own_commit; print(own_commit())"
    assert call(environment / "bin" / "python", "-c", find).strip() == str(commit)


@pytest.mark.slow
def test_the_first_compiled_run_says_that_it_compiles(eprop_run, tmp_path):
    told, overrides = [], (*COMPILED, *SMALL, *BARE, "task.n_iter=1", "task.n_batch=1")
    for _ in range(2):
        done = eprop_run(*overrides, env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "kernels")})
        assert (done.returncode, done.stderr) == (0, "")
        told.append(done.stdout.count("compiling kernels (once per installation, 5 to 15 s)"))
    assert told == [1, 0]


def test_a_failed_run_points_to_its_log(eprop_run, tmp_path):
    overrides = (*COMPILED, *SMALL, *BARE, "optimizer=gradient_descent", "optimizer.eta=1e300", "optimizer.Wmax=1e308")
    done = eprop_run(*overrides, "optimizer.Wmin=-1e308", "hydra.run.dir=run")
    assert done.returncode == 1
    assert "Log: run/eprop-run.log" in done.stdout.splitlines()
    assert "Traceback" in (tmp_path / "run/eprop-run.log").read_text()
