import ast
import html
import json
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "docs" / "first_steps.ipynb"


has_mkdocs = find_spec("mkdocs") is not None


@pytest.mark.skipif(has_mkdocs, reason="the site's test runs it")
def test_the_notebook_runs(tmp_path, monkeypatch):
    """Each cell, without Jupyter; what the last ones show is what their text promises."""
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
@pytest.mark.skipif(not has_mkdocs, reason="needs pip install '.[docs]'")
def test_the_site_is_built_without_a_warning(tmp_path):
    command = [ROOT / ".ci" / "docs", tmp_path / "site"]
    done = subprocess.run(
        command, env={"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.parent.name: path.read_text() for path in (tmp_path / "site").rglob("index.html")}
    assert "training.keep_checkpoint" in pages["config"]
    assert "<li>directory: the run directory" in pages["api"]
    assert 'href="first_steps/"' in pages["site"]  # the README is the first page
    assert 'href="../#a-first-result"' in pages["troubleshooting"]
    assert pages["eprop_plus"].count('<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">') == 5
    assert "arithmatex" not in pages["eprop_plus"]
    assert pages["first_steps"].count('src="data:image/png;base64,') == 3  # the figures that its cells draw
    assert "('COMPLETED', 34)" in html.unescape(pages["first_steps"])  # 30 batches of training, 4 of the test
    for name, text in pages.items():
        assert [name, *re.findall(r'(?:src|href)="(https?:[^"]*\.(?:js|css|woff2?|png|svg)[^"]*)"', text)] == [name]
        assert [name, *re.findall(r"<img(?![^>]* alt=\"[^\"]+\")[^>]*>", text)] == [name]


def test_constraints_name_versions_and_no_host():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert "nest-simulator==" in "\n".join(lines)
    assert all(line.startswith("#") or line.count("==") == 1 for line in lines)
    assert not any("/" in line or "@" in line for line in lines[1:])
