import ast
import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "docs" / "first_steps.ipynb"


def test_the_notebook_runs(tmp_path, monkeypatch):
    """Each cell as a notebook runs it; what the last ones show is what their text promises."""
    monkeypatch.chdir(tmp_path)
    names, shown = {}, []
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        if cell["cell_type"] == "code":
            tree = ast.parse("".join(line for line in cell["source"] if not line.startswith("%")))
            last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, "cell", "exec"), names)
            if last is not None:
                shown.append(eval(compile(ast.Expression(last.value), "cell", "eval"), names))
    shutil.rmtree(names["place"])
    assert shown[0] == ("COMPLETED", 34)  # 30 batches of training, 4 of the test
    assert shown[-1] == 0.05
    assert list(tmp_path.iterdir()) == []


def test_the_notebook_has_no_outputs():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mkdocs") is None, reason="needs pip install '.[docs]'")
def test_the_site_is_built_without_a_warning(tmp_path):
    command = [ROOT / ".ci" / "docs", tmp_path / "site"]
    done = subprocess.run(
        command, env={"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "training.keep_checkpoint" in (tmp_path / "site" / "config" / "index.html").read_text()
    assert "Raises UserError" in (tmp_path / "site" / "api" / "index.html").read_text()
    shown = (tmp_path / "site" / "first_steps" / "index.html").read_text()
    assert shown.count('src="data:image/png;base64,') == 3  # the figures that its cells draw


def test_constraints_name_versions_and_no_host():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert "nest-simulator==" in "\n".join(lines)
    assert all(line.startswith("#") or line.count("==") == 1 for line in lines)
    assert not any("/" in line or "@" in line for line in lines[1:])
