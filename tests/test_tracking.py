"""The figure of targets and readouts, and how regressions stand in the other figures."""

import numpy as np
import pandas as pd
import pytest
from small import SMALL, config

from eprop_cli.figures.comparison import sweep_figure
from eprop_cli.figures.tracking import MOST_COLUMNS, MOST_ROWS, Tracking, tracking
from eprop_cli.runs.reader import Run
from eprop_cli.runs.run import run

NUMPY = "neuron.ad.tau_m={distribution: normal, mean: 30, std: 2, generator: numpy}"
COMPILED = ("training=data_parallel", "engine=compiled", "training.n_iter_test=0", "plots=none")
TINY = ("neuron.n_ad=10", "task.n_in=10", NUMPY, "task.n_iter=3", *COMPILED)
WORD = ("experiment=handwriting", "task.steps.data_point=1", *TINY)
EIGHT = ("experiment=lemniscate", "task.steps.sequence=100", *TINY)
SYMBOLS = {"readout": "$y_k$ (mV)"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Of the word, the figure of eight, and evidence accumulation, by name."""
    place, found = tmp_path_factory.mktemp("runs"), {}
    for name, overrides in {"word": WORD, "eight": EIGHT, "cues": (*SMALL, *COMPILED, "task.n_iter=3")}.items():
        (place / name).mkdir()
        assert run(config(*overrides), place / name).exit_status == 0
        found[name] = Run(place / name)
    return found


def table(n_out, n_steps=20):
    neuron, time = (axis.ravel() for axis in np.indices((n_out, n_steps)))
    signals = {"target_signal": np.sin(time), "readout_signal": np.cos(time)}
    return pd.DataFrame({"sequence": 0, "time": time * 1.0, "neuron": neuron, **signals})


def test_a_row_per_readout_and_plane_and_a_column_per_recorded_iteration(runs):
    ((name, figure),) = Tracking.draw(runs["word"])
    assert name == "tracking"
    axes = figure.axes
    assert len(axes) == 6
    assert [ax.get_title().splitlines()[0] for ax in axes[:2]] == ["iteration 1", "iteration 3"]
    first = runs["word"].dynamic_variables("out", "first", 0)
    target, readout = axes[0].get_lines()
    np.testing.assert_array_equal(target.get_ydata(), first.loc[first["neuron"] == 0, "target_signal"])
    np.testing.assert_array_equal(readout.get_ydata(), first.loc[first["neuron"] == 0, "readout_signal"])
    assert target.get_linewidth() > readout.get_linewidth()
    assert target.get_zorder() <= readout.get_zorder()
    assert axes[0].get_ylim() == axes[1].get_ylim()
    assert axes[0].get_xlim() == axes[3].get_xlim()


def test_the_word_is_readable(runs):
    """In the plane scales are equal, and the second coordinate grows downwards, as the script draws it."""
    ((_, figure),) = Tracking.draw(runs["word"])
    for ax in figure.axes[4:]:
        assert ax.get_aspect() == 1.0
        bottom, top = ax.get_ylim()
        assert bottom > top
        assert ax.get_xlim()[0] < ax.get_xlim()[1]


def test_without_planes_there_are_time_courses_only():
    assert len(tracking({1: table(1)}, {1: ""}, SYMBOLS, []).axes) == 1
    assert len(tracking({1: table(1)}, {1: ""}, SYMBOLS, [(0, 1)]).axes) == 1


def test_many_iterations_and_readouts_do_not_make_the_figure_grow_without_end():
    tables = {iteration: table(20) for iteration in range(1, 31)}
    axes = tracking(tables, dict.fromkeys(tables, ""), SYMBOLS, []).axes
    assert len(axes) == MOST_COLUMNS * MOST_ROWS


def test_classes_are_not_tracked(runs):
    assert not list(Tracking.draw(runs["cues"]))
    assert runs["cues"].planes == []
    assert runs["word"].planes == [(0, 1)]


def titles(figure):
    return [(ax.get_ylabel().splitlines()[0], ax.get_title(loc="right")) for ax in figure.axes]


def test_two_tasks_losses_are_never_on_one_axis(runs):
    figure = sweep_figure([runs["word"], runs["eight"]])
    assert titles(figure) == [("loss", "handwriting"), ("loss", "lemniscate"), ("nRMSE", "")]
    drawn = [[len(line.get_xdata()) for line in ax.get_lines()] for ax in figure.axes]
    assert sorted(map(tuple, drawn[:2])) == [(0, 3), (3, 0)]
    assert drawn[2] == [3, 3]
    assert titles(sweep_figure([runs["word"]])) == [("loss", ""), ("nRMSE", "")]


def test_classes_and_signals_side_by_side(runs):
    names = titles(sweep_figure([runs["cues"], runs["word"]]))
    assert sorted(names) == sorted(
        [("loss", "evidence_accumulation"), ("loss", "handwriting"), ("nRMSE", ""), ("recall error", "")]
    )


def test_a_window_that_is_all_of_the_sequence_is_not_shaded():
    from eprop_cli.figures.dynamics import dynamics

    kinds = ["learning window"]
    out = table(1).assign(V_m=0.0)
    for stop, shades in {20.0: 0, 12.0: 1}.items():
        windows = pd.DataFrame({"sequence": [0], "kind": kinds, "start": [0.0], "stop": [stop]})
        figure = dynamics({"out": out, "windows": windows}, [], {"target": "", "readout": "", "error": ""}, kinds, 1)
        assert all(len(ax.collections) == shades for ax in figure.axes)
