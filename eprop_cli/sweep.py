"""Many run directories -> one table, one figure."""

import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eprop_cli.config import conf_dir, flatten
from eprop_cli.errors import UserError
from eprop_cli.results import Run
from eprop_cli.training.base import TEST, TRAINING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KILLED, UNREADABLE = "KILLED", "UNREADABLE"  # statuses of runs that cannot say so themselves
# what summarise() says of a run besides its config
SUMMARY = ("status", "iterations", "final_loss", "best_loss", "accuracy", "test_error", "seconds", "error")
SEED = "seed"
NO_PARAMETERS = ("resume", "objective", "plots")  # keys and groups that do not change what a run computes
MAX_LABELS, MAX_LABEL = 24, 66  # in a legend: entries, and characters of one that fit into a figure
MAX_VALUE = 40  # characters
MAX_FILLED = 3  # bands
MAX_TICKS = 36  # characters that fit below a heat map side by side
UNIT = re.compile(r"^ *(?P<key>\w+):[^#\n]*# (?P<unit>ms|mV|pA|pF|spikes/s)\b", re.MULTILINE)  # in conf/


@dataclass(frozen=True)
class Opened:
    """What a comparison needs of a run.

    config: {"group.key": value}. referring: keys that only follow other keys. error: also what could not be read.
    """

    run: Run
    record: Mapping[str, Any]
    config: Mapping[str, Any]
    referring: frozenset[str]
    metrics: pd.DataFrame
    error: str | None

    @property
    def training(self) -> pd.DataFrame:
        """Rows of the training phase."""
        return self.metrics[self.metrics["phase"] == TRAINING]


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seed, and their values of the keys in which others differ."""

    values: tuple[Any, ...]
    members: list[Opened]

    def curve(self, column: str) -> pd.DataFrame:
        """Columns mean, low and high of a metric, by training iteration, over the runs that got there."""
        series = [each.training.groupby("iteration")[column].last() for each in self.members]
        table = pd.concat(series, axis=1)
        return pd.DataFrame({"mean": table.mean(axis=1), "low": table.min(axis=1), "high": table.max(axis=1)})

    @property
    def final_loss(self) -> float:
        """Mean of the runs' losses in their last training iterations."""
        return float(np.mean([each.training["loss"].iloc[-1] for each in self.members]))


def summarise(runs: Sequence[Run]) -> pd.DataFrame:
    """One row per run.

    Columns: run (its directory), the config keys in which the runs that have them differ, and SUMMARY. Keys that only
    follow others (references in conf/) are left out, as are NO_PARAMETERS. final_loss, best_loss and accuracy are of
    training batches, test_error is the mean recall error of the test phase. A run that cannot be read has a row with
    its error.
    What a run does not have is nan.
    """
    opened = [_open(run) for run in runs]
    columns: dict[str, Any] = {"run": [str(each.run.directory) for each in opened]}
    for key in _differing(opened):
        columns[key] = pd.Series([each.config.get(key, math.nan) for each in opened], dtype=object)
    rows = [_summary(each) for each in opened]
    columns |= {name: [row[name] for row in rows] for name in SUMMARY}
    columns["error"] = pd.Series(columns["error"], dtype=object)
    return pd.DataFrame(columns).astype({"iterations": "Int64"})


def sweep_figure(runs: Sequence[Run]) -> "Figure":
    """Loss and recall error over training iterations, a line per run, and a heat map if two keys were swept.

    Runs that differ only in their seed become one line, their mean, in a band from their lowest to their highest; of
    runs that do not even differ in that, the latest counts. Runs without training iterations are left out.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    from eprop_cli.plots import LABEL_ROW, STYLE

    opened = [each for each in map(_open, runs) if len(each.training)]
    keys = [key for key in _differing(opened) if key != SEED]
    groups = _groups(opened, keys)
    labels = _labels(groups, keys)
    panels = ["loss"] + ["recall_error"] * any(each.training["recall_error"].notna().any() for each in opened)
    grid = _is_grid(groups)
    width = 11.0 if grid else 6.4
    per_row = max(1, int(width * 13 / (max(map(len, labels), default=0) + 8)))
    rows = math.ceil(min(len(groups), MAX_LABELS) / per_row)
    with style.context(STYLE):
        figure = Figure(figsize=(width, 1.2 + 1.8 * len(panels) + LABEL_ROW * rows), layout="constrained")
        parts: Any = figure.subfigures(1, 2, width_ratios=[3, 2]) if grid else (figure, None)
        left, right = parts
        axes = left.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for ax, column in zip(axes, panels, strict=True):
            _draw_curves(ax, groups, column)
        axes[-1].set_xlabel("training iteration")
        left.align_ylabels(axes)
        if any(labels):
            notes = ["lines: means, bands: from lowest to highest"] * any(len(group.members) > 1 for group in groups)
            notes += [f"the first {MAX_LABELS} of {len(labels)} are listed"] * (len(labels) > MAX_LABELS)
            shown = axes[0].get_lines()[:MAX_LABELS]
            place: dict[str, Any] = {"loc": "outside lower center", "ncols": per_row}
            figure.legend(shown, labels[:MAX_LABELS], title="; ".join(notes) or None, title_fontsize="medium", **place)
        if right is not None:
            _draw_grid(right.subplots(), groups, keys)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # were it to go on settling, one saving would differ from the next
    return figure


def spelling(value: Any) -> str:
    """A config value as on the command line."""
    return json.dumps(value) if value is None or isinstance(value, bool | list | dict) else str(value)


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """For each key its last part, where that says enough and tells it from the others."""
    last = [key.rsplit(".", 1)[-1] for key in keys]
    clear = {key: name != "name" and last.count(name) == 1 for key, name in zip(keys, last, strict=True)}
    return {key: name if clear[key] else key for key, name in zip(keys, last, strict=True)}


def places(runs: Sequence[Run]) -> tuple[Path, list[str]]:
    """The deepest directory that all runs are in, and where in it each one is."""
    directories = [Path(os.path.abspath(run.directory)) for run in runs]
    top = Path(os.path.commonpath([directory.parent for directory in directories]))
    return top, [str(directory.relative_to(top)) for directory in directories]


def _open(run: Run) -> Opened:
    """Read what there is of a run."""
    record: Mapping[str, Any] = {"status": UNREADABLE}
    config: Mapping[str, Any] = {}
    metrics = pd.DataFrame({name: [] for name in ("iteration", "phase", "loss", "accuracy", "recall_error", "seconds")})
    error = None
    try:
        record = run.record
        config = flatten(run.config)
        metrics = run.metrics
        error = record.get("error")
    except UserError as problem:
        record, error = {"status": UNREADABLE}, str(problem)
    return Opened(run, record, config, _referring(run), metrics, error)


def _referring(run: Run) -> frozenset[str]:
    """Config keys that only follow others; none if Hydra's own files did not come along with the run."""
    try:
        composed = flatten(run.raw_config)
    except UserError:
        return frozenset()
    return frozenset(key for key, value in composed.items() if isinstance(value, str) and "${" in value)


def _summary(opened: Opened) -> dict[str, Any]:
    training, metrics, record = opened.training, opened.metrics, opened.record
    if record["status"] == UNREADABLE:
        return dict.fromkeys(SUMMARY, math.nan) | {"status": UNREADABLE, "iterations": None, "error": opened.error}
    test = metrics.loc[metrics["phase"] == TEST, "recall_error"]
    seconds = record.get("seconds")
    return {
        "status": KILLED if opened.run.killed else record["status"],
        "iterations": int(training["iteration"].max()) if len(training) else 0,
        "final_loss": training["loss"].iloc[-1] if len(training) else math.nan,
        "best_loss": training["loss"].min(),
        "accuracy": training["accuracy"].iloc[-1] if len(training) else math.nan,
        "test_error": test.mean(),
        "seconds": round(sum(seconds.values()) if seconds else float(metrics["seconds"].sum()), 3),
        "error": opened.error or math.nan,
    }


def _differing(opened: Sequence[Opened]) -> list[str]:
    """Config keys in which those of the runs that have them differ, in the order of the config."""
    known = [each for each in opened if each.config]
    keys = dict.fromkeys(key for each in known for key in each.config if key.split(".")[0] not in NO_PARAMETERS)
    return [
        key
        for key in keys
        if len({spelling(each.config[key]) for each in known if key in each.config}) > 1
        and not all(key in each.referring for each in known if key in each.config)
    ]


def _groups(opened: Sequence[Opened], keys: Sequence[str]) -> list[Group]:
    """Runs with the same values of the keys together, the latest of each seed, in ascending order of the values."""
    groups: dict[tuple[str, ...], Group] = {}
    latest = {_spelt(each, [*keys, SEED]): each for each in sorted(opened, key=_start)}
    for each in latest.values():
        values = tuple(each.config.get(key) for key in keys)
        groups.setdefault(_spelt(each, keys), Group(values, [])).members.append(each)
    return sorted(groups.values(), key=lambda group: tuple(map(_order, group.values)))


def _spelt(opened: Opened, keys: Sequence[str]) -> tuple[str, ...]:
    return tuple(spelling(opened.config.get(key)) for key in keys)


def _start(opened: Opened) -> str:
    return str(opened.record.get("start", ""))


def _rounded(value: Any) -> str:
    """A config value as on the command line, with few digits."""
    return format(value, ".4g") if isinstance(value, float) else spelling(value)


def _order(value: Any) -> tuple[bool, float, str]:
    """Sort key of config values: numbers by size, before everything else."""
    number = isinstance(value, int | float)
    return not number, value if number else 0.0, spelling(value)


def _units(keys: Sequence[str]) -> dict[str, str]:
    """Units of the keys that have one, as the comments in conf/ say."""
    texts = [path.read_text() for path in sorted(conf_dir().rglob("*.yaml"))]
    known = {match["key"]: match["unit"] for text in texts for match in UNIT.finditer(text)}
    return {key: known[key.rsplit(".", 1)[-1]] for key in keys if key.rsplit(".", 1)[-1] in known}


def _labels(groups: Sequence[Group], keys: Sequence[str]) -> list[str]:
    """What tells the groups from each other: their values, or where those would fill the figure, their directories."""
    names, units = short_names(keys), _units(keys)
    ends = [f" {units[key]}" if key in units else "" for key in keys]

    def label(group: Group, spell: Callable[[Any], str]) -> str:
        values = [spell(value)[:MAX_VALUE] for value in group.values]
        return ", ".join(f"{names[key]}={value}{end}" for key, value, end in zip(keys, values, ends, strict=True))

    labels = [label(group, _rounded) for group in groups]
    if len(set(labels)) < len(labels):
        labels = [label(group, spelling) for group in groups]
    if max(map(len, labels), default=0) > MAX_LABEL:
        if all(len(group.members) == 1 for group in groups):
            _, labels = places([group.members[0].run for group in groups])
        labels = _elided(labels)
    for index, group in enumerate(groups):
        if len(group.members) > 1:
            count = f"{len(group.members)} seeds"
            labels[index] = f"{labels[index]} ({count})" if labels[index] else count
    return labels


def _elided(labels: Sequence[str]) -> list[str]:
    """Labels of at most MAX_LABEL characters, the rest left out as near the middle as leaves them apart."""

    def elide(label: str, head: int) -> str:
        rest = len(label) - (MAX_LABEL - 1 - head)
        return label if len(label) <= MAX_LABEL else f"{label[:head]}…{label[rest:]}"

    heads = sorted(range(MAX_LABEL), key=lambda head: abs(head - MAX_LABEL // 2))
    choices = [[elide(label, head) for label in labels] for head in heads]
    return max(choices, key=lambda choice: len(set(choice)))  # the first of those that are equally good


def _draw_curves(ax: "Axes", groups: Sequence[Group], column: str) -> None:
    import matplotlib
    from matplotlib.ticker import MaxNLocator

    from eprop_cli.plots import DASHES, LINES, LOSS_LABELS, MANY_ROWS, RECALL_ERROR_LABEL, ROUND

    colours: Sequence[Any] = LINES
    if len(groups) > len(LINES):
        colours = list(matplotlib.colormaps["viridis"](np.linspace(0.0, 0.92, len(groups))))
    for index, group in enumerate(groups):
        colour, curve = colours[index], group.curve(column)
        marker = "." if len(curve) <= MANY_ROWS else ""
        ax.plot(curve.index, curve["mean"], marker=marker, color=colour, linestyle=DASHES[index % len(DASHES)])
        if len(group.members) > 1:
            ax.fill_between(curve.index, curve["low"], curve["high"], **_band(colour, len(groups)))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=ROUND))
    if column == "recall_error":
        ax.set_ylabel(RECALL_ERROR_LABEL)
        ax.set_ylim(-0.05, 1.05)
    else:
        losses = {each.config["neuron.out.loss"] for group in groups for each in group.members}
        ax.set_ylabel(LOSS_LABELS.get(losses.pop(), "loss") if len(losses) == 1 else "loss")


def _band(colour: Any, n_groups: int) -> dict[str, Any]:
    """Look of a band: of many the edges alone, as fillings would blend into grey."""
    if n_groups > MAX_FILLED:
        return {"facecolor": "none", "edgecolor": colour, "alpha": 0.4, "linewidth": 0.5}
    return {"color": colour, "alpha": 0.3 if n_groups == 1 else 0.15, "linewidth": 0.0}


def _is_grid(groups: Sequence[Group]) -> bool:
    """Whether two keys were swept against each other."""
    if not groups or len(groups[0].values) != 2:
        return False
    sides = [{spelling(group.values[side]) for group in groups} for side in (0, 1)]
    return min(map(len, sides)) > 1 and len(groups) > max(map(len, sides))


def _draw_grid(ax: "Axes", groups: Sequence[Group], keys: Sequence[str]) -> None:
    """Final loss over the values of two keys."""
    rows, columns = (sorted({_order(group.values[side]) for group in groups}) for side in (0, 1))
    losses = np.full((len(rows), len(columns)), np.nan)
    for group in groups:
        losses[rows.index(_order(group.values[0])), columns.index(_order(group.values[1]))] = group.final_loss
    image = ax.imshow(losses, "viridis", aspect="auto", origin="lower")
    middle = (np.nanmin(losses) + np.nanmax(losses)) / 2
    for (row, column), loss in np.ndenumerate(losses):
        if not np.isnan(loss):
            colour = "white" if loss < middle else "black"
            number = f"{loss:#.3g}".removesuffix(".")
            ax.text(column, row, number, ha="center", va="center", color=colour, fontsize="small")
    names, units = short_names(keys), _units(keys)
    labels = [f"{names[key]} ({units[key]})" if key in units else names[key] for key in keys]
    beside, below = (
        [(text if no_number else _rounded(number))[:MAX_VALUE] for no_number, number, text in side]
        for side in (rows, columns)
    )
    upright = sum(map(len, below)) > MAX_TICKS
    ax.set_yticks(range(len(rows)), beside)
    ax.set_xticks(range(len(columns)), below, rotation="vertical" if upright else "horizontal")
    ax.set_ylabel(labels[0])
    ax.set_xlabel(labels[1])
    seeds = " (mean over seeds)" if any(len(group.members) > 1 for group in groups) else ""
    ax.figure.colorbar(image, ax=ax, label=f"final training loss{seeds}")
