"""Run the evidence-accumulation tutorial that ships in NEST's wheel, with only its numbers changed.

Usage: python benchmarks/tutorial.py NAME=VALUE ...; prints a line "phase loss" per iteration.
"""

import contextlib
import importlib.util
import re
import sys
import types
from pathlib import Path

SCRIPT = "doc/examples/pynest/eprop_plasticity/eprop_supervised_classification_evidence-accumulation_bsshslm_2020.py"


def main(settings: list[str]) -> None:
    """Execute the script with `NAME = VALUE` lines at its top level replaced."""
    found = importlib.util.find_spec("nest")
    if found is None or found.origin is None:
        sys.exit("benchmarks: nest is not installed")
    source = (Path(found.origin).parent / SCRIPT).read_text()
    for setting in settings:
        name, value = setting.split("=")
        source, n = re.subn(rf"(?m)^{re.escape(name)} = \S+", f"{name} = {value}", source)
        if n != 1:
            sys.exit(f"benchmarks: the tutorial sets {name} {n} times")
    # The script shows its schematic in notebooks; here nothing is shown.
    display = types.ModuleType("IPython.display")
    display.Image = lambda **_: None  # type: ignore[attr-defined]
    sys.modules |= {"IPython": types.ModuleType("IPython"), "IPython.display": display}
    names: dict[str, object] = {"__name__": "__main__"}
    with contextlib.suppress(SystemExit):  # how it ends without plotting
        exec(compile(source, SCRIPT, "exec"), names)
    results = names["results_dict"]
    assert isinstance(results, dict)
    for phase, loss in zip(results["label"], results["loss"], strict=True):
        print(phase, float(loss))


if __name__ == "__main__":
    main(sys.argv[1:])
