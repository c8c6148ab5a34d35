"""What the README prints: that its commands compose, and that what it links to is there."""

import re
import shlex
from pathlib import Path

import pytest
from small import config

from eprop_cli.engines.base import engine_class

README = Path(__file__).resolve().parent.parent / "README.md"


def commands():
    """The lines of the README's shell blocks that start eprop-run, as words."""
    blocks = re.findall(r"```bash\n(.*?)```", README.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("eprop-run")]


def first_of_a_sweep(override):
    """The first job's value where an override has several."""
    key, value = override.split("=", 1)
    return override if value.startswith(("[", "{")) else f"{key}={value.split(',')[0]}"


@pytest.mark.parametrize("words", [words for words in commands() if "--config-dir" not in words], ids=" ".join)
def test_commands_compose(words):
    overrides = [word for word in words if "=" in word and not word.startswith(("hydra", "resume="))]
    if any(word.startswith("hydra/sweeper=") for word in words):
        overrides = [override for override in overrides if "(" not in override]
    composed = config(*map(first_of_a_sweep, overrides))
    engine_class(composed).check_possible(composed)


def test_there_are_commands_of_every_kind():
    found = commands()
    assert len(found) >= 12
    assert [] in found
    assert any("-m" in words for words in found)
    assert any("training=data_parallel" in words for words in found)


def test_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)\)", README.read_text())
    local = [target for target in targets if not target.startswith("https://")]
    assert len(local) >= 6
    assert [target for target in local if not (README.parent / target).exists()] == []
