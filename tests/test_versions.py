"""Versions and commits, whatever there is of git and NEST."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
from forked import EPROP_RUN
from small import config

from eprop_cli.engines.nest.engine import NestEngine
from eprop_cli.errors import ConfigError
from eprop_cli.versions import describe_commit, installed_packages, nest_version, of_commit

COMMIT = "30c0822ebdc94af4c4632b100f3518e093c4fc0f"


@pytest.mark.parametrize(
    ("commit", "version"),
    [(None, "0.2.0"), (COMMIT, "0.2.0+g30c0822eb"), (f"{COMMIT}-dirty", "0.2.0+g30c0822eb.dirty")],
)
def test_a_version_says_its_commit(commit, version):
    assert of_commit("0.2.0", commit) == version


def test_where_there_is_no_repository_there_is_no_commit(tmp_path, capfd, monkeypatch):
    assert describe_commit(tmp_path) is None
    assert describe_commit(tmp_path / "nowhere") is None
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    assert describe_commit(tmp_path) is None  # nothing is committed
    (tmp_path / "git").write_text("#!/bin/sh\necho gibberish\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert describe_commit(tmp_path) is None
    assert capfd.readouterr() == ("", "")


def test_packages_are_listed_once_as_pip_takes_them():
    names = [line.partition("==")[0] for line in installed_packages()]
    assert {"numpy", "hydra-core", "pytest"} <= set(names)
    assert "eprop-cli" not in names
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("version", "fits"), [("3.10.0", True), ("3.10.1-rc1", True), ("3.11.0", False), ("3.1", False)]
)
def test_nest_says_its_version_which_must_be_that_of_the_models(version, fits, monkeypatch):
    monkeypatch.setitem(sys.modules, "nest", SimpleNamespace(__version__=version, __spec__=True))
    assert nest_version() == version
    if fits:
        NestEngine.check_possible(config())
    else:
        with pytest.raises(ConfigError, match=rf"^engine=nest: needs NEST 3\.10, found {version}; install nest-sim"):
            NestEngine.check_possible(config())


def test_another_nest_is_refused_when_a_run_begins(tmp_path, monkeypatch):
    (tmp_path / "built" / "nest").mkdir(parents=True)
    (tmp_path / "built" / "nest" / "__init__.py").write_text("__version__ = '3.11.0'\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "built"))
    done = subprocess.run([EPROP_RUN], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("eprop-run: engine=nest: needs NEST 3.10, found 3.11.0; ")
    assert [path.name for path in tmp_path.iterdir()] == ["built"]
    line = subprocess.run([EPROP_RUN, "--version"], capture_output=True, text=True, check=True).stdout
    assert "(NEST 3.11.0, " in line
