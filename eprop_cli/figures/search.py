"""A search in three figures: what its trials came to, which keys made the difference, and which values were good."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eprop_cli.columns import HIGHER
from eprop_cli.figures.style import BLUE, ROUND, VERMILLION, styled
from eprop_cli.runs.files import COMPLETED, PRUNED
from eprop_cli.runs.trials import DIRECTIONS, SearchRecord

MAX_CHOICES, MAX_CHOICE = 12, 16  # on an axis: names that are shown, and characters of one
PER_ROW = 3  # panels
STAR: dict[str, Any] = {"marker": "*", "s": 110, "facecolor": VERMILLION, "edgecolor": "black", "linewidth": 0.5}
STAR |= {"zorder": 5, "clip_on": False}
CROSS: dict[str, Any] = {"marker": "x", "s": 16, "color": "0.55", "linewidth": 0.8, "zorder": 2}


def search_figures(
    record: SearchRecord, importances: Mapping[str, float], labels: Mapping[str, str], objective: str
) -> dict[str, Figure]:
    """The figures by their names without ending; {} if no trial is COMPLETED.

    importances: by key, what each explains of the difference between good and bad trials, in all 1; {}: not known.
    labels: of the keys. objective: label of the objective, with its unit.
    """
    if record.best is None:
        return {}
    figures = {"search_history": history(record, objective), "search_slice": slices(record, labels, objective)}
    return figures | ({"search_importance": importance(importances, labels)} if importances else {})


@styled
def history(record: SearchRecord, objective: str) -> Figure:
    """The objective of each trial, and the best so far; of a trial that was pruned what it had come to."""
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    ax = figure.subplots()
    index, values = _values(record)
    pick = np.fmax if record.direction == DIRECTIONS[HIGHER] else np.fmin
    ax.step(index, pick.accumulate(values), where="post", color=BLUE, label="best so far", zorder=1)
    ax.scatter(index, values, s=16, color=BLUE, label="COMPLETED", zorder=3)
    _draw_pruned(ax, record, lambda trial: trial)
    assert record.best is not None
    ax.scatter([record.best], [values[index.index(record.best)]], label=f"best: trial {record.best}", **STAR)
    ax.set_xlabel("trial")
    ax.set_xlim(-0.5, len(record.trials) - 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=ROUND))
    ax.set_ylabel(objective)
    figure.legend(loc="outside upper center", ncols=4)
    return figure


@styled
def importance(importances: Mapping[str, float], labels: Mapping[str, str]) -> Figure:
    """How much of the difference between good and bad trials each key explains."""
    figure = Figure(figsize=(6.4, 0.9 + 0.3 * len(importances)), layout="constrained")
    ax = figure.subplots()
    keys = sorted(importances, key=lambda key: importances[key])
    bars = ax.barh([labels[key] for key in keys], [importances[key] for key in keys], color=BLUE, height=0.6)
    ax.bar_label(bars, fmt="%.2f", padding=3)
    ax.set_xlim(0, 1.1 * max(1e-9, *importances.values()))
    ax.set_xlabel("importance (PED-ANOVA; in all 1)")
    return figure


@styled
def slices(record: SearchRecord, labels: Mapping[str, str], objective: str) -> Figure:
    """The objective over the values of each key, the later trials the darker."""
    keys = list(record.space)
    rows, columns = math.ceil(len(keys) / PER_ROW), min(len(keys), PER_ROW)
    figure = Figure(figsize=(1.0 + 2.4 * max(columns, 2), 0.6 + 2.4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    index, values = _values(record)
    points: Any = None
    for place, key in enumerate(keys):
        ax = axes.flat[place]
        position = _position(ax, record, key)
        given = [position(trial) for trial in range(len(record.trials))]
        shown = [given[trial] for trial in index]
        points = ax.scatter(
            shown, values, s=16, c=index, cmap="viridis_r", vmin=0, vmax=max(1, len(record.trials) - 1), zorder=3
        )
        _draw_pruned(ax, record, lambda trial, given=given: given[trial])
        assert record.best is not None
        star = ax.scatter([given[record.best]], [values[index.index(record.best)]], label="best", **STAR)
        ax.set_xlabel(labels[key])
        if place % columns == 0:
            ax.set_ylabel(objective)
    for ax in axes.flat[len(keys) :]:
        ax.remove()
    left = axes.flat[: len(keys)].tolist()
    bar = figure.colorbar(points, ax=left, label="trial")
    bar.locator = MaxNLocator(integer=True, steps=ROUND)
    bar.update_ticks()
    pruned = [each for each in left[0].collections if each.get_label() == PRUNED]
    figure.legend(handles=[star, *pruned], loc="outside upper center", ncols=2)
    return figure


def _values(record: SearchRecord) -> tuple[list[int], list[float]]:
    """Numbers and objectives of the trials that are COMPLETED."""
    found = [
        (index, trial.value)
        for index, trial in enumerate(record.trials)
        if trial.status == COMPLETED and trial.value is not None
    ]
    return [index for index, _ in found], [value for _, value in found]


def _draw_pruned(ax: Axes, record: SearchRecord, position: Any) -> None:
    pruned = {
        index: trial.values[-1][1]
        for index, trial in enumerate(record.trials)
        if trial.status == PRUNED and trial.values
    }
    if pruned:
        ax.scatter([position(index) for index in pruned], list(pruned.values()), label=PRUNED, **CROSS)


def _position(ax: Axes, record: SearchRecord, key: str) -> Any:
    """Where on the axis of a key each trial is; has the axis show the key's values."""
    attributes: Mapping[str, Any] = record.space[key].get("attributes", {})
    if "choices" not in attributes:
        if attributes.get("log"):
            ax.set_xscale("log")
        return lambda trial: record.trials[trial].params[key]
    choices: Sequence[Any] = attributes["choices"]
    if len(choices) <= MAX_CHOICES:
        names = [str(choice)[:MAX_CHOICE] for choice in choices]
        upright = sum(map(len, names)) > 2 * MAX_CHOICE
        ax.set_xticks(range(len(choices)), names, rotation="vertical" if upright else "horizontal")
    ax.set_xlim(-0.5, len(choices) - 0.5)
    return lambda trial: choices.index(record.trials[trial].params[key])
