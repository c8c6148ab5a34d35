import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from synthetic_run import write_run

from eprop_cli.cli import eprop_compare
from eprop_cli.reports import table as table_report
from eprop_cli.runs.comparison import SUMMARY, summarise
from eprop_cli.runs.reader import Run


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
    assert out[0] == f"3 runs in {folder}"
    assert out[1].split() == ["run", "seed", "eta", *SUMMARY[:5], "seconds"]
    assert out[2].split() == ["a/0", "1", "0.001", "COMPLETED", "3", "0.77", "0.77", "0.25", "1.75"]
    assert "a/1: the loss became nan" in out
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
    assert list(read.columns) == list(expected.columns)
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
    assert out[2].split()[:2] == ["0", "0.001"]
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
