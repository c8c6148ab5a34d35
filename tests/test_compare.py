import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from synthetic_run import batch_row, write_run

from eprop_cli.cli import eprop_compare
from eprop_cli.errors import UserError
from eprop_cli.reports import table as table_report
from eprop_cli.runs.comparison import SUMMARY, summarise
from eprop_cli.runs.reader import Run
from eprop_cli.runs.where import FORM, MISSING, parse_where


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two sweeps: a/0, a/1 and b/0, besides files that are no runs."""
    folder = tmp_path_factory.mktemp("folder")
    write_run(folder / "a" / "0", "optimizer.eta=0.001")
    write_run(folder / "a" / "1", "optimizer.eta=0.002", status="FAILED", error="the loss became nan")
    write_run(folder / "b" / "0", "optimizer.eta=0.003", "seed=2")
    (folder / "a" / "multirun.yaml").write_text("hydra: {}\n")
    return folder


@pytest.fixture
def compare(tmp_path, monkeypatch, capsys):
    """Runs eprop-compare in an empty directory; gives exit status, lines on stdout, lines on stderr."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["eprop-compare", *map(str, arguments)])
        with pytest.raises(SystemExit) as ending:
            eprop_compare.compare()
        out, err = capsys.readouterr()
        return ending.value.code, out.splitlines(), err.splitlines()

    return run


def compared(path="compare.csv"):
    """Directories in a comparison."""
    return [row["run"] for row in csv.DictReader(Path(path).read_text().splitlines())]


def test_a_folder_of_runs(folder, compare):
    status, out, err = compare(folder)
    assert (status, err) == (0, [])
    assert out[0] == f"3 runs in {folder}, 3 iterations each"
    shown = [name for name in SUMMARY if name not in ("iterations", "test_error", "error")]
    assert out[1].split() == ["#", "run", "seed", "eta", *shown]
    assert out[2].split() == ["*1", "a/0", "1", "0.001", "COMPLETED", "0.77", "0.77", "0.78", "0.25", "1.75"]
    assert "2: the loss became nan" in out
    assert f"* best by mean10_loss: 1, 0.78: {folder / 'a' / '0'}" in out
    assert out[-1] == "Files: compare.csv, compare.png"
    assert compared() == [str(folder / name) for name in ("a/0", "a/1", "b/0")]


def test_a_reader_that_has_had_enough(folder, tmp_path):
    ours, its = os.pipe()
    os.close(ours)
    code = "from eprop_cli.cli.eprop_compare import compare; compare()"
    command = [sys.executable, "-c", code, str(folder), "--dpi", "20"]
    ending = subprocess.run(command, stdout=its, stderr=subprocess.PIPE, cwd=tmp_path)
    os.close(its)
    assert (ending.returncode, ending.stderr) == (0, b"")
    assert len(compared(tmp_path / "compare.csv")) == 3
    assert (tmp_path / "compare.png").exists()


def test_the_csv_has_what_summarise_gives(folder, compare):
    compare(folder)
    read = pd.read_csv("compare.csv")
    expected = summarise([Run(path) for path in read["run"]])
    assert list(read.columns) == ["index", *expected.columns]
    assert read["index"].tolist() == [1, 2, 3]
    assert read["final_loss"].tolist() == expected["final_loss"].tolist()
    assert read["optimizer.eta"].tolist() == [0.001, 0.002, 0.003]
    assert read["error"].tolist()[1] == "the loss became nan"


def test_patterns_directories_and_repetitions(folder, compare, monkeypatch):
    compare(f"{folder}/*/0", folder / "a", folder / "a" / "0")
    assert compared() == [str(folder / name) for name in ("a/0", "b/0", "a/1")]
    monkeypatch.chdir(folder)
    compare("a/*", "--output", "../out")  # holds multirun.yaml besides runs
    assert compared("../out/compare.csv") == ["a/0", "a/1"]


def test_numbers_in_what_a_pattern_matches_are_in_their_order(folder, compare, tmp_path):
    for name in ("eta-0.1", "eta-1e-05", "eta-0.02"):
        shutil.copytree(folder / "a" / "0", tmp_path / name)
    compare(f"{tmp_path}/eta-*")
    assert compared() == [str(tmp_path / name) for name in ("eta-1e-05", "eta-0.02", "eta-0.1")]


def test_a_directory_with_brackets_in_its_name(folder, tmp_path, compare):
    run = shutil.copytree(folder / "a" / "0", tmp_path / "[1]")
    assert compare(run)[0] == 0
    assert compared() == [str(run)]


def test_output_formats_and_dpi(folder, compare, tmp_path):
    assert compare(folder, "--output", tmp_path / "x" / "y", "--formats", "pdf,svg", "--dpi", "30")[0] == 0
    assert sorted(os.listdir(tmp_path / "x" / "y")) == ["compare.csv", "compare.pdf", "compare.svg"]
    assert os.listdir() == []


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_an_earlier_comparison_is_replaced(folder, compare, kind):
    compare(folder / "a", "--formats", kind)
    before = {path: path.read_bytes() for path in Path().iterdir()}
    assert compare(folder, "--formats", kind)[0] == 0
    assert all(path.read_bytes() != content for path, content in before.items())


@pytest.mark.parametrize("name", ["compare.csv", "compare.png"])
def test_a_file_of_the_users_is_not(folder, compare, name):
    Path(name).write_text("mine\n")
    message = f"eprop-compare: {name}: was not written by eprop-compare; move it, or choose --output or --force"
    assert compare(folder) == (2, [], [message])
    assert os.listdir() == [name]
    assert Path(name).read_text() == "mine\n"
    assert compare(folder, "--force")[0] == 0


def test_a_damaged_run_does_not_keep_the_others_from_it(folder, compare, tmp_path):
    damaged = shutil.copytree(folder / "a", tmp_path / "a")
    (damaged / "1" / "metrics.csv").write_text("rubbish")
    status, out, err = compare(damaged)
    assert status == 2
    assert len(err) == 1
    assert err[0].startswith(f"eprop-compare: {damaged / '1' / 'metrics.csv'}: is damaged: ")
    assert out[2].split()[:3] == ["*1", "0", "0.001"]
    assert compared() == [str(damaged / "0"), str(damaged / "1")]


def test_runs_without_an_iteration_have_no_figure(compare, tmp_path):
    write_run(tmp_path / "run", rows=[], status="FAILED", error="no")
    status, out, _ = compare(tmp_path / "run")
    assert status == 0
    assert out[-2:] == ["No training iteration in any of them, so no figure", "Files: compare.csv"]
    assert os.listdir() == ["compare.csv"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such directory"),
        (["{folder}", "no*where"], "no*where: no such directory"),
        (["."], ".: no run directory in there (none holds a run.json)"),
        (["{folder}/a/multirun.yaml"], "{folder}/a/multirun.yaml: no run directory in there (none holds a run.json)"),
        (["{folder}", "--formats", "gif"], "--formats gif: must be one of png, pdf, svg"),
        (["{folder}", "--dpi", "many"], "argument --dpi: must be a whole number from 1; see eprop-compare --help"),
        (["{folder}", "--output", "/dev/null/x"], "/dev/null/x: cannot be made: Not a directory"),
        (["{folder}", "--where", "open('x')"], f"--where open('x'): {FORM}"),
        (["{folder}", "--where", "eta>'a'"], "--where eta>'a': 0.001 and 'a' do not compare"),
        (["{folder}", "--where", "eta>1"], "--where eta>1: no run of 3 is so"),
        (
            ["{folder}", "--where", "optimiser.eta>1"],
            "--where optimiser.eta: there is no such key, column or metric; closest: optimizer.eta",
        ),
        (
            ["{folder}", "--sort", "tau_m"],
            "--sort tau_m: which of neuron.out.tau_m, neuron.rec.tau_m, neuron.reg.tau_m, neuron.ad.tau_m?",
        ),
        (
            ["{folder}", "--metric", "nrmse"],
            "--metric nrmse: must be a metric (loss, accuracy, recall_error, rate_reg, rate_ad), or val_, test_, "
            "best_, mean10_ or median5_ of one",
        ),
        (["{folder}", "--width", "20"], "--width 20: must be from 80 to 1000 mm"),
        (["{folder}", "--colour"], "unrecognized arguments: --colour; see eprop-compare --help"),
    ],
)
def test_bad_input_is_told_in_one_line(folder, compare, arguments, message):
    arguments = [argument.format(folder=folder) for argument in arguments]
    assert compare(*arguments) == (2, [], [f"eprop-compare: {message.format(folder=folder)}"])


def test_columns_that_do_not_fit_go_into_a_second_part():
    table = pd.DataFrame(
        {"run": ["a", "b"], "eta": ["0.001", "0.002"], "status": ["COMPLETED", "FAILED"], "loss": ["1", "2"]}
    )
    assert table_report._parts(table, 80) == [["run", "eta", "status", "loss"]]
    assert table_report._parts(table, 24) == [["run", "eta", "status"], ["run", "loss"]]
    assert table_report._parts(table, 22) == [["run", "eta", "status"], ["run", "loss"]]  # nothing follows the last
    assert table_report._parts(table, 3) == [["run", "eta"], ["run", "status"], ["run", "loss"]]


@pytest.mark.parametrize("command", ["plot", "compare"])
def test_help_has_examples_and_is_quick(command):
    code = (
        f"import sys; from eprop_cli.cli.eprop_{command} import {command};"
        f"sys.argv = ['eprop-{command}', '--help']; {command}()"
    )
    ending = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=True
    )
    assert f"  eprop-{command} outputs/" in ending.stdout
    loaded = {line.split("|")[-1].strip() for line in ending.stderr.splitlines()}
    assert not loaded & {"numpy", "pandas", "pyarrow", "matplotlib", "omegaconf", "rich", "nest"}


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """Two learning rates with seeds 1, 2, 3: last losses 0.40, 0.42, 0.44 and 0.50, 0.60, 0.70; a run that failed."""
    directory = tmp_path_factory.mktemp("seeds") / ("a-name-of-more-than-twenty-characters" * 3)
    for eta, losses in ((0.01, (0.40, 0.42, 0.44)), (0.001, (0.5, 0.6, 0.7))):
        for seed, loss in enumerate(losses, start=1):
            rows = [batch_row(1, "training", loss, 0.5, 0.5, 1.0, 1.0, 1.0)]
            versions = {"numpy": "2.0" if eta == 0.01 else "2.1", "pandas": str(seed)}
            place = directory / f"optimizer.eta-{eta}__seed-{seed}__and-more"
            write_run(place, f"optimizer.eta={eta}", f"seed={seed}", rows=rows, versions=versions)
    write_run(directory / "failed", "optimizer.eta=0.1", rows=[], status="FAILED", error="no", versions={})
    return directory


def test_mean_and_deviation_over_seeds_versions_and_the_best(seeds, compare):
    status, out, _ = compare(seeds, "--dpi", "20")
    assert status == 0
    lines = [line.split() for line in out]
    assert lines[1][:4] == ["#", "seed", "eta", "numpy"]  # pandas computes nothing
    at = out.index("over seeds: mean ± standard deviation")
    assert lines[at + 1 : at + 4] == [
        ["eta", "mean10_loss", "n", "best", "run"],
        ["0.001", "0.60", "±", "0.10", "3", "2"],
        ["0.01", "0.420", "±", "0.020", "3", "*5"],
    ]
    assert out[-2] == f"* best by mean10_loss: 5, 0.4: {seeds / 'optimizer.eta-0.01__seed-1__and-more'}"


def numbers(out):
    """The indices that a comparison lists, as printed with --format csv."""
    return [int(row["index"]) for row in csv.DictReader(out)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], [1, 2, 3, 4, 5, 6, 7]),
        (["--reverse"], [7, 6, 5, 4, 3, 2, 1]),
        (["--sort", "final_loss"], [5, 6, 7, 2, 3, 4, 1]),
        (["--sort", "loss", "--reverse"], [4, 3, 2, 7, 6, 5, 1]),
        (["--sort", "seed", "--where", "status=='COMPLETED'"], [2, 5, 3, 6, 4, 7]),
        (["--sort", "status", "--where", "index<3"], [2, 1]),
        (["--where", "optimizer.eta>1e-3 and not status in ('FAILED',) and seed!=2"], [5, 7]),
        (["--where", "1e-3<=eta<0.05 and (final_loss<0.41 or mean10_loss>=0.7)"], [4, 5]),
        (["--where", "versions.numpy=='2.1'"], [2, 3, 4]),
        (["--where", "test_loss>0 or error=='no'"], [1]),  # there was no test
        (["--where", "'learning' in plots.figures and resume is null and not report"], [1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_sorted_and_filtered_runs_keep_their_numbers(seeds, compare, options, expected):
    status, out, err = compare(seeds, "--dpi", "20", "--format", "csv", *options)
    assert (status, err) == (0, [])
    assert numbers(out) == expected
    assert Path("compare.csv").read_text().splitlines() == out


def test_markdown(seeds, compare):
    _, out, _ = compare(seeds, "--dpi", "20", "--format", "markdown", "--where", "eta==0.01", "--metric", "accuracy")
    assert out == [
        "| # | seed | final_loss | best_loss | mean10_loss | accuracy | seconds |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| **5** | 1 | 0.4 | 0.4 | 0.4 | 0.5 | 1.75 |",
        "| 6 | 2 | 0.42 | 0.42 | 0.42 | 0.5 | 1.75 |",
        "| 7 | 3 | 0.44 | 0.44 | 0.44 | 0.5 | 1.75 |",
        "",
        "Over seeds, mean ± standard deviation:",
        "",
        "| accuracy | n | best run |",
        "| ---: | ---: | ---: |",
        "| 0.5 ± 0 | 3 | **5** |",
        "",
        f"Best by accuracy: 5, 0.5: {seeds / 'optimizer.eta-0.01__seed-1__and-more'}",
    ]


@pytest.mark.parametrize(
    "text",
    ["f(1)==1", "a[0]==1", "a+1>2", "lambda: 1", "1", "'x'", "(a:=1)", "f'{a}'==1", "[x for x in y]", "a=1", "a in 3",
     "", "a==(1,(2,))", "-'a'<x", "a.b().c>1", "a>1;b", "not " * 99 + "a", "(" * 999, "a==" + "1" * 5000],
)  # fmt: skip
def test_what_is_no_condition_is_refused(text):
    with pytest.raises(UserError, match="must compare keys with values"):
        parse_where(text)


def test_what_a_run_does_not_have_compares_with_nothing():
    has = {"a": 1, "none": None}
    cases = {
        "a==1 and b==1": False,
        "a==1 or b==1": True,
        "not b>1": True,
        "none>1": False,
        "none==null": True,
        "b": False,
    }
    assert {text: parse_where(text).holds(lambda name: has.get(name, MISSING)) for text in cases} == cases
