import itertools
import json
import math
import shutil

import numpy as np
import pytest
from synthetic_run import REGRESSION, batch_row, regression_row, training_rows, write_run, written_columns

from eprop_cli.figures.comparison import sweep_figure
from eprop_cli.figures.style import save
from eprop_cli.runs.comparison import SUMMARY, interval, places, summarise
from eprop_cli.runs.reader import Run, find_runs
from eprop_cli.schema import short_names


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Two learning rates, two batch sizes, two seeds; the loss of training iteration i is start - 0.01 i."""
    directory = tmp_path_factory.mktemp("sweep")
    runs = []
    for eta in (0.02, 0.005):
        for n_batch in (4, 2):
            for seed in (1, 2):
                start = 10 * eta + 0.1 * n_batch + 0.2 * seed
                overrides = (f"optimizer.eta={eta}", f"task.n_batch={n_batch}", f"seed={seed}")
                write_run(directory / str(len(runs)), *overrides, rows=training_rows(3, start))
                runs.append(Run(directory / str(len(runs))))
    return runs


def one(tmp_path, *overrides, name="run", **changes):
    return Run(write_run(tmp_path / name, *overrides, **changes))


def of_regression(tmp_path):
    rows = [regression_row(1, "training", 9.0, 0.5, 0.75, 1.0, 1.0, 1.0)]
    return one(tmp_path, rows=rows, status="INTERRUPTED", columns=written_columns(REGRESSION))


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()] if figure.legends else []


def legend_of_colours(figure):
    return all_axes(figure)[-1].get_ylabel()


def all_axes(figure):
    return [ax for part in figure.subfigs for ax in part.axes] if figure.subfigs else figure.axes


class TestSummarise:
    def test_columns_are_what_differs_and_what_came_out(self, sweep):
        table = summarise(sweep)
        assert list(table.columns) == ["run", "seed", "task.n_batch", "optimizer.eta", *SUMMARY]
        assert table["run"].tolist() == [str(run.directory) for run in sweep]
        assert table["optimizer.eta"].tolist() == [0.02] * 4 + [0.005] * 4
        assert table["task.n_batch"].tolist() == [4, 4, 2, 2] * 2
        assert table["seed"].tolist() == [1, 2] * 4

    def test_what_came_out(self, tmp_path):
        rows = training_rows(2)
        rows += [batch_row(3, "training", 0.9, 0.75, 0.25, 1.0, 1.0, 1.0)]
        rows += [batch_row(3, "test", 0.1, 1 - error, error, 1.0, 1.0, 1.0) for error in (0.5, 0.25)]
        (row,) = summarise([one(tmp_path, rows=rows)]).to_dict("records")
        assert row["status"] == "COMPLETED"
        assert row["iterations"] == 3
        assert row["final_loss"] == 0.9
        assert row["best_loss"] == 0.8 - 0.02
        assert row["accuracy"] == 0.75
        assert row["test_error"] == 0.375
        assert row["seconds"] == 1.75
        assert math.isnan(row["error"])

    def test_one_run_differs_in_nothing(self, tmp_path):
        assert list(summarise([one(tmp_path)]).columns) == ["run", *SUMMARY]

    def test_keys_that_follow_another_are_left_out(self, tmp_path):
        values = ("neuron.rec.c_reg=1", "neuron.rec.c_reg=3")  # reg.c_reg and ad.c_reg refer to it
        runs = [one(tmp_path, value, name=value) for value in values]
        assert list(summarise(runs).columns) == ["run", "neuron.rec.c_reg", *SUMMARY]

    def test_a_key_that_follows_in_one_run_only_is_shown(self, tmp_path):
        runs = [one(tmp_path, name="a"), one(tmp_path, "neuron.ad.c_reg=3", name="b")]
        assert summarise(runs)["neuron.ad.c_reg"].tolist() == [2.0, 3.0]

    def test_without_the_composed_config_following_keys_show_too(self, tmp_path):
        runs = [one(tmp_path, f"neuron.rec.c_reg={value}", name=str(value)) for value in (1, 3)]
        for run in runs:
            (run.directory / ".hydra" / "config.yaml").unlink()
        assert set(summarise(runs).columns) >= {"neuron.rec.c_reg", "neuron.reg.c_reg", "neuron.ad.c_reg"}

    def test_keys_that_do_not_change_what_is_computed_are_left_out(self, tmp_path):
        runs = [one(tmp_path, name="a"), one(tmp_path, "plots.dpi=50", "plots.formats=[svg]", name="b")]
        assert list(summarise(runs).columns) == ["run", *SUMMARY]

    def test_a_key_that_one_run_does_not_have(self, tmp_path):
        runs = [one(tmp_path, name="a"), one(tmp_path, "optimizer.beta_1=0.8", name="b")]
        runs.append(one(tmp_path, "optimizer=gradient_descent", name="c"))
        table = summarise(runs)
        assert list(table.columns) == ["run", "optimizer.name", "optimizer.beta_1", *SUMMARY]
        assert table["optimizer.beta_1"].tolist()[:2] == [0.9, 0.8]
        assert math.isnan(table["optimizer.beta_1"][2])

    def test_a_key_that_only_comes_with_a_choice_is_left_out(self, tmp_path):
        runs = [one(tmp_path, name="a"), one(tmp_path, "training=data_parallel", "training.n_iter_test=0", name="b")]
        assert list(summarise(runs).columns) == ["run", "training.name", "training.evaluation", *SUMMARY]

    def test_a_run_that_failed(self, tmp_path):
        run = one(tmp_path, rows=[], status="FAILED", error="the loss became nan")
        (row,) = summarise([run]).to_dict("records")
        assert (row["status"], row["iterations"], row["error"]) == ("FAILED", 0, "the loss became nan")
        assert math.isnan(row["final_loss"])

    def test_a_run_that_was_killed(self, tmp_path, monkeypatch):
        run = one(tmp_path)
        record = json.loads((run.directory / "run.json").read_text()) | {"status": "RUNNING", "seconds": None}
        (run.directory / "run.json").write_text(json.dumps(record))
        monkeypatch.setattr(Run, "killed", True)
        (row,) = summarise([run]).to_dict("records")
        assert (row["status"], row["iterations"], row["seconds"]) == ("KILLED", 3, 1.5)

    @pytest.mark.parametrize("name", ["metrics.csv", "run.json"])
    def test_a_run_that_cannot_be_read_has_a_row(self, tmp_path, name):
        runs = [one(tmp_path, "seed=1", name="a"), one(tmp_path, "seed=2", name="b"), one(tmp_path, name="c")]
        (runs[2].directory / name).write_text("rubbish")
        table = summarise(runs)
        assert table["status"].tolist() == ["COMPLETED", "COMPLETED", "UNREADABLE"]
        assert table["error"].iloc[2].startswith(f"{runs[2].directory / name}: is damaged: ")
        assert table["seed"].tolist()[:2] == [1, 2]

    def test_of_regression(self, tmp_path):
        (row,) = summarise([of_regression(tmp_path)]).to_dict("records")
        assert not {"accuracy", "test_error"} & set(row)
        assert row["nrmse"] == 0.5


class TestFigure:
    def test_seeds_become_a_mean_in_a_band(self, sweep):
        runs = [run for run in sweep if run.config["optimizer"]["eta"] == 0.02]
        loss, error = sweep_figure(runs).axes
        assert [len(loss.get_lines()), len(error.get_lines())] == [2, 2]
        for line, band, n_batch in zip(loss.get_lines(), loss.collections, (2, 4), strict=True):
            low = np.array([0.2 + 0.1 * n_batch + 0.2 - 0.01 * i for i in (1, 2, 3)])
            np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
            np.testing.assert_allclose(line.get_ydata(), low + 0.1, rtol=1e-12)
            assert band.get_datalim(loss.transData).ymin == pytest.approx(low.min(), rel=1e-12)
            assert band.get_datalim(loss.transData).ymax == pytest.approx(low.max() + 0.2, rel=1e-12)
        np.testing.assert_array_equal(error.get_lines()[0].get_ydata(), [0.75] * 3)
        assert error.get_xlabel() == "training iteration"
        assert loss.get_ylabel() == "loss\n(cross-entropy)"
        assert error.get_ylabel() == "recall error\n(fraction of sequences)"

    def test_bands_are_of_a_kind(self, sweep):
        runs = [run for run in sweep if run.config["optimizer"]["eta"] == 0.02 and run.config["task"]["n_batch"] == 2]
        halves = {}  # of the band around 0.69 at the first iteration; the two seeds are 0.1 away from it
        for band in ("range", "std", "ci95"):
            figure = sweep_figure(runs, band=band)
            (filled,) = figure.axes[0].collections
            points = filled.get_paths()[0].vertices
            halves[band] = float(np.ptp(points[points[:, 0] == 1, 1])) / 2
        assert halves == pytest.approx({"range": 0.1, "std": 0.1 * math.sqrt(2), "ci95": 0.1})  # two have few samples
        assert figure.legends[0].get_title().get_text().endswith("bands: 95 % interval of the mean (bootstrap)")

    def test_many_bands_are_not_filled(self, sweep):
        opacities = []
        for runs in (sweep[:2], sweep[:4], sweep):
            *_, band = all_axes(sweep_figure(runs))[0].collections
            opacities.append([colour[3] for colour in band.get_facecolor()])
        assert opacities == [[0.3], [0.15], []]

    def test_lines_are_named_by_what_was_swept(self, sweep):
        assert legend(sweep_figure([run for run in sweep if run.config["seed"] == 1][:2])) == ["n_batch=2", "n_batch=4"]
        assert legend(sweep_figure(sweep)) == [
            "n_batch=2, eta=0.005 (2 seeds)",
            "n_batch=2, eta=0.02 (2 seeds)",
            "n_batch=4, eta=0.005 (2 seeds)",
            "n_batch=4, eta=0.02 (2 seeds)",
        ]
        same = [run for run in sweep if run.config["task"]["n_batch"] == 2 and run.config["optimizer"]["eta"] == 0.02]
        assert legend(sweep_figure(same)) == ["2 seeds"]

    @pytest.mark.parametrize(
        ("etas", "expected"),
        [((0.123456789, 2.0), ["eta=0.1235", "eta=2"]), ((0.123451, 0.123452), ["eta=0.123451", "eta=0.123452"])],
    )
    def test_values_are_rounded_where_that_leaves_them_apart(self, tmp_path, etas, expected):
        assert legend(sweep_figure([one(tmp_path, f"optimizer.eta={eta}", name=str(eta)) for eta in etas])) == expected

    def test_two_keys_give_a_heat_map(self, sweep):
        *_, heat_map, _ = all_axes(sweep_figure(sweep))
        expected = [[10 * eta + 0.1 * n_batch + 0.3 - 0.02 for eta in (0.005, 0.02)] for n_batch in (2, 4)]
        np.testing.assert_allclose(heat_map.get_images()[0].get_array(), expected, rtol=1e-12)
        assert [heat_map.get_ylabel(), heat_map.get_xlabel()] == ["n_batch", "eta"]
        assert [text.get_text() for text in heat_map.get_yticklabels()] == ["2", "4"]
        assert [text.get_text() for text in heat_map.get_xticklabels()] == ["0.005", "0.02"]
        assert [text.get_text() for text in heat_map.texts] == ["0.530", "0.680", "0.730", "0.880"]
        assert legend_of_colours(sweep_figure(sweep)) == "mean10_loss (mean over seeds)"

    def test_the_heat_map_takes_a_metric(self, sweep):
        *_, heat_map, _ = all_axes(sweep_figure(sweep, metric="loss"))
        assert heat_map.texts[0].get_text() == "0.520"
        assert legend_of_colours(sweep_figure(sweep, metric="best_accuracy")) == "best_accuracy (mean over seeds)"

    def test_units_are_those_of_conf(self, tmp_path):
        keys = ("neuron.ad.adapt_tau", "neuron.rec.f_target")
        values = [(tau, rate) for tau in (500.0, 1000.0) for rate in (5.0, 10.0)]
        runs = [
            one(tmp_path, *(f"{key}={value}" for key, value in zip(keys, pair, strict=True)), name=str(pair))
            for pair in values
        ]
        figure = sweep_figure(runs)
        heat_map = all_axes(figure)[-2]
        assert [heat_map.get_ylabel(), heat_map.get_xlabel()] == ["f_target (spikes/s)", "adapt_tau (ms)"]
        assert legend(figure)[0] == "f_target=5 spikes/s, adapt_tau=500 ms"

    def test_values_below_a_heat_map_do_not_overlap(self, tmp_path):
        etas = [round(0.001 * (1 + number), 3) for number in range(8)]
        runs = [
            one(tmp_path, f"optimizer.eta={eta}", f"task.n_batch={n}", name=f"{eta}-{n}")
            for eta in etas
            for n in (1, 2)
        ]
        figure = sweep_figure(runs)
        labels = all_axes(figure)[-2].get_xticklabels()
        boxes = [label.get_window_extent() for label in labels]
        assert [label.get_text() for label in labels] == [str(eta) for eta in etas]
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))

    def test_an_incomplete_grid_has_a_gap(self, sweep):
        heat_map = all_axes(sweep_figure(sweep[:6]))[-2]
        assert np.ma.getmaskarray(heat_map.get_images()[0].get_array()).tolist() == [[True, False], [False, False]]
        assert len(heat_map.texts) == 3

    def test_two_keys_changed_together_are_no_grid(self, sweep):
        assert not sweep_figure([sweep[0], sweep[-1]]).subfigs

    def test_a_seed_that_stopped_early_leaves_the_others_mean(self, tmp_path):
        runs = [one(tmp_path, f"seed={n}", name=str(n), rows=training_rows(n), status="INTERRUPTED") for n in (1, 3)]
        line = sweep_figure(runs).axes[0].get_lines()[0]
        np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])

    def test_of_runs_of_the_same_seed_the_latest_counts_alone(self, tmp_path):
        starts = {"1": "12:00", "2": "11:00", "3": "13:00"}  # the third of another seed
        runs = [
            one(tmp_path, f"seed={1 + (name == '3')}", name=name, rows=training_rows(1, int(name)), start=start)
            for name, start in starts.items()
        ]
        figure = sweep_figure(runs[:2])
        assert legend(figure) == []
        np.testing.assert_allclose(figure.axes[0].get_lines()[0].get_ydata(), [1 - 0.01], rtol=1e-12)
        figure = sweep_figure(runs)
        assert legend(figure) == ["2 seeds"]
        np.testing.assert_allclose(figure.axes[0].get_lines()[0].get_ydata(), [(1 + 3) / 2 - 0.01], rtol=1e-12)

    def test_one_run_needs_no_legend(self, tmp_path):
        assert legend(sweep_figure([one(tmp_path)])) == []

    def test_regression_has_no_recall_error(self, tmp_path):
        axes = sweep_figure([of_regression(tmp_path)]).axes
        assert [ax.get_ylabel() for ax in axes] == [
            "loss\n(squared error, mV² steps)",
            "nRMSE\n(of the target's std)",
        ]

    def test_runs_that_cannot_be_drawn_are_left_out(self, tmp_path, sweep):
        failed = one(tmp_path, rows=[], status="FAILED", name="failed")
        damaged = one(tmp_path, name="damaged")
        (damaged.directory / "metrics.csv").write_text("rubbish")
        assert len(sweep_figure([failed, damaged, sweep[0]]).axes[0].get_lines()) == 1

    def test_where_too_much_differs_the_directories_are_named(self, tmp_path):
        other = [f"task.steps.{name}=30" for name in ("cue", "spacing", "bg_noise", "recall")]
        other += ["neuron.n_reg=5", "neuron.n_ad=5", "task.n_cues=5", "training.n_iter_test=1"]
        figure = sweep_figure([one(tmp_path, name="first"), one(tmp_path, *other, name="second")])
        assert sorted(legend(figure)) == ["first", "second"]

    def test_several_seeds_are_not_named_by_the_directory_of_one(self, tmp_path):
        other = [f"task.steps.{name}=30" for name in ("cue", "spacing", "bg_noise", "recall")]
        other += ["neuron.n_reg=5", "neuron.n_ad=5", "task.n_cues=5", "training.n_iter_test=1"]
        runs = [one(tmp_path, f"seed={seed}", name=f"seed-{seed}") for seed in (1, 2)]
        first, second = legend(sweep_figure([*runs, one(tmp_path, *other, name="other")]))
        assert first.startswith("n_cues=3, cue=20, ")
        assert second.startswith("n_cues=5, cue=30, ")
        assert first.endswith(" (2 seeds)")

    def test_a_legend_of_long_labels_fits_and_leaves_them_apart(self, tmp_path):
        other = [f"task.steps.{name}=30" for name in ("cue", "spacing", "bg_noise", "recall")]
        other += ["neuron.n_reg=5", "neuron.n_ad=5", "task.n_cues=5", "training.n_iter_test=1"]
        names = [f"{'0' * 50}eta-{eta}{'_' * 60}" for eta in (0.1, 0.2)]
        figure = sweep_figure([one(tmp_path, name=names[0]), one(tmp_path, *other, name=names[1])])
        assert sorted(legend(figure)) == [f"{name[:57]}…{name[-8:]}" for name in names]
        box = figure.legends[0].get_window_extent()
        assert figure.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1

    def test_many_lines_have_no_bands_and_a_paper_has_its_letters_and_width(self, tmp_path):
        runs = []
        for eta, seed in itertools.product(range(1, 9), (1, 2)):
            runs.append(one(tmp_path, f"optimizer.eta={eta / 1000}", f"seed={seed}", name=f"{eta}-{seed}"))
        figure = sweep_figure(runs, style="paper", width=100.0)
        assert [len(ax.collections) for ax in figure.axes] == [0, 0]
        assert figure.legends[0].get_title().get_text() == "lines: means over seeds"
        assert figure.get_figwidth() * 25.4 == pytest.approx(100.0)
        assert {text.get_fontsize() for text in figure.legends[0].get_texts()} == {7}

    def test_what_the_config_of_the_first_run_says_of_plots_holds(self, tmp_path):
        plots = ("plots.band=std", "plots.width=120", "plots.metric=best_loss")
        given = itertools.product((0.1, 0.2), (2, 3), (1, 2))
        runs = [
            one(tmp_path, f"optimizer.eta={eta}", f"task.n_batch={n}", f"seed={seed}", *plots, name=f"{eta}-{n}-{seed}")
            for eta, n, seed in given
        ]
        figure = sweep_figure(runs)
        assert figure.get_figwidth() * 25.4 == pytest.approx(150.0)  # no narrower than its letters need
        assert legend_of_colours(figure) == "best_loss (mean over seeds)"
        assert figure.legends[0].get_title().get_text() == "lines: means, bands: standard deviation"

    def test_many_lines_do_not_flood_the_legend(self, tmp_path, sweep):
        record = json.loads((sweep[0].directory / "run.json").read_text())
        for i in range(30):
            place = shutil.copytree(sweep[0].directory, tmp_path / str(i))
            record["config"]["optimizer"]["eta"] = i / 1000
            (place / "run.json").write_text(json.dumps(record))
        figure = sweep_figure(find_runs(tmp_path))
        assert len(figure.axes[0].get_lines()) == 30
        assert len(legend(figure)) == 24
        assert figure.legends[0].get_title().get_text() == "the first 24 of 30 are listed"

    def test_the_bytes_depend_on_nothing_but_the_runs(self, sweep, tmp_path):
        figure = sweep_figure(sweep)
        for name in ("a.png", "b.svg", "b.png"):
            save(figure, tmp_path / name, 40)
        save(sweep_figure(sweep), tmp_path / "c.svg", 40)
        assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
        assert (tmp_path / "b.svg").read_bytes() == (tmp_path / "c.svg").read_bytes()


def test_the_interval_is_that_of_scipy():
    from scipy.stats import bootstrap  # which takes a second to import

    values = np.random.RandomState(3).randn(2, 12)
    low, high = interval(values)
    for row, found in zip(values, zip(low, high, strict=True), strict=True):
        expected = bootstrap((row,), np.mean, n_resamples=9999, method="percentile", random_state=1).confidence_interval
        np.testing.assert_allclose(found, expected, atol=0.06)
    holes = values.copy()
    holes[0, 6:] = np.nan  # of seeds that stopped early
    assert interval(holes)[0][0] == pytest.approx(interval(np.delete(holes, range(6, 12), 1))[0][0], abs=0.15)
    np.testing.assert_array_equal(interval(np.array([[2.0]])), [[2.0], [2.0]])


def test_short_names():
    keys = ["optimizer.eta", "neuron.reg.tau_m", "neuron.ad.tau_m", "seed", "training.name"]
    assert short_names(keys) == {
        **{"optimizer.eta": "eta", "neuron.reg.tau_m": "neuron.reg.tau_m"},
        **{"neuron.ad.tau_m": "neuron.ad.tau_m", "seed": "seed", "training.name": "training.name"},
    }


def test_places(tmp_path, monkeypatch):
    for name in ("a/0", "a/1", "b"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "run.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert places([Run("a/0"), Run(tmp_path / "b")]) == (tmp_path, ["a/0", "b"])
    assert places([Run("a/0"), Run("a/1")]) == (tmp_path / "a", ["0", "1"])
    assert places([Run("a/0")]) == (tmp_path / "a", ["0"])
