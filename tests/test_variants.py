"""A variant is known by its own files and the registry: no other file says its name or imports it, without a reason."""

import ast
from pathlib import Path

import pytest
import yaml
from import_graph import arrows, modules

from eprop_cli.registry import BASES, VARIANTS

ROOT = Path(__file__).resolve().parent.parent
REGISTRY = "registry.py"
SHARED = ("losses.py",)  # files with variants and with what all of them share, for others to import
# Files that may name some variants or import their files, and why.
REASONS = {
    "runs/checkpoint.py": "what earlier formats meant cannot change",
    "cli/eprop_verify.py": "it is these that are verified",
    "cli/verify_script.py": "it is NEST's scripts that are run",
    "engines/nest/shipped.py": "it says which experiments NEST's scripts are",
    "versions.py": "NEST is asked for its version, as other packages are",
    "cli/eprop_export.py": "it is for NEST that the script is written",
    "exports/to_nest.py": "the script is training=continuous on engine=nest without eprop-cli",
    "runs/format.py": "what earlier formats meant cannot change",
    "tasks/base.py": "a task names the losses that fit it",
    "tasks/evidence_accumulation.py": "a task names the losses that fit it",
    "models/bsshslm_2020.py": "NEST's names of its losses are like ours",
    "engines/nest/engine.py": "NEST's name of its optimizer is like ours",
    "data/neuromorphic_mnist.py": "it finds a list that NEST ships, by the name of its package",
    "models/draws.py": "it is one of the generators that parameters are drawn with",
    "tasks/handwriting.py": "it finds a path that NEST ships, by the name of its package",
    "tasks/samples.py": "a task names the losses that fit it",
    "tasks/pattern.py": "a task names the losses that fit it",
    "training/base.py": "parameters may be drawn with NEST's generator, before there is an engine",
    "engines/compiled/online/network.py": "NEST's name of its optimizer is like ours",
    "engines/cuda/backward.py": "it has the compiled engine's equations and order of sums",
    "engines/cuda/engine.py": "it is the compiled engine with other kernels",
    "engines/cuda/forward.py": "it has the compiled engine's equations and order of sums",
    "engines/cuda/simulation.py": "it has the compiled engine's equations and order of sums",
    "figures/comparison.py": "curves of several runs are scaled as those of one",
}


WORDS = ("none",)  # variants whose names are said of other things, too


def variants():
    """(home, name) of each variant; home is its file or, if it has several, their folder, relative to the package."""
    found = set()
    for choices in VARIANTS.values():
        for name, place in choices.items():
            if name in WORDS:
                continue
            file = Path(*place.partition(":")[0].split(".")[1:]).with_suffix(".py")
            found.add((str(file.parent if file.parent.name == name else file), name))
    return found


def mentions(package, known, reasons=None):
    """A line for each place outside a variant's files and registry that says its name or imports its files.

    reasons: files that may, and why; one that does not, is told, too.
    """
    reasons = reasons or {}
    lines, used = [], set()
    homes = {name: home for home, name in known}
    for file in modules(package).values():
        here = str(file.relative_to(package.name))
        for node in ast.walk(ast.parse((package.parent / file).read_text())):
            name = node.value if isinstance(node, ast.Constant) else None
            if name in homes and not _may_name(here, {home for home, other in known if other == name}):
                lines.append((here, f"{file}:{node.lineno} says {name!r}, a variant in {homes[name]}"))
    for arrow in arrows(package):
        source, target = (str(file.relative_to(package.name)) for file in (arrow.source, arrow.target))
        for home in sorted({home for home, _ in known}):
            if _belongs(target, home) and target not in SHARED and not _may_name(source, {home}):
                lines.append((source, f"{arrow}, a variant's file"))
    used = {here for here, _ in lines if here in reasons}
    told = [line for here, line in lines if here not in reasons]
    return told + [f"{file} has a reason to name a variant and does not" for file in reasons if file not in used]


def _belongs(file, home):
    """Whether a file is one of a variant's own."""
    return Path(file).is_relative_to(home)


def _may_name(file, homes):
    return file == REGISTRY or any(_belongs(file, home) for home in homes)


# The package itself


def test_every_variant_has_a_file_of_its_group_in_conf():
    for group in set(VARIANTS) - {"loss", "figure", "connectivity"}:
        named = {
            (yaml.safe_load(file.read_text()) or {}).get("name") for file in (ROOT / "conf" / group).glob("*.yaml")
        }
        assert named == set(VARIANTS[group]), group


def test_every_group_has_a_base():
    assert set(BASES) == set(VARIANTS)


def test_no_other_file_knows_a_variant():
    lines = mentions(ROOT / "eprop_cli", variants(), REASONS)
    assert not lines, "\n" + "\n".join(lines)


# The check, on packages made up

KNOWN = {("engines/quick", "quick"), ("engines/slow.py", "slow"), ("losses.py", "hinge")}


def test_its_own_files_the_registry_and_words_may_name_a_variant(package):
    files = {
        "registry.py": "from made_up.engines.quick.engine import Quick\nENGINES = {'quick': Quick, 'slow': 0}\n",
        "engines/quick/engine.py": "from made_up.engines.quick.kernels import run\nname = 'quick'\n",
        "engines/quick/kernels.py": "'''quick'''\n",
        "engines/slow.py": "'slow'\n",
        "losses.py": "LOSSES = {'hinge': None}\n",
        "runs/run.py": "from made_up.losses import LOSSES\nHELP = 'engine=quick'\n",
    }
    assert mentions(package(files), KNOWN) == []


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("if engine.name == 'quick':\n    pass\n", "made_up/runs/run.py:1 says 'quick', a variant in engines/quick"),
        ("\nSIGNALS = {'hinge': 1}\n", "made_up/runs/run.py:2 says 'hinge', a variant in losses.py"),
        (
            "def f():\n    from made_up.engines.quick.engine import Quick\n",
            "made_up/runs/run.py:2 imports made_up/engines/quick/engine.py, a variant's file",
        ),
        ("import made_up.engines.slow\n", "made_up/runs/run.py:1 imports made_up/engines/slow.py, a variant's file"),
    ],
)
def test_others_may_not_without_a_reason(package, source, line):
    made = package(
        {
            "runs/run.py": source,
            "engines/quick/engine.py": "",
            "engines/__init__.py": "",
            "engines/slow.py": "",
            "losses.py": "",
        }
    )
    assert mentions(made, KNOWN) == [line]
    assert mentions(made, KNOWN, {"runs/run.py": "why not"}) == []


def test_a_reason_that_nobody_needs_is_told(package):
    made = package({"runs/run.py": ""})
    assert mentions(made, KNOWN, {"runs/run.py": "why not"}) == [
        "runs/run.py has a reason to name a variant and does not"
    ]


def test_a_variant_may_not_name_another_nor_one_of_another_group(package):
    made = package({"engines/quick/engine.py": "a = 'slow', 'hinge'\n", "losses.py": "b = 'quick'\n"})
    assert mentions(made, KNOWN) == [
        "made_up/engines/quick/engine.py:1 says 'slow', a variant in engines/slow.py",
        "made_up/engines/quick/engine.py:1 says 'hinge', a variant in losses.py",
        "made_up/losses.py:1 says 'quick', a variant in engines/quick",
    ]
