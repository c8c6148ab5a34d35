"""The scripts on e-prop that NEST's installation brings, run as they are but for some numbers, in a process of its own.

python -m eprop_cli.engines.nest.shipped DIRECTORY NAME [KEY=VALUE ...] runs one in a directory, which must exist, and
prints phase and loss of each batch as JSON. Keys: those of NUMBERS.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from eprop_cli.errors import TrainingError, UserError

PREFIX = "eprop_supervised_"  # of the files' names
EXPERIMENTS = {  # script -> conf/experiment/NAME.yaml, which has its numbers
    "classification_evidence-accumulation_bsshslm_2020": "tutorial_3_10",
    "classification_neuromorphic_mnist": "neuromorphic_mnist",
    "regression_handwriting_bsshslm_2020": "handwriting",
    "regression_lemniscate_bsshslm_2020": "lemniscate",
    "regression_sine-waves": "sine_waves_eprop_iaf",
    "regression_sine-waves_bsshslm_2020": "sine_waves",
}
DATA = {"classification_neuromorphic_mnist": "468j46mzdv-1"}  # the folder of a data set, beside the script
# key of the config -> the number in a script
NUMBERS = {
    "seed": r"(?<=^rng_seed = )\d+",
    "task.n_batch": r"(?:(?<=^batch_size = )|(?<=^group_size = ))\d+",
    "task.n_iter": r"(?:(?<=^n_iter = )|(?<=^n_iter_train = ))\d+",
    "task.input_spike_prob": r"(?<=^input_spike_prob = )[\d.]+",
    "task.steps.sequence": r'(?<=^    "sequence": )\d+',
    "task.steps.data_point": r'(?<=^    "data_point": )\d+',
    "task.periods": r"(?<=^target_signal = generate_superimposed_sines\(steps\[\"sequence\"\], )\[[\d, ]+\]",
    "optimizer.eta": r'(?<="eta": )[\d.e-]+',
    "training.do_early_stopping": r"(?<=^do_early_stopping = )\w+",
    "training.n_iter_validate_every": r"(?<=^n_iter_validate_every = )\d+",
    "training.n_iter_early_stop": r"(?<=^n_iter_early_stop = )\d+",
    "training.n_iter_test": r"(?<=^n_iter_test = )\d+",
    "training.stop_crit": r"(?<=^stop_crit = )[\d.]+",
}
PLOTS = "# Plot results"  # the rest of a script

Losses = list[tuple[str, float]]  # phase and loss of each batch


def find_script(name: str) -> str:
    """The name of a script among EXPERIMENTS, from it, its file's or its experiment's name; raises UserError."""
    found = name.removesuffix(".py").removeprefix(PREFIX)
    found = next((script for script, experiment in EXPERIMENTS.items() if experiment == found), found)
    if found not in EXPERIMENTS:
        raise UserError(f"--script {name}: must be one of {', '.join(EXPERIMENTS)}")
    return found


def losses(name: str, numbers: Mapping[str, Any], directory: Path) -> Losses:
    """Run a script in a directory that nothing else is in.

    numbers: as for source(). Raises TrainingError if the script fails.
    """
    command = [sys.executable, "-m", __name__, str(directory), name]
    command += [f"{key}={value}" for key, value in numbers.items()]
    environment = os.environ | {"MPLBACKEND": "agg", "PYNEST_QUIET": "1"}
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment)
    if done.returncode:
        why = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise TrainingError(f"NEST's script failed: {why}")
    return [(phase, loss) for phase, loss in json.loads(done.stdout.splitlines()[-1])]


def main(arguments: Sequence[str]) -> None:
    """Run a script and print its losses."""
    directory, name, *settings = arguments
    text = source(name, dict(setting.split("=", 1) for setting in settings))
    for path in _examples().glob("*.txt"):  # that scripts open in the working directory
        shutil.copy(path, directory)
    os.chdir(directory)
    display = ModuleType("IPython.display")
    display.Image = lambda **_: None  # type: ignore[attr-defined]  # they show pictures in notebooks
    sys.modules |= {"IPython": ModuleType("IPython"), "IPython.display": display}
    sys.modules.setdefault("requests", ModuleType("requests"))  # with which data would be downloaded; they are there
    names: dict[str, Any] = {"__name__": "__main__", "__file__": str(_examples() / f"{PREFIX}{name}.py")}
    with contextlib.suppress(SystemExit):
        exec(compile(text, name, "exec"), names)
    print(json.dumps(list(_found(names))))


def _found(names: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    """Phase and loss of each batch, of the variables that a script leaves."""
    if "results_dict" in names:
        results = names["results_dict"]
        return ((str(phase), float(loss)) for phase, loss in zip(results["label"], results["loss"], strict=True))
    return (("training", float(loss)) for loss in names["loss"])


def source(name: str, numbers: Mapping[str, Any]) -> str:
    """A script up to its plots, with other numbers, by keys of NUMBERS.

    Raises UserError for a key that the script has no number of, and where NEST came without its scripts.
    """
    text = (_examples() / f"{PREFIX}{name}.py").read_text()
    text = text[: text.index(PLOTS)]
    for key, value in numbers.items():
        if key not in NUMBERS:
            raise UserError(f"{key}={value}: is not changed in a script; what is: {', '.join(NUMBERS)}")
        text, count = re.subn(NUMBERS[key], _as_python(value), text, flags=re.MULTILINE)
        if count != 1:
            raise UserError(f"{key}={value}: {name} has no such number")
    return text


def _as_python(value: Any) -> str:
    return {"true": "True", "false": "False"}.get(str(value), str(value))


def _examples() -> Path:
    """Where NEST's installation has its scripts on e-prop."""
    spec = find_spec("nest")
    place = Path(spec.origin if spec is not None and spec.origin is not None else "nest").parent
    found = place / "doc" / "examples" / "pynest" / "eprop_plasticity"
    if not found.is_dir():
        raise UserError(f"{found}: NEST is not installed with its scripts; install nest-simulator 3.10")
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
