"""Write docs/config.md from the comments in conf/; with --check, fail if it is not current."""

import sys
from collections.abc import Mapping
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP))

from eprop_cli.config.files import Key, package_of, read_keys, read_top  # noqa: E402

TARGET = TOP / "docs" / "config.md"
HEAD = """# Config reference

Made from the files in `conf/` by `python docs/config_reference.py`. Every key can be set on the command line
(`eprop-run task.n_iter=50`); a group's file is chosen by its name (`eprop-run recording=none`). A value `${.recall}`
refers to another key and follows it. The files of `experiment` set keys of other groups.
"""
GROUPS = (
    "task", "neuron", "synapse", "connectivity", "optimizer", "training", "engine", "recording", "kernel", "plots",
    "logger",    "experiment",
)  # fmt: skip


def reference() -> str:
    """The whole reference as Markdown."""
    parts = [HEAD, "## Top level", *_table(read_top(TOP / "conf" / "config.yaml"), "")]
    for group in GROUPS:
        parts.append(f"## {group}")
        for path in sorted((TOP / "conf" / group).glob("*.yaml")):
            lines = path.read_text().splitlines()
            about = " ".join(line[2:] for line in lines if line.startswith("# ") and "@package" not in line)
            parts += [f"### `{group}={path.stem}`", about.split(" The keys below")[0]]
            parts += [] if group == "experiment" else _table(read_keys(path), f"{package_of(path)}.")
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(keys: Mapping[str, Key], prefix: str) -> list[str]:
    """Keys as a Markdown table; none if there are none."""
    rows = [
        f"| `{prefix}{name}` | {f'`{key.value}`' if key.value else ''} | {key.meaning.replace('|', '/')} |"
        for name, key in keys.items()
    ]
    return ["\n".join(["| key | default | |", "|---|---|---|", *rows])] if rows else []


def main() -> None:
    """Write the reference, or check it."""
    text = reference()
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(text)
    elif TARGET.read_text() != text:
        sys.exit("docs/config.md is not current; run python docs/config_reference.py")


if __name__ == "__main__":
    main()
