"""A run or a sweep as one HTML page that needs nothing but itself: no file beside it, no request to anywhere."""

import base64
import io
import json
import logging
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eprop_cli.config.files import conf_dir, read_keys, read_top
from eprop_cli.errors import UserError, reason
from eprop_cli.reports.table import cell
from eprop_cli.runs.files import RUN, SWEEP, write_text
from eprop_cli.runs.leftovers import MOVED_ASIDE
from eprop_cli.runs.reader import Run, find_runs
from eprop_cli.schema import flatten

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


log = logging.getLogger(__name__)
PAGE = "report.html"
ORIGIN = '<meta name="generator" content="eprop-cli">'  # by which a page of ours is known
FIGURE_BYTES = 5_000_000  # of all figures on a page, which base64 makes a third more
DPI = 150
MAX_ROWS = 2000  # of a table; more are in the files that it comes from
MAX_ITERATIONS = 4  # recorded iterations whose figures are shown
# What run.json says that is told elsewhere on the page, or only to programs.
TOLD = (
    "status",
    "error",
    "config",
    "columns",
    "populations",
    "loss",
    "last_row",
    "format",
    "is_stream",
    "seconds",
    "warnings",
)


@dataclass(frozen=True)
class Table:
    """A table of text.

    numbers: what to sort each cell by, None for text. links: where the first cells lead, "" for nowhere.
    """

    title: str
    names: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[Sequence[float | None]]
    links: Sequence[str] = ()
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """A figure: what it is called, and a PNG in base64."""

    name: str
    data: str


@dataclass(frozen=True)
class ChangedKey:
    """A key whose value is not the default."""

    key: str
    value: str
    default: str
    meaning: str


def write_page(directory: Path) -> Path:
    """Write the page of a run directory, or of a folder of runs as a sweep leaves it, into it; returns its path.

    Raises UserError if there is no run or another file is in the way; what cannot be read of a run is on the page.
    """
    path = directory / PAGE
    if path.exists() and ORIGIN not in path.read_text(encoding="utf-8", errors="replace")[:1000]:
        raise UserError(f"{path}: was not written by eprop-report; move it")
    contents = _run_page(Run(directory)) if (directory / RUN).is_file() else _sweep_page(directory)
    text = _template().render(contents | {"origin": ORIGIN, "title": directory.resolve().name})
    write_text(path, text.encode("utf-8", "replace").decode("utf-8"))
    return path


def try_page(directory: Path) -> Path | None:
    """Write the page at the end of a run or sweep; that it cannot be written changes nothing in how that ended."""
    try:
        return write_page(directory)
    except Exception as error:
        log.warning("No report: %s", reason(error))
        return None


def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    place = Path(__file__).with_name("page.html")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(place.read_text(encoding="utf-8"))


def _run_page(run: Run) -> dict[str, Any]:
    from eprop_cli.runs.standing import KILLED

    problems: list[str] = []
    record = run.record
    status = KILLED if run.killed else record["status"]
    metrics = _read(lambda: run.metrics, problems)
    tables = [] if metrics is None or metrics.empty else [_metrics_table(metrics)]
    return {
        "kind": "run",
        "statuses": {status: 1},
        "facts": _facts(run, problems),
        "error": str(record.get("error") or ""),
        "warnings": [f"iteration {each['iteration']}: {each['text']}" for each in record.get("warnings") or []],
        "pictures": list(_pictures(_run_figures(run, problems), problems)),
        "changed_keys": _read(lambda: changed_keys(run), problems) or [],
        "tables": tables,
        "provenance": _provenance(record),
        "commands": _run_commands(run),
        "problems": list(dict.fromkeys(problems)),
    }


def _sweep_page(directory: Path) -> dict[str, Any]:
    from eprop_cli.runs.comparison import UNREADABLE, summarise

    if not directory.is_dir():
        raise UserError(f"{directory}: does not exist" if not directory.exists() else f"{directory}: is a file")
    runs = [run for run in find_runs(directory) if not any(map(MOVED_ASIDE.match, _parts(run, directory)))]
    if not runs:
        raise UserError(f"{directory}: no run directory in there (none holds a {RUN})")
    problems: list[str] = []
    table = summarise(runs)
    whole = [run for run, status in zip(runs, table["status"], strict=True) if status != UNREADABLE]
    statuses = table["status"].value_counts(sort=False).to_dict()
    first = whole[:1]
    swept = set(table.columns)
    return {
        "kind": "sweep",
        "statuses": statuses,
        "facts": {"runs": str(len(runs)), "seconds in all": f"{table['seconds'].sum():.1f}"},
        "error": "",
        "warnings": [],
        "pictures": list(_pictures(_sweep_figures(whole), problems)),
        "changed_keys": [each for run in first for each in changed_keys(run) if each.key not in swept],
        "tables": [_runs_table(runs, table, directory)],
        "provenance": {key: value for run in first for key, value in _provenance(run.record).items()},
        "commands": _sweep_commands(directory),
        "problems": problems,
    }


def changed_keys(run: Run) -> list[ChangedKey]:
    """The keys of a run's config whose values are not those of conf/, but for those that follow from others."""
    given = _read(lambda: flatten(run.raw_config), []) or {}
    config = run.config
    defaults = {key: (each.value, each.meaning) for key, each in read_top(conf_dir() / "config.yaml").items()}
    for group, keys in config.items():
        if isinstance(keys, dict):
            path = conf_dir() / group / f"{keys.get('name', 'default')}.yaml"
            found = read_keys(path) if path.is_file() and path.parent.parent == conf_dir() else {}
            defaults |= {f"{group}.{name}": (each.value, each.meaning) for name, each in found.items()}
    for key, (text, meaning) in [each for each in defaults.items() if each[1][0].startswith("{")]:
        below = flatten({key: _parsed(text)})
        defaults |= {name: ("null" if value is None else str(value), meaning) for name, value in below.items()}
    shown = []
    for key, value in flatten(config).items():
        value = given.get(key, value)
        default, meaning = defaults.get(key, ("", ""))
        name = key.endswith(".name") and key.count(".") == 1
        if key == "resume" or "${" in f"{value}{default if key not in given else ''}" or (name and not default):
            continue
        if not default or _parsed(default) != value:
            shown.append(ChangedKey(key, cell(value), default, meaning))
    return shown


def _parsed(text: str) -> Any:
    """A value as it stands in a YAML file, as Hydra reads it."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(OmegaConf.create(f"value: {text}"))["value"]  # type: ignore[call-overload, index]


def _read(read: Any, problems: list[str]) -> Any:
    """What a function reads; None, and a line among the problems, if it cannot."""
    try:
        return read()
    except UserError as error:
        problems.append(str(error))
        return None


def _facts(run: Run, problems: list[str]) -> dict[str, str]:
    """How a run ended, in short."""
    record = run.record
    config = _read(lambda: run.config, problems) or {}
    facts = {group: str(keys["name"]) for group, keys in config.items() if isinstance(keys, dict) and "name" in keys}
    facts |= {"seed": cell(config.get("seed")), "start": str(record.get("start")), "stop": str(record.get("stop"))}
    facts |= {f"seconds, {name}": cell(value) for name, value in (record.get("seconds") or {}).items()}
    last = record.get("last_row") or {}
    labels = {each.name: each.label for each in _read(lambda: run.columns, problems) or []}
    return facts | {f"last {labels.get(name, name)}": cell(value, ".4g") for name, value in last.items()}


def _provenance(record: Mapping[str, Any]) -> dict[str, str]:
    """All that run.json says of where a run comes from."""
    flat = flatten({key: value for key, value in record.items() if key not in TOLD})
    return {key: shlex.join(map(str, value)) if key.endswith("command") else cell(value) for key, value in flat.items()}


def _run_commands(run: Run) -> list[str]:
    place = shlex.quote(str(run.directory))
    again = [shlex.join(["eprop-run", f"like={run.directory}"]), f"eprop-verify {place}"]
    return [*again, f"eprop-plot {place}", f"eprop-plot --list {place}"]


def _sweep_commands(directory: Path) -> list[str]:
    place = shlex.quote(str(directory))
    commands = [f"eprop-compare {place}"]
    try:
        sweep = json.loads((directory / SWEEP).read_text(encoding="utf-8"))
        arguments = [*sweep["options"], "--multirun", *sweep["overrides"]]
    except (OSError, ValueError, LookupError, TypeError):
        return commands
    return [shlex.join(["eprop-run", *map(str, arguments)]), f"eprop-run resume={place}", *commands]


def _metrics_table(metrics: "pd.DataFrame") -> Table:
    left_out = len(metrics) - MAX_ROWS
    note = f"The last {MAX_ROWS} of {len(metrics)} rows; all are in metrics.csv." if left_out > 0 else ""
    return _table("Batches", metrics.tail(MAX_ROWS), note=note)


def _runs_table(runs: Sequence[Run], table: "pd.DataFrame", directory: Path) -> Table:
    names = ["/".join(_parts(run, directory)) for run in runs]
    pages = [
        f"{name}/{PAGE}" if (run.directory / PAGE).is_file() else "" for run, name in zip(runs, names, strict=True)
    ]
    note = f"The first {MAX_ROWS} of {len(runs)} runs; eprop-compare shows all." if len(runs) > MAX_ROWS else ""
    return _table("Runs", table.assign(run=names).head(MAX_ROWS), pages[:MAX_ROWS], note)


def _parts(run: Run, directory: Path) -> tuple[str, ...]:
    return run.directory.relative_to(directory).parts


def _table(title: str, frame: "pd.DataFrame", links: Sequence[str] = (), note: str = "") -> Table:
    from eprop_cli.schema import short_names

    text = frame.map(cell, digits=".4g")
    shown = [name for name in frame.columns if (text[name] != "").any()]
    names = short_names(shown)
    rows = text[shown].to_numpy().tolist()
    numbers = [[_number(value) for value in row] for row in frame[shown].to_numpy(dtype=object).tolist()]
    return Table(title, [names[name] for name in shown], rows, numbers, links, note)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and value == value else None


def _run_figures(run: Run, problems: list[str]) -> "Iterator[tuple[str, Figure]]":
    """All figures that there are data for; of many recorded iterations, some."""
    from eprop_cli.registry import VARIANTS, variant

    for name in VARIANTS["figure"]:
        try:
            for count, figure in enumerate(variant("figure", name).draw(run), start=1):
                yield figure
                if count == MAX_ITERATIONS:
                    problems.append(f"{name}: the first {MAX_ITERATIONS} figures; eprop-plot draws all")
                    break
        except UserError as error:
            problems.append(str(error))


def _sweep_figures(runs: Sequence[Run]) -> "Iterator[tuple[str, Figure]]":
    from eprop_cli.figures.comparison import sweep_figure

    if any(run.record.get("last_row") for run in runs):
        yield "comparison", sweep_figure(runs)


def _pictures(figures: "Iterator[tuple[str, Figure]]", problems: list[str]) -> Iterator[Picture]:
    """Figures as PNG, as many as a page takes."""
    from matplotlib import style

    from eprop_cli.figures.style import STYLE

    room = FIGURE_BYTES
    for name, figure in figures:
        with io.BytesIO() as file, style.context(STYLE):
            figure.savefig(file, format="png", dpi=DPI)
            data = file.getvalue()
        if len(data) > room:
            problems.append(f"{name}: left out, as the page would become too large; eprop-plot draws it")
            continue
        room -= len(data)
        yield Picture(name.replace("_", " "), base64.b64encode(data).decode())
