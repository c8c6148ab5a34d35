"""Write docs/config.md from the comments in conf/; with --check, fail if it is not current."""

import re
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
TARGET = TOP / "docs" / "config.md"
HEAD = """# Config reference

Made from the files in `conf/` by `python docs/config_reference.py`. Every key can be set on the command line
(`eprop-run task.n_iter=50`); a group's file is chosen by its name (`eprop-run recording=none`). A value `${.recall}`
refers to another key and follows it. The files of `experiment` set keys of other groups.
"""
GROUPS = ("task", "neuron", "synapse", "optimizer", "training", "engine", "recording", "kernel", "plots", "experiment")
LINE = re.compile(r"^(?P<indent> *)(?P<key>\w+):(?: +(?P<value>[^#]*?))?(?: +# (?P<comment>.*))?$")


def reference() -> str:
    """The whole reference as Markdown."""
    parts = [HEAD, "## Top level", *_table(TOP / "conf" / "config.yaml", "", until="hydra")]
    for group in GROUPS:
        parts.append(f"## {group}")
        for path in sorted((TOP / "conf" / group).glob("*.yaml")):
            lines = path.read_text().splitlines()
            about = " ".join(line[2:] for line in lines if line.startswith("# ") and "@package" not in line)
            keys = "" if group == "experiment" else f"{group}."
            parts += [f"### `{group}={path.stem}`", about.split(" The keys below")[0], *_table(path, keys)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(path: Path, prefix: str, until: str = "") -> list[str]:
    """The keys of a file as a Markdown table; none if it has no keys of its own."""
    rows, above = [], []
    for line in path.read_text().splitlines():
        match = LINE.match(line)
        if not match or (match["key"] in ("defaults", "name") and not match["indent"]):
            continue
        if until and match["key"] == until:
            break
        depth = len(match["indent"]) // 2
        above = [*above[:depth], match["key"]]
        key, value, comment = prefix + ".".join(above), match["value"] or "", match["comment"] or ""
        if value or comment:
            rows.append(f"| `{key}` | {f'`{value}`' if value else ''} | {comment.replace('|', '/')} |")
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
