"""How records and configs of older formats are read."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from eprop_cli.columns import HIGHER, LOWER, Column, rate_column
from eprop_cli.config.moved import MOVED
from eprop_cli.formats import FORMAT, check_format

# What format 1 left to be known, as it had one model family.
ENGINES: dict[str, dict[str, Any]] = {
    "nest": {"n_workers": 1, "local_num_threads": 1, "backend": "loky", "scheduler": None, "max_retries": 3},
    "compiled": {"n_workers": 1},
}
CONNECTIVITY: dict[str, Any] = {
    **dict.fromkeys(("in_rec", "rec_rec", "rec_out", "out_rec"), "dense"),
    "feedback": "random",
    "plastic": dict.fromkeys(("in_rec", "rec_rec", "rec_out"), True),
    "excitatory_fraction": {"inputs": None, "recurrent": None},
}
LABELS = {"reg": "regular", "ad": "adaptive"}
FRACTION = "fraction of sequences"
CLASSES = (
    Column("accuracy", "accuracy", FRACTION, HIGHER, 0.0, 1.0),
    Column("recall_error", "recall error", FRACTION, LOWER, 0.0, 1.0),
)
NO_CLASSES = (Column("accuracy", "accuracy"), Column("recall_error", "recall error"))  # nan throughout
LOSSES: dict[str, dict[str, Any]] = {
    "cross_entropy": {
        "label": "cross-entropy",
        "unit": "",
        "symbols": {"target": "$\\pi_k^*$", "readout": "$\\pi_k$", "error": "$\\pi_k-\\pi_k^*$"},
    },
    "mean_squared_error": {
        "label": "squared error summed over readouts",  # later ones are averaged
        "unit": "mV² steps",
        "symbols": {"target": "$y_k^*$ (mV)", "readout": "$y_k$ (mV)", "error": "$y_k-y_k^*$ (mV)"},
    },
}
OF_A_SESSION = (  # entries of run.json
    *("start", "command", "pid", "host", "machine", "slurm_job"),
    *("git_commit", "versions", "repositories", "code"),
)


def migrated(record: dict[str, Any], path: Path) -> dict[str, Any]:
    """What is in a run.json, in today's format; raises as check_format, and LookupError for an incomplete config."""
    number = record.get("format", 1)
    check_format(number, path)
    if number == FORMAT or not isinstance(record.get("config"), dict):
        return record
    config = migrated_config(record["config"])
    begun = [record.get("start"), *record.get("resumed", [])]
    # Those before the last are known by nothing but their beginning.
    sessions = [{"start": start} for start in begun[:-1]] + [session(record) | {"start": begun[-1]}]
    record = dict.fromkeys(OF_A_SESSION) | {key: value for key, value in record.items() if key != "resumed"}
    return record | {"format": FORMAT, "sessions": sessions, "config": config, "warnings": []} | _described(config)


def session(record: dict[str, Any]) -> dict[str, Any]:
    """What a record says of where, when, how and with what it was begun or resumed last."""
    return {key: record.get(key) for key in OF_A_SESSION}


def migrated_config(config: dict[str, Any]) -> dict[str, Any]:
    """A config of format 1, nested, with the keys of today."""
    config = {group: dict(keys) if isinstance(keys, dict) else keys for group, keys in config.items()}
    for old, new in MOVED.items():
        (group, key), (new_group, new_key) = old.split("."), new.split(".")
        if key in config[group]:
            config[new_group][new_key] = config[group].pop(key)
    defaults = ENGINES[config["engine"]["name"]]
    config["engine"] = {"name": config["engine"]["name"]} | {
        key: config["engine"].get(key, default) for key, default in defaults.items()
    }
    normal = {"in_rec": "normal", "rec_rec": "normal", "rec_out": "glorot_uniform", "out_rec": "standard_normal"}
    config["synapse"].setdefault("weight_distribution", normal)
    config["neuron"]["ad"] = {"adapt_beta_tau_m": None} | config["neuron"]["ad"]
    inline = config["training"]["name"] == "continuous"
    missing = {
        "stop_metric": "recall_error",
        "evaluation": "inline" if inline else "aside",
        "checkpoint_every": 10,
        "checkpoint_minutes": None,
        "keep_checkpoint": False,
    }
    config["training"] = missing | config["training"]
    looks = {"style": "default", "width": None, "font": None, "band": "range", "metric": None}
    config["plots"] = looks | config["plots"]
    config.setdefault("logger", {})
    config.setdefault("report", False)
    config.setdefault("connectivity", CONNECTIVITY)
    projections = CONNECTIVITY["plastic"]
    config["optimizer"] |= {"eta_factor": dict.fromkeys(projections, 1.0), "bounds": dict.fromkeys(projections)}
    config["recording"].setdefault("n_record_spikes", 1000)
    return config


def _described(config: dict[str, Any]) -> dict[str, Any]:
    """What a record of today says besides."""
    neuron = config["neuron"]
    loss = {"name": neuron["out"]["loss"], **LOSSES[neuron["out"]["loss"]]}
    columns = [Column("loss", loss["label"], loss["unit"], LOWER)]
    columns += CLASSES if loss["name"] == "cross_entropy" else NO_CLASSES
    columns += [rate_column(name, label) for name, label in LABELS.items()]
    sizes = {name: neuron[f"n_{name}"] for name in LABELS}
    return {
        "loss": loss,
        "columns": [asdict(column) for column in columns],
        "populations": [{"name": n, "label": LABELS[n], "size": size} for n, size in sizes.items() if size],
        "planes": [],
        "is_stream": config["training"]["name"] == "continuous",
    }
