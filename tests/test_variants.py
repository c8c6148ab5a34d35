"""A variant is known by its own files and its registry: no other file says its name or imports it."""

import ast
from pathlib import Path

import pytest
import yaml
from import_graph import arrows, modules

from eprop_cli.losses import LOSSES

ROOT = Path(__file__).resolve().parent.parent
# Group of conf/ -> folder or module of the package in which its variants are, each in a file or folder of its name.
# The folder's __init__.py, or the module, is the registry.
GROUPS = {
    "task": "tasks",
    "neuron": "models",
    "synapse": "models",
    "optimizer": "optimizers",
    "training": "training",
    "engine": "engines",
    "connectivity": "connectivity",
    "loss": "losses",
}


def variants(conf):
    """(home, name) of each variant that has a file in conf/; home is the folder in the package."""
    files = [(home, file) for group, home in GROUPS.items() for file in sorted(conf.glob(f"{group}/*.yaml"))]
    named = {(home, (yaml.safe_load(file.read_text()) or {}).get("name")) for home, file in files}
    return {(home, name) for home, name in named if isinstance(name, str)}


def mentions(package, known):
    """A line for each place outside a variant's files and registry that says its name or imports its files."""
    lines = []
    for file in modules(package).values():
        foreign = {name: home for home, name in known if not _may_name(file, home, name)}
        for node in ast.walk(ast.parse((package.parent / file).read_text())):
            if isinstance(node, ast.Constant) and node.value in foreign:
                lines.append(f"{file}:{node.lineno} says {node.value!r}, a variant of {foreign[node.value]}")
    imports = [
        (arrow, f"{home}, {name}")
        for arrow in arrows(package)
        for home, name in known
        if _belongs(arrow.target, home, name) and not _may_name(arrow.source, home, name)
    ]
    return lines + [f"{arrow}, a variant's file ({variant})" for arrow, variant in imports]


def _belongs(file, home, name):
    """Whether a file is one of the variant's own: home/name.py or below home/name/."""
    return file.with_suffix("").parts[1:3] == (home, name)


def _may_name(file, home, name):
    registry = file.parts[1:] in ((home, "__init__.py"), (f"{home}.py",))
    return registry or _belongs(file, home, name)


# The package itself


def test_variants_are_found():
    found = variants(ROOT / "conf")
    assert len(found) >= 8
    assert {("engines", "nest"), ("training", "continuous"), ("optimizers", "adam")} <= found


@pytest.mark.xfail(strict=False, reason="what tells variants apart is moving to the variants' own files")
def test_no_other_file_knows_a_variant():
    lines = mentions(ROOT / "eprop_cli", variants(ROOT / "conf") | {("losses", name) for name in LOSSES})
    assert not lines, "\n" + "\n".join(lines)


# The check, on packages made up

KNOWN = {("engines", "quick"), ("engines", "slow"), ("losses", "hinge")}


def test_its_own_files_the_registry_and_words_may_name_a_variant(package):
    files = {
        "engines/__init__.py": "from made_up.engines.quick.engine import Quick\nENGINES = {'quick': Quick}\n",
        "engines/quick/engine.py": "from made_up.engines.quick.kernels import run\nname = 'quick'\n",
        "engines/quick/kernels.py": "'''quick'''\n",
        "losses.py": "LOSSES = {'hinge': None}\n",
        "runs/run.py": "from made_up.engines import ENGINES\nHELP = 'engine=quick'\n",
    }
    assert mentions(package(files), KNOWN) == []


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("if engine.name == 'quick':\n    pass\n", "made_up/runs/run.py:1 says 'quick', a variant of engines"),
        ("\nSIGNALS = {'hinge': 1}\n", "made_up/runs/run.py:2 says 'hinge', a variant of losses"),
        (
            "def f():\n    from made_up.engines.quick.engine import Quick\n",
            "made_up/runs/run.py:2 imports made_up/engines/quick/engine.py, a variant's file (engines, quick)",
        ),
    ],
)
def test_others_may_not(package, source, line):
    made = package({"runs/run.py": source, "engines/quick/engine.py": "", "losses.py": ""})
    assert mentions(made, KNOWN) == [line]


def test_a_variant_may_not_name_another_nor_one_of_another_group(package):
    made = package({"engines/quick/engine.py": "a = 'slow', 'hinge'\n", "losses.py": "b = 'quick'\n"})
    assert mentions(made, KNOWN) == [
        "made_up/engines/quick/engine.py:1 says 'slow', a variant of engines",
        "made_up/engines/quick/engine.py:1 says 'hinge', a variant of losses",
        "made_up/losses.py:1 says 'quick', a variant of engines",
    ]


def test_names_are_those_in_the_files(tmp_path):
    contents = {
        "engine/quick": "name: quick\n",
        "engine/other": "name: slow\n",
        "task/none": "",
        "plots/p": "name: p\n",
    }
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text(content)
    assert variants(tmp_path) == {("engines", "quick"), ("engines", "slow")}
