"""What the README and the pages of docs/ print: that commands compose, and that what they link to is there."""

import re
import shlex
from pathlib import Path

import pytest
from small import config

from eprop_cli.training.base import check_ready

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = [
    README,
    *(ROOT / f"{name}.md" for name in ("CONTRIBUTING", "CHANGELOG", "VISION")),
    *(ROOT / "docs").glob("*.md"),
]
MOST_LINES = 130
NOT_THERE = (
    "like",
    "resume",
    "synapse.weights_from",
    "engine.scheduler",
    "engine.backend",
)  # keys of what the pages only speak of


def commands(page):
    """The lines of a page's shell blocks that start one of our commands, as words."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("eprop-")]


def first_of_a_sweep(override):
    """The first job's value where an override has several."""
    key, value = override.split("=", 1)
    return override if value.startswith(("[", "{")) else f"{key}={value.split(',')[0]}"


COMPOSED = [
    pytest.param(words[1:], id=f"{page.stem}: {' '.join(words[1:])}")
    for page in PAGES
    for words in commands(page)
    # What brings classes or files of its own is run by test_extending.py, test_tasks.py and test_config.py.
    if words[0] in ("eprop-run", "eprop-verify")
    and "--config-dir" not in words
    and not re.search(r"\w:[A-Z]", str(words))
]


@pytest.mark.parametrize("words", COMPOSED)
def test_commands_compose(words):
    overrides = [word for word in words if "=" in word and word.split("=")[0].split("/")[0].split(".")[0] != "hydra"]
    if any(word.startswith("resume=") for word in overrides):
        return  # what else is given belongs to the run's config
    overrides = [word for word in overrides if word.split("=")[0] not in NOT_THERE and "(" not in word]
    overrides = [word for word in overrides if word != "engine=cuda"]  # which takes a device
    check_ready(config(*map(first_of_a_sweep, overrides)))


def test_there_are_commands_of_every_kind():
    found = [words for page in PAGES for words in commands(page)]
    assert {words[0] for words in found} >= {
        *("eprop-run", "eprop-plot", "eprop-compare", "eprop-verify", "eprop-report", "eprop-watch")
    }
    assert len(COMPOSED) >= 15
    assert any("-m" in words for words in found)
    assert any("training=data_parallel" in words for words in found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    local = [target for target in links(page) if not target.startswith("https://")]
    assert [target for target in local if not reachable(page, target)] == []


def links(page):
    """What a page links to, images included."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    return re.findall(r"\]\(([^)]+)\)", text)


def reachable(page, target):
    """Whether a link leads to a file, and to a heading of it where it names one."""
    path, _, heading = target.partition("#")
    file = page.parent / path if path else page
    if not heading:
        return file.exists()
    titles = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
    return heading in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_page_is_linked():
    linked = {(page.parent / target.partition("#")[0]).resolve() for page in PAGES for target in links(page)}
    assert [page.name for page in PAGES if page != README and page not in linked] == []


def test_the_readme_is_short_and_fits():
    lines = README.read_text().splitlines()
    assert len(lines) <= MOST_LINES
    assert [line for line in lines if len(line) > 125 and not line.startswith("|")] == []


def test_ci_finds_its_commands():
    for marker, start in {"run": ".venv/bin/eprop-run", "test": "-m pytest"}.items():
        (block,) = re.findall(rf"<!-- ci: {marker} -->\n```bash\n(.*?)```", README.read_text(), re.DOTALL)
        assert start in block
