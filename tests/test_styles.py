import struct
from functools import partial

import numpy as np
import pytest
from matplotlib.text import Text
from small import BARE
from synthetic_run import batch_row, write_run

from eprop_cli.cli import eprop_plot
from eprop_cli.errors import UserError
from eprop_cli.figures import figure
from eprop_cli.figures.comparison import sweep_figure
from eprop_cli.runs.reader import Run

FIGURES = ("learning", "dynamics", "firing_rates", "weight_changes", "weight_time_courses", "weight_matrices")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Run(write_run(tmp_path_factory.mktemp("folder") / "run", "recording.n_record=3"))


@pytest.fixture
def plot(in_lines):
    """Runs eprop-plot; gives exit status, lines on stdout, lines on stderr."""
    return partial(in_lines, "eprop-plot", eprop_plot.plot)


def texts(drawn):
    return [text for text in drawn.findobj(Text) if text.get_text().strip()]


def mm(path, dpi):
    """Width of a PNG in mm."""
    return struct.unpack(">I", path.read_bytes()[16:20])[0] / dpi * 25.4


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize(
    ("style", "size", "width"),
    [
        *(("default", 8.5, None), ("default", 8.5, 80), ("paper", 7, 88), ("paper", 7, 180)),
        *(("talk", 10.5, 80), ("talk", 10.5, None)),
    ],
)
def test_letters_are_those_of_the_style_and_nothing_is_cut_off(run, name, style, size, width):
    drawn = figure(run, name, style=style, width=width)
    assert size in {text.get_fontsize() for text in texts(drawn)}
    assert {text.get_fontsize() for text in texts(drawn)} <= {size, 1.2 * size, 0.833 * size}
    if width == 180:  # room enough for any letters
        assert drawn.get_figwidth() * 25.4 == pytest.approx(width)
    drawn.set_dpi(100)
    drawn.draw_without_rendering()
    wide, high = drawn.get_size_inches() * 100
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts(drawn) if text.get_visible()]
    outside = [each for each, box in boxes if box.x0 < -1 or box.y0 < -1 or box.x1 > wide + 1 or box.y1 > high + 1]
    ticks = {label.get_text() for ax in drawn.axes for label in (*ax.get_xticklabels(), *ax.get_yticklabels())}
    assert not set(outside) - ticks - {""}


def test_from_the_command_line(run, plot, tmp_path):
    paper = ("--figures", "learning", "--style", "paper", "--width", "88", "--font", "DejaVu Serif", "--dpi", "100")
    assert plot(run.directory, *paper, "--formats", "png,svg", "--output", tmp_path)[0] == 0
    assert mm(tmp_path / "learning.png", 100) == pytest.approx(88, abs=0.3)
    assert plot(run.directory, "--figures", "learning", "--output", tmp_path / "default")[0] == 0
    assert (tmp_path / "default" / "learning.png").read_bytes() != (tmp_path / "learning.png").read_bytes()


def test_a_run_draws_in_its_style(eprop_run, tmp_path):
    compiled = ("experiment=smoke", "engine=compiled", "training=data_parallel", BARE[0], "plots.figures=[learning]")
    done = eprop_run(*compiled, "plots.style=paper", "plots.width=100", "plots.font=serif", "hydra.run.dir=run")
    assert done.returncode == 0
    assert mm(tmp_path / "run" / "figures" / "learning.png", 150) == pytest.approx(100, abs=0.3)


def test_a_matplotlibrc_is_respected_where_asked(run, monkeypatch, tmp_path):
    (tmp_path / "matplotlibrc").write_text("font.size: 13\naxes.facecolor: yellow\nbackend: agg\n")
    monkeypatch.setenv("MATPLOTLIBRC", str(tmp_path / "matplotlibrc"))
    assert 13 in {text.get_fontsize() for text in texts(figure(run, "learning", style="matplotlibrc"))}
    assert figure(run, "learning", style="matplotlibrc").axes[0].get_facecolor() == (1.0, 1.0, 0.0, 1.0)
    assert figure(run, "learning").axes[0].get_facecolor() == (1.0, 1.0, 1.0, 1.0)


def test_some_neurons_of_some_sequence(run):
    drawn = figure(run, "dynamics", sequence=1, neurons=[0, 2])
    assert any(text.get_text() == "Training iteration 3, sequence 1" for text in texts(drawn))
    (potential,) = (ax for ax in drawn.axes if "$A_j$" in ax.get_ylabel())
    table = run.dynamic_variables("ad", 3, 1)
    expected = [table.loc[table["neuron"] == neuron, "V_th_adapt"].tolist() for neuron in (0, 2)]
    assert [list(line.get_ydata()) for line in potential.get_lines()] == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--neurons", "7"], "neurons 7 were not recorded; choose from 0, 1, 2"),
        (["--neurons", "a"], "argument --neurons: must be whole numbers from 0, separated by commas"),
        (["--sequence", "2"], "has no sequence 2; choose from 0 to 1"),
        (["--width", "20"], "--width 20: must be from 80 to 1000 mm"),
        (["--font", "No Such"], "--font No Such: is not installed"),
        (["--style", "poster"], "argument --style: invalid choice: 'poster'"),
    ],
)
def test_bad_input(run, plot, tmp_path, options, message):
    status, out, err = plot(run.directory, "--figures", "dynamics", "--output", tmp_path / "out", *options)
    assert (status, out, len(err)) == (2, [], 1)
    assert message in err[0]
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("plots.style=poster", "plots.style=poster: must be one of default, paper, talk, matplotlibrc"),
        ("plots.width=20", "plots.width=20.0: must be from 80 to 1000"),
        ("plots.font=Nothing", "plots.font=Nothing: is not installed"),
    ],
)
def test_bad_keys(eprop_run, tmp_path, override, message):
    done = eprop_run("experiment=smoke", override)
    assert done.returncode == 2
    assert done.stderr.startswith(f"eprop-run: {message}")
    assert not (tmp_path / "outputs").exists()


def test_rates_of_single_neurons(run):
    drawn = figure(run, "firing_rates")
    spikes = run.spikes(3)
    counts = np.bincount(spikes.loc[spikes["population"] == "reg", "neuron"], minlength=10)
    np.testing.assert_allclose(drawn.axes[1].get_lines()[1].get_ydata(), counts / 0.4)  # two sequences of 0.2 s
    silent = [
        (np.bincount(run.spikes(i).query("population == 'reg'")["neuron"], minlength=10) == 0).sum() for i in (1, 3)
    ]
    assert drawn.axes[1].get_title("right") == f"silent: {silent[0]}, then {silent[1]}"


def test_weight_changes(run):
    drawn = figure(run, "weight_changes")
    assert drawn.axes[1].get_title("right") == "0.5 ± 0 pA, 0% unchanged"
    assert sum(patch.get_height() for patch in drawn.axes[1].patches) == 20 * 19  # no autapses


def test_no_data(tmp_path):
    bare = Run(write_run(tmp_path / "run"))
    (bare.directory / "weights.npz").unlink()
    with pytest.raises(UserError, match=r"weight_changes: not drawn, it has no data for it$"):
        figure(bare, "weight_changes")


def test_validation_and_test_in_the_figure_of_a_sweep(tmp_path):
    losses = {"training": [(1, 0.9), (2, 0.8), (3, 0.7)], "validation": [(2, 0.6)], "test": [(3, 0.5), (3, 0.3)]}
    rows = [batch_row(i, phase, loss, 0.5, 0.5, 1.0, 1.0, 0.1) for phase, each in losses.items() for i, loss in each]
    runs = [Run(write_run(tmp_path / eta, f"optimizer.eta={eta}", rows=rows)) for eta in ("0.1", "0.2")]
    drawn = sweep_figure(runs)
    found = [tuple(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in drawn.axes[0].get_lines()[:3]]
    assert found == [((1, 0.9), (2, 0.8), (3, 0.7)), ((2, 0.6),), ((3, 0.4),)]
    assert drawn.legends[0].get_title().get_text() == "squares: validation, diamonds: test"
    assert len(drawn.legends[0].get_texts()) == 2


def test_many_curves_are_running_means(tmp_path):
    rows = [batch_row(i, "training", 1.0 + i % 2, 0.5, 0.5, 1.0, 1.0, 0.1) for i in range(1, 121)]
    runs = [Run(write_run(tmp_path / str(k), f"optimizer.eta={k}", rows=rows)) for k in range(1, 8)]
    drawn = sweep_figure(runs)
    assert drawn.legends[0].get_title().get_text() == "lines are running means"
    assert drawn.axes[0].get_lines()[0].get_ydata()[60] == pytest.approx(1.5)
