import re
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest
from small import BARE
from synthetic_run import training_rows, write_run

from eprop_cli.cli import eprop_report
from eprop_cli.reports import page
from eprop_cli.runs.reader import Run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
ALONE = ("--no-first-run", "--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND")
# Works on the page as a reader does, and writes what it saw into it.
PROBE = """<script>
const seen = [];
const column = name => [...document.querySelectorAll("table.sortable th")].find(th => th.textContent === name);
const cells = index => [...document.querySelectorAll("table.sortable tbody tr")].filter(row => !row.hidden)
  .map(row => row.cells[index].textContent).join(" ");
const head = column("COLUMN");
head.querySelector("button").click(); seen.push(cells(head.cellIndex));
head.querySelector("button").click(); seen.push(cells(head.cellIndex));
const search = document.querySelector("input[type=search]");
search.value = "FILTER"; search.dispatchEvent(new Event("input")); seen.push(cells(0));
document.querySelector(".picture").click(); seen.push(document.querySelector("dialog").open);
seen.push([...document.images].every(image => !image.src || image.complete && image.naturalWidth > 300));
seen.push(document.documentElement.scrollWidth <= innerWidth, getComputedStyle(document.body).backgroundColor);
seen.push(...performance.getEntriesByType("resource").map(each => each.name).filter(name => !name.startsWith("data:")));
document.documentElement.innerHTML = "<pre>" + seen.join("\\n") + "</pre>";
</script></body>"""


@pytest.fixture
def report(in_lines):
    """Runs eprop-report; gives exit status, lines on stdout, lines on stderr."""
    return partial(in_lines, "eprop-report", eprop_report.report)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Three runs with another learning rate and loss each, the last of which FAILED."""
    sweep = tmp_path_factory.mktemp("folder") / "sweep"
    write_run(sweep / "a", "optimizer.eta=0.01", "report=true", rows=training_rows(3, 0.9))
    write_run(sweep / "b", "optimizer.eta=0.002", rows=training_rows(3, 0.2))
    write_run(
        sweep / "c", "optimizer.eta=0.1", rows=training_rows(2, 11.0), status="FAILED", error="the loss <b>broke</b>"
    )
    return sweep


def browse(path, tmp_path, column, words, width=1600, dark=False):
    """What the probe saw on a page, and what the console said."""
    probed = tmp_path / "probed.html"
    probed.write_text(path.read_text().replace("</body>", PROBE.replace("COLUMN", column).replace("FILTER", words)))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", *ALONE]
    command += ["--enable-logging=stderr", f"--window-size={width},900", f"--user-data-dir={tmp_path / 'profile'}"]
    command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--dump-dom", probed.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    seen = re.search("<pre>(.*)</pre>", done.stdout, re.DOTALL)
    assert seen, done.stdout[-500:] + done.stderr[-500:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return seen[1].splitlines(), console


@needs_chromium
@pytest.mark.parametrize(("width", "dark"), [(400, False), (400, True), (1600, False), (1600, True)])
def test_a_page_in_a_browser(sweep, report, tmp_path, width, dark):
    assert report(sweep) == (0, [str(sweep / "report.html")], [])
    seen, console = browse(sweep / "report.html", tmp_path, "eta", "completed 0.01", width, dark)
    background = "rgb(22, 24, 27)" if dark else "rgb(255, 255, 255)"
    assert seen == ["0.002 0.01 0.1", "0.1 0.01 0.002", "a", "true", "true", "true", background]
    assert console == []


@needs_chromium
def test_a_page_of_a_run_in_a_browser(report, tmp_path):
    run = write_run(tmp_path / "run", rows=training_rows(12))
    report(run)
    seen, console = browse(run / "report.html", tmp_path, "iteration", "0.69 training")
    forth = list(map(str, range(1, 13)))
    assert seen[:3] == [" ".join(forth), " ".join(reversed(forth)), "11"]
    assert (seen[3:6], seen[7:], console) == (["true"] * 3, [], [])


@needs_chromium
def test_the_browser_tells_what_a_page_would_ask_for(sweep, report, tmp_path):
    report(sweep)
    asking = tmp_path / "asking.html"
    asking.write_text(
        (sweep / "report.html").read_text().replace("<main>", "<main><img src='https://example.org/a.png'>")
    )
    seen, console = browse(asking, tmp_path, "eta", "")
    assert "https://example.org/a.png" in "".join([*seen[7:], *console])


def test_a_run_is_told_whole(report, tmp_path):
    run = write_run(tmp_path / "run", "optimizer.eta=0.25", command=["eprop-run", "a b=1"])
    assert report(run) == (0, [str(run / "report.html")], [])
    text = (run / "report.html").read_text()
    assert '<code>optimizer.eta</code></td><td>0.25</td><td class="dim">5e-3</td>' in text
    assert "optimizer.beta_1" not in text  # as in conf/
    assert "task.steps.learning_window" not in text  # follows another key
    assert f"<pre>eprop-run like={run}</pre>" in text
    assert f"<pre>eprop-verify {run}</pre>" in text
    assert "eprop-run &#39;a b=1&#39;</td>" in text
    assert text.count("data:image/png;base64,") == 7
    assert len(text) < 8_000_000


def test_what_a_run_directory_says_is_text(report, tmp_path):
    evil = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    run = write_run(
        tmp_path / "run <img>", "plots.figures=[learning]", status="FAILED", error=evil, host=evil, **{evil: evil}
    )
    report(run)
    text = (run / "report.html").read_text()
    assert text.count("<script") == 1
    assert "<img src=x" not in text
    assert "run &lt;img&gt;" in text


def test_an_unreadable_run_is_told_in_its_row(report, tmp_path):
    write_run(tmp_path / "sweep" / "a")
    write_run(tmp_path / "sweep" / "b")
    write_run(tmp_path / "sweep" / "b.old-1")
    (tmp_path / "sweep" / "b" / "metrics.csv").unlink()
    assert report(tmp_path / "sweep")[0] == 0
    text = (tmp_path / "sweep" / "report.html").read_text()
    assert "1 UNREADABLE" in text
    assert "is missing" in text
    assert "old-1" not in text


def test_a_damaged_figure_leaves_the_rest(report, tmp_path):
    run = write_run(tmp_path / "run")
    (run / "weights.npz").write_bytes(b"no archive")
    assert report(run)[0] == 0
    text = (run / "report.html").read_text()
    assert "weights.npz: is damaged" in text
    assert text.count("data:image/png;base64,") == 4  # learning, dynamics of two iterations, firing rates


def test_a_page_does_not_grow_without_bound(report, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "FIGURE_BYTES", 100_000)
    monkeypatch.setattr(page, "MAX_ROWS", 2)
    run = write_run(tmp_path / "run")
    report(run)
    text = (run / "report.html").read_text()
    assert "left out, as the page would become too large" in text
    assert "The last 2 of 3 rows" in text
    assert len(text) < 200_000


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda place: None, "does not exist"),
        (lambda place: place.write_text(""), "is a file"),
        (lambda place: place.mkdir(), "no run directory in there (none holds a run.json)"),
        (
            lambda place: (write_run(place) / "report.html").write_text("mine"),
            "was not written by eprop-report; move it",
        ),
    ],
)
def test_bad_input(report, tmp_path, prepare, message):
    place = tmp_path / "place"
    prepare(place)
    status, out, err = report(place)
    assert (status, out, len(err)) == (2, [], 1)
    assert err[0].startswith(f"eprop-report: {place}")
    assert err[0].endswith(message)


def test_a_run_writes_its_own(eprop_run, tmp_path):
    small = ("experiment=smoke", "engine=compiled", "training=data_parallel", *BARE)
    done = eprop_run(*small, "report=true", "hydra.run.dir=run")
    assert done.returncode == 0
    assert 'class="status">COMPLETED<' in (tmp_path / "run" / "report.html").read_text()
    assert not Path(tmp_path, "run", "figures").exists()


def test_of_a_key_with_several_values_only_those_that_differ_are_listed(tmp_path):
    write_run(tmp_path / "run", "training=data_parallel", "optimizer.eta_factor.rec_out=0.3")
    listed = {each.key: (each.value, each.default) for each in page.changed_keys(Run(tmp_path / "run"))}
    assert listed["optimizer.eta_factor.rec_out"] == ("0.3", "1.0")
    assert not {key for key in listed if key.startswith(("optimizer.", "connectivity."))} - {
        "optimizer.eta_factor.rec_out"
    }
