import itertools
import os
import shutil
import subprocess
import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from synthetic_run import COLUMNS, REGRESSION, batch_row, regression_row, training_rows, write_run

from eprop_cli.cli import eprop_plot as commands
from eprop_cli.figures.draw import draw_run
from eprop_cli.figures.dynamics import dynamics
from eprop_cli.figures.learning import learning
from eprop_cli.figures.style import STYLE, save
from eprop_cli.figures.weights import weight_matrices, weight_time_courses
from eprop_cli.losses import CrossEntropy, MeanSquaredError
from eprop_cli.registry import VARIANTS
from eprop_cli.runs.reader import NeuronGroup, Projection, Run

NAMES = ["learning", "dynamics_iteration_1", "dynamics_iteration_3", "weight_time_courses", "weight_matrices"]
FIGURES = list(VARIANTS["figure"])
SIZES = {"in": 40, "reg": 10, "ad": 10}
LABELS = {"in": "input", "reg": "regular", "ad": "adaptive"}
POPULATIONS = [NeuronGroup(name, LABELS[name], size) for name, size in SIZES.items()]
SYMBOLS, VOLTS = CrossEntropy.symbols, MeanSquaredError.symbols
KINDS = ["learning window", "left cue", "recall", "right cue"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "run", "plots.dpi=40")


@pytest.fixture
def directory(written, tmp_path):
    return shutil.copytree(written, tmp_path / "copy")


def frame(rows):
    return pd.DataFrame([row.flat() for row in rows])


def labels(figure):
    return [ax.get_ylabel() for ax in figure.axes]


def legend(figure):
    return [text.get_text() for each in figure.legends for text in each.get_texts()]


def assert_legible(figure):
    """No label, tick label or title overlaps another one, and all are within the figure."""
    with style.context(STYLE):
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw_without_rendering()
    texts = [*figure.texts, *(text for each in figure.legends for text in each.get_texts())]
    for ax in figure.axes:
        texts += [ax.yaxis.label, ax.xaxis.label, ax.title, ax._left_title, ax._right_title]
        for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
            shown = [tick for tick in axis.get_major_ticks() if min(limits) <= tick.get_loc() <= max(limits)]
            texts += [text for tick in shown for text in (tick.label1, tick.label2)]
    texts = [text for text in texts if text.get_visible() and text.get_text()]
    assert len(texts) > 4
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts]
    for name, box in boxes:
        assert figure.bbox.x0 <= box.x0, name
        assert box.x1 <= figure.bbox.x1, name
        assert figure.bbox.y0 <= box.y0, name
        assert box.y1 <= figure.bbox.y1, name
    for (one, box), (other, other_box) in itertools.combinations(boxes, 2):
        assert not box.overlaps(other_box), f"{one} over {other}"


class TestLearning:
    def test_loss_and_recall_error_by_phase(self):
        rows = [batch_row(0, "validation", 0.7, 0.5, 0.5, 1.0, 1.0, 1.0), *training_rows(3)]
        rows += [batch_row(3, "test", 0.6, 0.75, 0.25, 1.0, 1.0, 1.0)] * 2
        figure = learning(frame(rows), COLUMNS)
        loss, error = figure.axes
        assert labels(figure) == ["loss\n(cross-entropy)", "recall error\n(fraction of sequences)"]
        lines = {line.get_label(): line for line in loss.get_lines()}
        assert list(lines) == ["training", "validation", "test"] == legend(figure)
        np.testing.assert_array_equal(lines["training"].get_xydata(), [[i, 0.8 - 0.01 * i] for i in (1, 2, 3)])
        np.testing.assert_array_equal(lines["test"].get_xydata(), [[3, 0.6], [3, 0.6]])
        np.testing.assert_array_equal(error.get_lines()[1].get_xydata(), [[0, 0.5]])
        looks = {(line.get_color(), line.get_marker()) for line in loss.get_lines()}
        assert len(looks) == len({marker for _, marker in looks}) == 3
        assert_legible(figure)

    def test_regression_has_no_recall_error(self):
        rows = [regression_row(i, "training", 100.0 - i, 0.5, 0.75, 1.0, 1.0, 1.0) for i in (1, 2, 3)]
        figure = learning(frame(rows), REGRESSION)
        assert labels(figure) == ["loss\n(squared error, mV² steps)", "nRMSE\n(of the target's std)"]
        assert_legible(figure)

    def test_one_row_is_a_point_at_a_whole_number(self):
        figure = learning(frame(training_rows(1)), COLUMNS)
        line = figure.axes[0].get_lines()[0]
        assert line.get_marker() == "o"
        figure.draw_without_rendering()
        assert figure.axes[1].get_xlim() == (0.0, 2.0)
        assert_legible(figure)

    def test_many_rows_are_a_line_without_markers(self):
        rows = [
            *training_rows(2000),
            *(batch_row(i, "validation", 0.7, 0.5, 0.5, 1.0, 1.0, 1.0) for i in range(0, 2000, 50)),
        ]
        training, validation = learning(frame(rows), COLUMNS).axes[0].get_lines()
        assert (training.get_marker(), validation.get_marker()) == ("", "s")
        assert len(training.get_xdata()) == 2000


def changed(written, **tables):
    return dynamics(Run(written).recording("last") | tables, POPULATIONS, SYMBOLS, KINDS, 3)


@pytest.fixture(scope="module")
def figure(written):
    return changed(written)


class TestDynamics:
    def test_fourteen_panels(self, figure):
        assert [label.replace("\n", " ") for label in labels(figure)] == [
            "spikes $z_i$ (neuron)",
            "spikes $z_j$ (neuron)",
            "membrane potential $v_j$ (mV)",
            "surrogate gradient $\\psi_j$ (1/mV)",
            "learning signal $L_j$ (pA)",
            "spikes $z_j$ (neuron)",
            "membrane potential $v_j$ (mV)",
            "surrogate gradient $\\psi_j$ (1/mV)",
            "adaptive threshold $A_j$ (mV)",
            "learning signal $L_j$ (pA)",
            "membrane potential $v_k$ (mV)",
            "target signal $\\pi_k^*$",
            "readout signal $\\pi_k$",
            "error signal $\\pi_k-\\pi_k^*$",
        ]
        assert figure.axes[-1].get_xlabel() == "time in the sequence (ms)"
        assert figure.axes[-1].get_xlim() == (0.0, 200.0)
        assert figure.get_suptitle() == "Training iteration 3, sequence 0"
        assert {"input", "regular: neuron 0", "adaptive: neuron 0", "readout"} < {t.get_text() for t in figure.texts}
        assert_legible(figure)

    @pytest.mark.parametrize(
        ("panel", "population", "column"),
        [
            (2, "reg", "V_m"),
            (3, "reg", "surrogate_gradient"),
            (4, "reg", "learning_signal"),
            (6, "ad", "V_m"),
            (7, "ad", "surrogate_gradient"),
            (8, "ad", "V_th_adapt"),
            (9, "ad", "learning_signal"),
            (10, "out", "V_m"),
            (11, "out", "target_signal"),
            (12, "out", "readout_signal"),
            (13, "out", "error_signal"),
        ],
    )
    def test_traces_are_those_of_the_first_sequence(self, written, figure, panel, population, column):
        table = Run(written).dynamic_variables(population, "last").query("sequence == 0")
        lines = figure.axes[panel].get_lines()
        assert len(lines) == table["neuron"].nunique()
        for neuron, line in enumerate(lines):
            own = table[table["neuron"] == neuron]
            assert len(own) == 200
            np.testing.assert_array_equal(line.get_xydata(), own[["time", column]])

    @pytest.mark.parametrize(("panel", "population"), [(0, "in"), (1, "reg"), (5, "ad")])
    def test_spikes_are_those_of_the_first_sequence(self, written, figure, panel, population):
        spikes = Run(written).spikes("last").query("sequence == 0 and population == @population")
        assert len(spikes) > 0
        ax = figure.axes[panel]
        np.testing.assert_array_equal(ax.get_lines()[0].get_xydata(), spikes[["time", "neuron"]])
        low, high = ax.get_ylim()
        assert low < 0
        assert high > SIZES[population] - 1

    def test_windows_are_shaded_and_named(self, written, figure):
        windows = Run(written).windows("last").query("sequence == 0")
        present = sorted(windows["kind"].unique())
        assert legend(figure) == [*present, "readout 0", "readout 1"]
        for ax in figure.axes:
            boxes = [path.get_extents() for shade in ax.collections for path in shade.get_paths()]
            assert {(box.y0, box.y1) for box in boxes} == {(0.0, 1.0)}
            spans = sorted((box.x0, box.x1) for box in boxes)
            assert spans == sorted(zip(windows["start"], windows["stop"], strict=True))

    def test_a_window_over_another_is_hatched(self, figure):
        hatched = [shade.get_hatch() for shade in figure.axes[0].collections]
        assert len(hatched) - hatched.count(None) == 1  # recall and learning window are the same stretch

    def test_kinds_keep_their_colours_in_every_iteration(self, written, figure):
        windows = pd.DataFrame({"sequence": [0], "kind": ["right cue"], "start": [0.0], "stop": [10.0]})
        figures = [figure, changed(written, windows=windows)]
        colours = [
            {
                text.get_text(): patch.get_facecolor()
                for patch, text in zip(each.get_patches(), each.get_texts(), strict=False)
            }
            for each in (one.legends[0] for one in figures)
        ]
        assert colours[0]["right cue"] == colours[1]["right cue"]

    @pytest.mark.parametrize(
        ("missing", "n_panels"),
        [(["spikes"], 11), (["reg"], 11), (["ad"], 10), (["out"], 10), (["windows"], 14), (["spikes", "reg", "ad"], 4)],
    )
    def test_panels_of_missing_tables_are_left_out(self, written, missing, n_panels):
        tables = {name: table for name, table in Run(written).recording("last").items() if name not in missing}
        figure = dynamics(tables, POPULATIONS, SYMBOLS, KINDS, 3)
        assert len(figure.axes) == n_panels
        assert figure.axes[-1].get_xlabel() == "time in the sequence (ms)"

    def test_a_population_without_neurons_has_no_panels(self, written):
        tables = {name: table for name, table in Run(written).recording("last").items() if name != "ad"}
        assert len(dynamics(tables, POPULATIONS[:2], SYMBOLS, KINDS, 3).axes) == 9

    def test_a_silent_population_has_an_empty_panel(self, written):
        spikes = Run(written).spikes("last").query("population == 'in'")
        figure = changed(written, spikes=spikes)
        assert len(figure.axes) == 14
        assert len(figure.axes[1].get_lines()[0].get_xdata()) == 0

    def test_no_spikes_at_all(self, written):
        empty = pd.DataFrame({name: np.array([]) for name in ("sequence", "time", "population", "neuron")})
        assert len(changed(written, spikes=empty).axes) == 14

    def test_three_readouts_and_windows_of_any_name(self):
        time = np.tile(np.arange(50.0), 3)
        out = {"sequence": 0, "time": time, "neuron": np.repeat(np.arange(3), 50)}
        out |= {name: np.sin(time + out["neuron"]) * 1e4 for name in ("V_m", "target_signal", "readout_signal")}
        kinds = [f"kind {i}" for i in range(9)]
        windows = {"sequence": 0, "kind": kinds, "start": np.arange(9) * 5.0, "stop": np.arange(9) * 5.0 + 3.0}
        tables = {"out": pd.DataFrame(out), "windows": pd.DataFrame(windows)}
        figure = dynamics(tables, [NeuronGroup("in", "input", 3)], VOLTS, kinds, 7)
        assert [len(ax.get_lines()) for ax in figure.axes] == [3, 3, 3]
        assert len({line.get_color() for line in figure.axes[0].get_lines()}) == 3
        assert labels(figure)[1:] == ["target\nsignal\n$y_k^*$ (mV)", "readout\nsignal\n$y_k$ (mV)"]
        assert legend(figure)[-3:] == ["readout 0", "readout 1", "readout 2"]
        assert_legible(figure)


# of the weights below
BOTH = [NeuronGroup("in", "input", 3), NeuronGroup("reg", "regular", 3), NeuronGroup("ad", "adaptive", 1)]


class TestWeights:
    weights = {  # noqa: RUF012
        "in_rec": Projection(np.arange(12.0).reshape(4, 3), np.arange(12.0).reshape(4, 3) - 20.0),
        "rec_rec": Projection(np.ones((4, 4)), np.zeros((4, 4))),
        "rec_out": Projection(np.full((2, 4), 0.5), np.full((2, 4), -0.5)),
    }
    changes = pd.DataFrame(
        {"projection": ["in_rec"] * 2, "pre": [1, 1], "post": [0, 0], "time": [2e3, 5e3], "weight": [1.5, 2.5]}
    )

    def test_time_courses_begin_with_the_initial_weight(self):
        figure = weight_time_courses(self.weights, self.changes, n_record=2, end=12e3)
        assert labels(figure) == ["$W_\\mathrm{in}$ (pA)", "$W_\\mathrm{rec}$ (pA)", "$W_\\mathrm{out}$ (pA)"]
        courses = [[line for line in ax.get_lines() if line.get_drawstyle() == "steps-post"] for ax in figure.axes]
        # 2 x 2 from the input, 2 x 2 without autapses, 2 recurrent neurons to all readouts
        assert [len(lines) for lines in courses] == [4, 2, 4]
        synapse = courses[0][1]  # post 0, pre 1
        np.testing.assert_array_equal(synapse.get_xydata(), [[0, 1.0], [2.0, 1.5], [5.0, 2.5], [12.0, -19.0]])
        np.testing.assert_array_equal(courses[2][0].get_xydata(), [[0, 0.5], [12.0, -0.5]])
        assert figure.axes[-1].get_xlabel() == "task time (s)"
        assert figure.axes[-1].get_xlim() == (0.0, 12.0)
        assert_legible(figure)

    def test_short_time_courses_are_in_ms(self):
        figure = weight_time_courses(self.weights, self.changes, n_record=2, end=None)
        assert figure.axes[-1].get_xlabel() == "task time (ms)"
        assert figure.axes[-1].get_xlim() == (0.0, 5e3)

    def test_matrices_share_a_scale_symmetric_about_zero(self):
        figure = weight_matrices(self.weights, BOTH)
        *panels, colour_bar = figure.axes
        images = [ax.get_images()[0] for ax in panels]
        assert {image.get_clim() for image in images} == {(-20.0, 20.0)}
        expected = [
            *(self.weights["in_rec"].before.T, self.weights["in_rec"].after.T),
            *(self.weights["rec_rec"].before, self.weights["rec_rec"].after),
            *(self.weights["rec_out"].before, self.weights["rec_out"].after),
        ]
        for image, values in zip(images, expected, strict=True):
            np.testing.assert_array_equal(image.get_array(), values)
        assert colour_bar.get_ylabel() == "weight (pA)"
        assert [ax.get_title() for ax in panels[:2]] == ["before training", "after training"]
        assert_legible(figure)

    def test_matrices_say_which_side_of_the_synapse_an_axis_is(self):
        figure = weight_matrices(self.weights, BOTH)
        assert [label.split("\n", 1)[1] for label in labels(figure)[:6:2]] == [
            "input neurons\n(presynaptic)",
            "recurrent neurons\n(postsynaptic)",
            "readout neurons\n(postsynaptic)",
        ]
        below = [ax.get_xlabel() for ax in figure.axes[:6]]
        assert below[::2] == [f"recurrent neurons ({side}synaptic)" for side in ("post", "pre", "pre")]
        assert below[1::2] == [""] * 3  # one label for both

    def test_matrices_mark_where_adaptive_neurons_begin(self):
        panels = weight_matrices(self.weights, BOTH).axes[:6]
        upright = [[2.5, 2.5], [0, 1]]
        across = [[0, 1], [2.5, 2.5]]
        lines = [[list(map(list, line.get_data())) for line in ax.get_lines()] for ax in panels]
        assert lines == [[upright]] * 2 + [[upright, across]] * 2 + [[upright]] * 2

    @pytest.mark.parametrize("name", ["reg", "ad"])
    def test_matrices_of_one_kind_of_neurons_have_no_mark(self, name):
        figure = weight_matrices(self.weights, [POPULATIONS[0], NeuronGroup(name, LABELS[name], 4)])
        assert not any(ax.get_lines() for ax in figure.axes[:6])
        assert not figure.texts

    def test_matrices_of_zeros(self):
        zero = {name: Projection(pair.before * 0, pair.after * 0) for name, pair in self.weights.items()}
        assert weight_matrices(zero, BOTH).axes[0].get_images()[0].get_clim() == (-1.0, 1.0)


class TestFiles:
    def test_of_a_whole_run(self, written, tmp_path):
        drawn = draw_run(Run(written), FIGURES, ["png"], 40, tmp_path)
        assert [path.name for path in drawn] == [f"{name}.png" for name in (*NAMES, "weight_changes", "firing_rates")]
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)
        assert sorted(path.name for path in drawn[0].parent.iterdir()) == sorted(path.name for path in drawn)

    def test_weights_end_where_training_does(self, written, tmp_path, monkeypatch):
        shown = []
        monkeypatch.setattr("eprop_cli.figures.base.save", lambda figure, path, dpi: shown.append(figure))
        draw_run(Run(written), ["weight_time_courses"], ["png"], 40, tmp_path)
        assert shown[0].axes[-1].get_xlim() == (0.0, 3 * 2 * 200.0)  # iterations, sequences, ms

    def test_what_was_not_recorded_is_left_out(self, directory, tmp_path):
        shutil.rmtree(directory / "recordings")
        names = [path.name for path in draw_run(Run(directory), FIGURES, ["png"], 40, tmp_path / "figures")]
        assert names == ["learning.png", "weight_matrices.png", "weight_changes.png"]
        (directory / "weights.npz").unlink()
        assert len(draw_run(Run(directory), FIGURES, ["png"], 40, tmp_path / "figures")) == 1

    def test_a_missing_recording_file_leaves_panels_out(self, directory, tmp_path):
        for name in ("reg", "windows"):
            (directory / "recordings" / "iteration_3" / f"{name}.parquet").unlink()
        shutil.rmtree(directory / "recordings" / "iteration_1")
        assert len(draw_run(Run(directory), ["dynamics"], ["png"], 40, tmp_path)) == 1

    def test_a_run_without_rows_has_no_learning_figure(self, tmp_path):
        run = Run(write_run(tmp_path / "run", rows=[], status="INTERRUPTED"))
        assert draw_run(run, ["learning"], ["png"], 40, tmp_path) == []

    @pytest.mark.slow
    def test_the_bytes_depend_on_nothing_but_the_data(self, directory, tmp_path):
        """Not on the process, place, user's settings, order of formats, or how often a figure was saved."""
        shutil.rmtree(directory / "recordings" / "iteration_1")  # one figure of this kind will do
        shutil.copytree(directory, tmp_path / "elsewhere")
        here = draw_run(Run(directory), ["weight_matrices"], ["svg", "pdf"], 40, tmp_path / "here")
        here += draw_run(Run(directory), ["dynamics", "learning"], ["svg"], 40, tmp_path / "here")
        (tmp_path / "matplotlibrc").write_text("font.size: 20\nlines.linewidth: 5\nsavefig.facecolor: red\n")
        code = """
import sys
from eprop_cli.cli.eprop_plot import plot
for options in ["--formats=pdf,svg", "--figures=weight_matrices"], ["--formats=svg", "--figures=learning,dynamics"]:
    sys.argv[1:] = ["elsewhere", *options]
    try:
        plot()
    except SystemExit as ending:
        assert ending.code == 0
"""
        command = [sys.executable, "-c", code]
        environment = os.environ | {"MPLBACKEND": "svg", "PYTHONHASHSEED": "7"}
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
        assert len(here) == 4
        for path in here:
            assert path.read_bytes() == (tmp_path / "elsewhere" / "figures" / path.name).read_bytes(), path.name

    def test_matplotlib_is_left_as_it_was(self, written, tmp_path):
        before = dict(matplotlib.rcParams)
        draw_run(Run(written), ["learning"], ["png"], 40, tmp_path)
        assert dict(matplotlib.rcParams) == before
        modules = "eprop_cli.figures.draw, eprop_cli.figures.comparison"
        code = f"import sys, {modules}; print('matplotlib.pyplot' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"

    def test_a_file_appears_whole_or_not_at_all(self, tmp_path):
        figure = learning(frame(training_rows(1)), COLUMNS)
        path = tmp_path / "learning.png"
        path.write_bytes(b"before")
        figure.savefig = None  # drawing fails
        with pytest.raises(TypeError):
            save(figure, path, 40)
        assert path.read_bytes() == b"before"
        assert list(tmp_path.iterdir()) == [path]


def eprop_plot(monkeypatch, capsys, *arguments):
    """Exit status, lines on stdout, lines on stderr."""
    monkeypatch.setattr(sys, "argv", ["eprop-plot", *map(str, arguments)])
    with pytest.raises(SystemExit) as ending:
        commands.plot()
    out, err = capsys.readouterr()
    return ending.value.code, out.splitlines(), err.splitlines()


class TestCommand:
    def test_redraws_with_the_settings_of_the_run(self, tmp_path, monkeypatch, capsys):
        settings = ("plots.figures=[learning,weight_matrices]", "plots.formats=[svg,png]", "plots.dpi=30")
        run = write_run(tmp_path / "run", *settings)
        expected = draw_run(Run(run), ["learning", "weight_matrices"], ["svg", "png"], 30, tmp_path / "expected")
        status, out, err = eprop_plot(monkeypatch, capsys, run)
        assert (status, err) == (0, [])
        assert out == [str(run / "figures" / path.name) for path in expected]
        assert len(out) == 4
        for path in expected:
            assert (run / "figures" / path.name).read_bytes() == path.read_bytes()

    def test_options(self, directory, tmp_path, monkeypatch, capsys):
        options = (
            "--figures",
            "learning,weight_matrices",
            "--formats",
            "svg,pdf",
            "--output",
            tmp_path / "new" / "dir",
        )
        assert eprop_plot(monkeypatch, capsys, directory, *options)[0] == 0
        assert {path.name for path in (tmp_path / "new" / "dir").iterdir()} == {
            *("learning.svg", "learning.pdf", "weight_matrices.svg", "weight_matrices.pdf")
        }
        assert not (directory / "figures").exists()

    def test_dpi(self, directory, monkeypatch, capsys):
        eprop_plot(monkeypatch, capsys, directory, "--figures", "learning", "--dpi", "50")
        width = int.from_bytes((directory / "figures" / "learning.png").read_bytes()[16:20], "big")
        assert width == 6.4 * 50

    def test_a_run_that_drew_nothing_is_drawn_in_full(self, tmp_path, monkeypatch, capsys):
        run = write_run(tmp_path / "run", "plots=none", "plots.dpi=20")
        shutil.rmtree(run / "recordings")
        assert eprop_plot(monkeypatch, capsys, run)[0] == 0
        names = ["learning.png", "weight_changes.png", "weight_matrices.png"]
        assert [path.name for path in sorted((run / "figures").iterdir())] == names

    def test_several_runs_keep_apart(self, written, tmp_path, monkeypatch, capsys):
        runs = [shutil.copytree(written, tmp_path / place / "0") for place in ("one", "two")]
        options = ("--figures", "learning", "--output", tmp_path / "all")
        assert eprop_plot(monkeypatch, capsys, *runs, *options)[0] == 0
        found = {str(path.relative_to(tmp_path / "all")) for path in (tmp_path / "all").rglob("*.png")}
        assert found == {"one/0/learning.png", "two/0/learning.png"}

    def test_says_what_it_has_no_data_for(self, directory, monkeypatch, capsys):
        shutil.rmtree(directory / "recordings")
        status, out, _ = eprop_plot(monkeypatch, capsys, directory, "--figures", "dynamics")
        assert (status, out) == (0, [f"{directory}: dynamics: not drawn, it has no data for it"])

    def test_a_damaged_file_keeps_only_its_own_figure_back(self, directory, monkeypatch, capsys):
        path = directory / "recordings" / "iteration_3" / "out.parquet"
        path.write_bytes(path.read_bytes()[:1000])
        status, out, err = eprop_plot(monkeypatch, capsys, directory, "--figures", "dynamics,learning")
        assert status == 2
        assert out == [str(directory / "figures" / "learning.png")]
        assert len(err) == 1
        assert err[0].startswith(f"eprop-plot: {path}: is damaged: ")

    def test_list(self, directory, monkeypatch, capsys):
        draw_run(Run(directory), ["learning"], ["png"], 40, directory / "figures")
        status, out, err = eprop_plot(monkeypatch, capsys, "--list", directory)
        assert (status, err) == (0, [])
        assert out[:6] == [
            str(directory),
            "  run       COMPLETED, started 2026-01-31T12:00:00.000+00:00, 1.8 s",
            "  batches   3 training (of 3 training iterations)",
            "  recorded  iterations 1, 3",
            "  figures   learning.png",
            "  files",
        ]
        listed = {line.split()[-1]: line.split()[:2] for line in out[6:]}
        assert listed["metrics.csv"] == [str((directory / "metrics.csv").stat().st_size), "B"]
        assert "recordings/iteration_3/spikes.parquet" in listed
        assert not (directory / "figures" / "dynamics_iteration_1.png").exists()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["nowhere"], "nowhere: does not exist"),
            (["{run}", "nowhere"], "nowhere: does not exist"),
            (["{run}/.hydra"], "{run}/.hydra: is not a run directory: it holds no run.json"),
            (["{run}/metrics.csv"], "{run}/metrics.csv: is a file; give the run directory"),
            (["{run}", "--figures", "loss"], f"--figures loss: must be one of {', '.join(FIGURES)}"),
            (["{run}", "--formats", "gif"], "--formats gif: must be one of png, pdf, svg"),
            (["{run}", "--dpi", "0"], "argument --dpi: must be a whole number from 1; see eprop-plot --help"),
            (["{run}", "--output", "{run}/run.json"], "{run}/run.json: cannot be made: File exists"),
            (["{run}", "--output", "{run}/run.json/in"], "{run}/run.json/in: cannot be made: Not a directory"),
            ([], "the following arguments are required: RUN_DIR; see eprop-plot --help"),
        ],
    )
    def test_bad_input_is_told_in_one_line(self, written, monkeypatch, capsys, arguments, message):
        arguments = [argument.format(run=written) for argument in arguments]
        expected = f"eprop-plot: {message.format(run=written)}"
        assert eprop_plot(monkeypatch, capsys, *arguments) == (2, [], [expected])

    def test_a_reader_that_has_had_enough(self, written):
        command = f"{sys.executable} -c 'from eprop_cli.cli.eprop_plot import plot; plot()' --list {written} | head -1"
        ending = subprocess.run(command, shell=True, capture_output=True, text=True)
        assert (ending.stdout, ending.stderr) == (f"{written}\n", "")

    def test_closed_outputs(self, written):
        command = f"{sys.executable} -c 'from eprop_cli.cli.eprop_plot import plot; plot()' --list {written} nowhere"
        both = subprocess.run(f"{command} >&- 2>&-", shell=True, capture_output=True)
        one = subprocess.run(f"{command} >&-", shell=True, capture_output=True, text=True)
        assert (both.returncode, one.returncode, one.stderr) == (2, 2, "eprop-plot: nowhere: does not exist\n")


@pytest.mark.slow
@pytest.mark.nest
def test_a_real_run_is_redrawn_byte_for_byte_where_nest_cannot_be_imported(tmp_path, eprop_run):
    eprop_run("experiment=smoke", "recording.iterations=[last]", "plots.dpi=50", "hydra.run.dir=run", check=True)
    drawn = {path.name: path.read_bytes() for path in (tmp_path / "run" / "figures").iterdir()}
    assert len(drawn) == 4
    shutil.rmtree(tmp_path / "run" / "figures")
    shutil.move(tmp_path / "run", tmp_path / "laptop")
    (tmp_path / "nest.py").write_text("raise ImportError('there is no NEST here')\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    code = """
import sys
from eprop_cli.cli.eprop_compare import compare
from eprop_cli.cli.eprop_plot import plot
for command in plot, compare:
    try:
        command()
    except SystemExit as ending:
        assert ending.code == 0
"""
    subprocess.run(
        [sys.executable, "-c", code, "laptop"], cwd=tmp_path, env=environment, check=True, capture_output=True
    )
    assert {path.name: path.read_bytes() for path in (tmp_path / "laptop" / "figures").iterdir()} == drawn
    assert (tmp_path / "compare.csv").exists()
