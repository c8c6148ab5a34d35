"""The number of the files' format, and how records of older ones are read."""

from dataclasses import asdict
from typing import Any

from eprop_cli.columns import HIGHER, LOWER, Column, rate_column
from eprop_cli.config.moved import MOVED

FORMAT = 2  # of run.json, checkpoint.npz and weights.npz

# What format 1 left to be known, as it had one model family.
ENGINES: dict[str, dict[str, Any]] = {
    "nest": {"n_workers": 1, "local_num_threads": 1, "backend": "loky", "scheduler": None, "max_retries": 3},
    "compiled": {"n_workers": 1},
}
LABELS = {"reg": "regular", "ad": "adaptive"}
FRACTION = "fraction of sequences"
ERRORS = (
    Column("accuracy", "accuracy", FRACTION, HIGHER, 0.0, 1.0),
    Column("recall_error", "recall error", FRACTION, LOWER, 0.0, 1.0),
)
LOSSES: dict[str, dict[str, Any]] = {
    "cross_entropy": {
        "label": "cross-entropy",
        "unit": "",
        "symbols": {"target": "$\\pi_k^*$", "readout": "$\\pi_k$", "error": "$\\pi_k-\\pi_k^*$"},
    },
    "mean_squared_error": {
        "label": "squared error",
        "unit": "mV² steps",
        "symbols": {"target": "$y_k^*$ (mV)", "readout": "$y_k$ (mV)", "error": "$y_k-y_k^*$ (mV)"},
    },
}


def migrated(record: dict[str, Any]) -> dict[str, Any]:
    """A record in today's format; raises ValueError for one of a newer version of eprop-cli."""
    number = record.get("format", 1)
    check_format(number)
    if number == FORMAT or not isinstance(record.get("config"), dict):
        return record
    config = migrated_config(record["config"])
    return record | {"format": FORMAT, "config": config} | _described(config)


def check_format(number: Any) -> None:
    """Raise ValueError for the format of a newer version of eprop-cli."""
    if not isinstance(number, int) or not 1 <= number <= FORMAT:
        raise ValueError(f"its format is {number}, and this version of eprop-cli reads up to {FORMAT}; update it")


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
    missing = {"stop_metric": "recall_error", "evaluation": "inline" if inline else "aside", "checkpoint_every": 10}
    config["training"] = missing | config["training"]
    return config


def _described(config: dict[str, Any]) -> dict[str, Any]:
    """What a record of today says besides."""
    neuron = config["neuron"]
    loss = {"name": neuron["out"]["loss"], **LOSSES[neuron["out"]["loss"]]}
    columns = [Column("loss", loss["label"], loss["unit"], LOWER), *ERRORS]
    columns += [rate_column(name, label) for name, label in LABELS.items()]
    sizes = {name: neuron[f"n_{name}"] for name in LABELS}
    return {
        "loss": loss,
        "columns": [asdict(column) for column in columns],
        "populations": [{"name": n, "label": LABELS[n], "size": size} for n, size in sizes.items() if size],
        "is_stream": config["training"]["name"] == "continuous",
    }
