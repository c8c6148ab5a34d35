"""Keys that have moved; the old ones go on working."""

from collections.abc import Iterable

MOVED = {
    "training.n_workers": "engine.n_workers",
    "training.backend": "engine.backend",
    "training.scheduler": "engine.scheduler",
    "training.max_retries": "engine.max_retries",
    "kernel.local_num_threads": "engine.local_num_threads",
}


def with_new_names(overrides: Iterable[str]) -> list[str]:
    """Overrides in which keys that have moved have their new names."""
    renamed = []
    for override in overrides:
        key, equals, value = override.partition("=")
        new = MOVED.get(key.lstrip("+"))
        # Whether the engine has such a key or not: one that has no threads of NEST does without.
        renamed.append(f"++{new}={value}" if new and equals else override)
    return renamed


def moved_among(overrides: Iterable[str]) -> list[str]:
    """A line for each key among overrides that has moved."""
    keys = (override.partition("=")[0].lstrip("+") for override in overrides)
    return [f"{key} is now {MOVED[key]}" for key in keys if key in MOVED]
