"""Commands in tests are forked, end as real ones do, and are real ones where imports would read something else."""

import os
import signal
import subprocess

import pytest
from forked import Forked, run_command, start_command

OVERRIDES = ("--cfg", "job", "task.n_iter=7")


@pytest.mark.parametrize("environment", [{}, {"COLUMNS": "70"}])
def test_a_command_is_forked(environment):
    process = start_command("--version", stdout=subprocess.DEVNULL, stderr=1, env=os.environ | environment)
    assert isinstance(process, Forked)
    assert process.wait(60) == 0
    assert process.poll() == 0


def test_with_other_variables_it_is_real_and_prints_the_same():
    other = os.environ | {"MPLBACKEND": "agg", "MPLCONFIGDIR": "/nowhere"}
    process = start_command("--version", stdout=subprocess.DEVNULL, stderr=1, env=other)
    assert isinstance(process, subprocess.Popen)
    assert process.wait(60) == 0
    forked, real = run_command(*OVERRIDES), run_command(*OVERRIDES, env=other)
    assert (forked.returncode, forked.stdout, forked.stderr) == (real.returncode, real.stdout, real.stderr)


def test_it_ends_with_the_status_of_a_process(tmp_path):
    refused = run_command("task.n_itr=7", cwd=tmp_path)
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    process = start_command("task.n_iter=100000", stdout=subprocess.DEVNULL, stderr=1, cwd=tmp_path)
    process.kill()
    assert process.wait(60) == -signal.SIGKILL


def test_one_that_takes_too_long_is_ended(tmp_path):
    with pytest.raises(subprocess.TimeoutExpired):
        run_command("task.n_iter=100000", "recording=none", "plots=none", cwd=tmp_path, timeout=0.01)
