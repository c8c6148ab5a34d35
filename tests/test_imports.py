"""Imports go one way: from left to right along FLOORS, never round in a circle, and late only where that is faster.

And what is imported has one meaning: a class has a name of its own.
"""

import ast
from collections import defaultdict
from pathlib import Path

import pytest
from import_graph import arrows, circles, late_imports, modules

PACKAGE = Path(__file__).resolve().parent.parent / "eprop_cli"
FLOORS = [  # folders or modules; a file that is named is not on its folder's floor
    *(
        "cli",
        "sweeps",
        "api",
        "runs/run",
        "exports",
        "reports",
        "figures",
        "results",
        "runs",
        "loggers",
        "training",
        "engines",
        "config",
    ),
    *("objectives", "models", "optimizers", "tasks", "data", "connectivity", "timing", "losses", "phases", "values"),
    *("schema", "columns", "terminal", "registry", "formats", "looks", "archives", "versions", "errors"),
]
DOORS = ("__init__", "__main__")  # of the package itself, left of everything
# Files or folders that may import inside functions, and why.
LATE = {
    "__main__.py": "Ctrl-C may come while the rest is imported",
    "cli": "--help and a refused argument answer before NumPy, pandas and Matplotlib are imported",
    "connectivity/file.py": "SciPy takes a while to import; most networks have no file",
    "connectivity/mask.py": "SciPy takes a while to import; it is for large networks and what is read from them",
    "figures/weights.py": "SciPy takes a while to import; it is for networks too large to be drawn as they are",
    "config/groups.py": "Matplotlib takes a while to import; only a font of one's own takes it to check a config",
    "config/files.py": "an argument that is refused is not kept waiting for YAML, unless keys are to be named",
    "data": "what a data set is read with takes a while to import, or may not be installed",
    "engines/cuda/device.py": "these come with a device only, or not in Numba's simulator",
    "engines/nest/kernel.py": "NEST takes a second to import and prints a banner",
    "engines/nest/workers.py": "loky and Dask are imported when there are workers; Dask may not be installed",
    "figures/__init__.py": "a variable that keeps Matplotlib from being imported is put aside meanwhile",
    "figures/comparison.py": "Matplotlib takes a while to import; a table needs none of it",
    "reports": "pandas, Rich, Jinja and Matplotlib take a while to import",
    "loggers": "what they tell may not be installed",
    "runs/files.py": "PyArrow takes a while to import; a run that records nothing needs none of it",
    "runs/progress.py": "Rich takes a while to import; where nobody looks there is no progress bar",
    "runs/reader.py": "pandas and PyArrow take a while to import; what became of a run can be read without",
    "__init__.py": "what Python users ask for is imported when they do",
    "sweeps/__init__.py": "--help needs none of what a multirun does",
    "sweeps/callback.py": "a run alone needs none of what a multirun does",
    "sweeps/core_count.py": "joblib takes a while to import; most launchers need none of it",
    "sweeps/closing.py": "Matplotlib and pandas take a while to import; they are, when the jobs are over",
    "sweeps/preparation.py": "Optuna and submitit take a while to import, may be missing, and are seldom needed",
    "sweeps/launcher.py": "submitit takes a while to import, may be missing, and is seldom needed",
    "sweeps/fork_server.py": "the server imports what runs need; the process that starts it does without",
}
# Classes that several modules may define, and why.
SHARED = {
    "Recurrent": "a model family's keys of its recurrent neurons, under neuron.rec",
    "Readout": "a model family's keys of its readouts, under neuron.out",
    "Steps": "a task's keys under task.steps",
}


def floor(file):
    """The place along FLOORS of a file."""
    whole = str(Path(*file.parts[1:]).with_suffix(""))
    entry = file.parts[1].removesuffix(".py")
    return -1 if entry in DOORS else FLOORS.index(whole if whole in FLOORS else entry)


def homeless(package):
    """Files on no floor."""
    entries = {*FLOORS, *DOORS}
    files = modules(package).values()
    return [f"{file} has no place in FLOORS" for file in files if file.parts[1].removesuffix(".py") not in entries]


def wrong_ways(package):
    """A line for each import to the left and each circle."""
    found = [arrow for arrow in arrows(package) if arrow.source != arrow.target]
    left = [f"to the left: {arrow}" for arrow in found if floor(arrow.target) < floor(arrow.source)]
    return left + [f"circle: {'; '.join(map(str, circle))}" for circle in circles(found)]


def late(package, allowed):
    """A line for each import inside a function where it is not allowed, and for each permission that nobody uses."""
    found = late_imports(package)
    used = {entry: [file for file in found if file.is_relative_to(Path(package.name) / entry)] for entry in allowed}
    excused = {file for files in used.values() for file in files}
    lines = [f"{file}:{n} imports inside a function" for file in found if file not in excused for n in found[file]]
    return lines + [f"{entry} is allowed to import inside functions and does not" for entry in used if not used[entry]]


def shared_names(package, allowed):
    """A line for each class whose name another module has, too, and for each permission that nobody uses."""
    homes = defaultdict(set)
    for file in modules(package).values():
        for node in ast.walk(ast.parse((package.parent / file).read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].add(str(file))
    shared = {name: sorted(files) for name, files in homes.items() if len(files) > 1}
    lines = [f"{name} is in {' and '.join(files)}" for name, files in shared.items() if name not in allowed]
    return lines + [f"{name} is allowed to be in several modules and is not" for name in allowed if name not in shared]


def assert_none(lines):
    assert not lines, "\n" + "\n".join(lines)


# The package itself


def test_every_file_has_a_floor():
    assert len(modules(PACKAGE)) > 30
    assert_none(homeless(PACKAGE))


def test_imports_go_from_left_to_right():
    assert_none(wrong_ways(PACKAGE))


def test_imports_inside_functions_have_a_reason():
    assert_none(late(PACKAGE, LATE))


def test_classes_have_names_of_their_own():
    assert_none(shared_names(PACKAGE, SHARED))


# The checks, on packages made up


def test_to_the_right_is_right(package):
    files = {
        "__init__.py": "from made_up.api import run\n__version__ = '1'\n",
        "api.py": "import json\nfrom made_up import __version__\nfrom made_up.runs import run\n",
        "runs/__init__.py": "",
        "runs/run.py": "from made_up.runs.files import write\nfrom .files import read\n",
        "runs/files.py": "from made_up.errors import Error\nimport made_up_too.cli\n",
        "errors.py": "class Error(Exception): ...\n",
    }
    made = package(files)
    assert wrong_ways(made) == homeless(made) == late(made, {}) == []
    assert [str(arrow) for arrow in arrows(made)] == [
        "made_up/__init__.py:1 imports made_up/api.py",
        "made_up/api.py:3 imports made_up/runs/run.py",
        "made_up/runs/files.py:1 imports made_up/errors.py",
        "made_up/runs/run.py:1 imports made_up/runs/files.py",
        "made_up/runs/run.py:2 imports made_up/runs/files.py",
    ]


@pytest.mark.parametrize(
    "source",
    [
        "\nfrom made_up.runs.run import run\n",
        "\nimport made_up.runs.run\n",
        "\nfrom made_up.runs import run\n",
        "\nfrom ..runs import run\n",
        "def late():\n    from made_up.runs.run import run\n",
        "if TYPE_CHECKING:\n    from made_up.runs.run import run\n",
    ],
)
def test_to_the_left_is_told(package, source):
    made = package({"runs/run.py": "", "runs/__init__.py": "", "config/load.py": source})
    assert wrong_ways(made) == ["to the left: made_up/config/load.py:2 imports made_up/runs/run.py"]


def test_a_file_may_have_a_floor_of_its_own(package):
    files = {
        "runs/run.py": "from made_up.figures import draw\n",
        "figures/draw.py": "from made_up.runs import reader\n",
        "figures/__init__.py": "",
        "runs/__init__.py": "",
        "runs/reader.py": "",
    }
    assert wrong_ways(package(files)) == []
    (arrow,) = wrong_ways(package(files | {"runs/reader.py": "from made_up.figures import draw\n"}))[:1]
    assert arrow == "to the left: made_up/runs/reader.py:1 imports made_up/figures/draw.py"


def test_the_package_itself_is_left_of_everything(package):
    made = package({"__init__.py": "", "runs/run.py": "from made_up import run\n"})
    assert wrong_ways(made) == ["to the left: made_up/runs/run.py:1 imports made_up/__init__.py"]


def test_a_circle_is_told_once_and_by_its_shortest_way(package):
    made = package(
        {
            "runs/__init__.py": "from made_up.runs import a\n",
            "runs/a.py": "import made_up.runs.b\nfrom made_up.runs import c\n",
            "runs/b.py": "from made_up.runs import c\n",
            "runs/c.py": "\n\ndef f():\n    from made_up.runs import a\n",
        }
    )
    to_c, back = "made_up/runs/a.py:2 imports made_up/runs/c.py", "made_up/runs/c.py:4 imports made_up/runs/a.py"
    by_b = "made_up/runs/b.py:1 imports made_up/runs/c.py"
    assert wrong_ways(made) == [
        f"circle: {to_c}; {back}",
        f"circle: {by_b}; {back}; made_up/runs/a.py:1 imports made_up/runs/b.py",
    ]


def test_a_file_without_a_floor_is_told(package):
    made = package({"utils.py": "", "helpers/text.py": "", "errors.py": ""})
    assert homeless(made) == [
        "made_up/helpers/text.py has no place in FLOORS",
        "made_up/utils.py has no place in FLOORS",
    ]


def test_late_imports_without_a_reason_and_reasons_without_one_are_told(package):
    made = package(
        {
            "cli/run.py": "def main():\n    import numpy\n",
            "runs/run.py": "class Run:\n    def show(self):\n        def draw():\n            import numpy\n",
            "errors.py": "import json\n",
        }
    )
    assert late(made, {"cli": "start-up", "errors.py": "none"}) == [
        "made_up/runs/run.py:4 imports inside a function",
        "errors.py is allowed to import inside functions and does not",
    ]


def test_classes_of_one_name_and_reasons_without_one_are_told(package):
    made = package(
        {
            "runs/reader.py": "class Run: ...\nclass Config: ...\nclass _Own: ...\n",
            "cli/run.py": "class Run:\n    class Config: ...\nclass _Own: ...\n",
            "errors.py": "class Error(Exception): ...\nclass Run: ...\n",
        }
    )
    assert shared_names(made, {"Config": "a variant's keys", "Error": "none"}) == [
        "Run is in made_up/cli/run.py and made_up/errors.py and made_up/runs/reader.py",
        "Error is allowed to be in several modules and is not",
    ]
