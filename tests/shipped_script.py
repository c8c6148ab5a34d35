"""NEST's own regression scripts, run as they are shipped but for some numbers, in a process of their own.

python tests/shipped_script.py TASK [KEY=VALUE ...] prints the losses as JSON. Keys: those of NUMBERS.
"""

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

SCRIPTS = {
    "sine_waves": "eprop_supervised_regression_sine-waves_bsshslm_2020.py",
    "lemniscate": "eprop_supervised_regression_lemniscate_bsshslm_2020.py",
    "handwriting": "eprop_supervised_regression_handwriting_bsshslm_2020.py",
}
# key of the config -> the number in a script
NUMBERS = {
    "seed": r"(?<=^rng_seed = )\d+",
    "task.n_batch": r"(?<=^batch_size = )\d+",
    "task.n_iter": r"(?<=^n_iter = )\d+",
    "task.input_spike_prob": r"(?<=^input_spike_prob = )[\d.]+",
    "task.steps.sequence": r'(?<=^    "sequence": )\d+',
    "task.steps.data_point": r'(?<=^    "data_point": )\d+',
    "task.periods": r"(?<=^target_signal = generate_superimposed_sines\(steps\[\"sequence\"\], )\[[\d, ]+\]",
    "optimizer.eta": r'(?<="eta": )[\d.e-]+',
}
PLOTS = "# Plot results"  # the rest of a script


def losses(task, numbers):
    """Losses of a shipped script with other numbers, from another process."""
    command = [sys.executable, __file__, task, *(f"{key}={value}" for key, value in numbers.items())]
    ending = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(ending.stdout.splitlines()[-1])


def source(task, numbers):
    """A shipped script up to its plots, with other numbers."""
    text = (examples() / SCRIPTS[task]).read_text()
    text = text[: text.index(PLOTS)]
    for key, value in numbers.items():
        text, count = re.subn(NUMBERS[key], value, text, flags=re.MULTILINE)
        assert count == 1, f"{key} occurs {count} times"
    return text


def examples():
    """Where NEST's installation has its scripts on e-prop."""
    return Path(find_spec("nest").origin).parent / "doc" / "examples" / "pynest" / "eprop_plasticity"


def main(task, *numbers):
    import os

    import matplotlib as mpl

    mpl.use("Agg")
    display = ModuleType("IPython.display")
    display.Image = lambda **_: None
    sys.modules |= {"IPython": ModuleType("IPython"), "IPython.display": display}
    os.chdir(examples())  # where the word is
    names = {"__name__": "__main__"}
    exec(compile(source(task, dict(number.split("=", 1) for number in numbers)), SCRIPTS[task], "exec"), names)
    print(json.dumps([float(loss) for loss in names["loss"]]))


if __name__ == "__main__":
    main(*sys.argv[1:])
