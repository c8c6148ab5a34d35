"""The choice of the engine, and what each needs to be installed."""

import json
import os
import subprocess
import sys

import pytest
from small import SMALL, config

from eprop_cli.engines import base
from eprop_cli.engines.base import engine_class, make_engine
from eprop_cli.engines.compiled.engine import CompiledEngine
from eprop_cli.engines.nest.engine import NestEngine
from eprop_cli.errors import ConfigError
from eprop_cli.models.base import GRADIENT, STREAM
from eprop_cli.models.bsshslm_2020 import Bsshslm2020
from eprop_cli.training.base import check_ready

PARALLEL = [*SMALL, "training=data_parallel"]


@pytest.mark.parametrize(("name", "kind"), [("nest", NestEngine), ("compiled", CompiledEngine)])
def test_engines_by_name(name, kind):
    given = config(*PARALLEL, f"engine={name}")
    check_ready(given)
    assert engine_class(given) is kind
    engine = make_engine(given)
    assert type(engine) is kind
    engine.close()


def test_what_each_provides():
    assert NestEngine.provides(Bsshslm2020) == {GRADIENT, STREAM}
    assert CompiledEngine.provides(Bsshslm2020) == {GRADIENT}


def test_cores_of_a_run():
    assert CompiledEngine.cores({"n_workers": 3}) == 3
    assert NestEngine.cores({"n_workers": 3, "local_num_threads": 2}) == 6


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nest", "needs nest, which is not installed; install nest-simulator 3.10, or use "
                 "training=data_parallel engine=compiled"),
        ("compiled", "needs numba, which is not installed; pip install '.[compiled]' in the checkout"),
    ],
)  # fmt: skip
def test_what_an_engine_lacks_is_named(name, message, monkeypatch):
    monkeypatch.setattr(base, "find_spec", lambda package: None)
    with pytest.raises(ConfigError) as error:
        check_ready(config(*PARALLEL, f"engine={name}"))
    assert str(error.value) == f"engine={name}: {message}"


def test_the_compiled_engine_runs_where_nest_cannot_be_imported(tmp_path):
    (tmp_path / "nest.py").write_text("raise ImportError('there is no NEST here')\n")
    command = [sys.executable, "-c", "from eprop_cli.cli.eprop_run import main; main()", *PARALLEL, "engine=compiled"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    ending = subprocess.run(
        [*command, "hydra.run.dir=run", "plots.dpi=40"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (ending.returncode, ending.stderr) == (0, "")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "COMPLETED"
    figures = {path.name for path in (tmp_path / "run" / "figures").iterdir()}
    assert figures == {
        "learning.png", "dynamics_iteration_1.png", "dynamics_iteration_5.png", "weight_time_courses.png",
        "weight_matrices.png",
    }  # fmt: skip
