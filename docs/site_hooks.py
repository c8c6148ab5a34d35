"""Hooks of mkdocs: the repository's own pages are in the site too, links lead within it, formulas are MathML."""

import html
import re
from pathlib import Path
from typing import Any

from griffe import Extension, Object
from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

TOP = Path(__file__).resolve().parent.parent
DOCS = TOP / "docs"
# what is read in the repository -> what the site calls it
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
    "VISION.md": "vision.md",
}
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
# a line of a docstring that says what an argument, an attribute or a column is
ITEM = re.compile(r"^(?=[a-z_]\w*(?:, [a-z_]\w*)*: )", re.MULTILINE)
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie outside docs/."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(TOP / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Lead links to pages of the site, and leave of those into the rest of the repository what they are called."""
    folder = TOP if page.file.src_uri in PAGES.values() else DOCS

    def link(match: re.Match[str]) -> str:
        text, target = match.groups()
        path, hash_, heading = target.partition("#")
        file = (folder / path).resolve()
        if not path or "://" in target or not file.is_relative_to(TOP) or not file.exists():
            return match[0]  # mkdocs warns of what leads nowhere
        source = file.relative_to(TOP).as_posix()
        there = PAGES.get(source, source.removeprefix("docs/"))
        return f"[{text}]({there}{hash_}{heading})" if files.get_file_from_path(there) else text

    return LINK.sub(link, markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Set formulas here, so that the pages need no script from elsewhere."""

    def formula(match: re.Match[str]) -> str:
        return convert(html.unescape(match[2]), display="block" if match[1] == "div" else "inline")

    return FORMULA.sub(formula, content)


class Docstrings(Extension):
    """Lists of what our docstrings say line by line, which Markdown would run together."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        """Make each such line an item; those that go on are indented."""
        if obj.docstring:
            paragraphs = re.sub(r"\n(?=Raises )", "\n\n", obj.docstring.value).split("\n\n")
            obj.docstring.value = "\n\n".join(map(_as_list, paragraphs))


def _as_list(paragraph: str) -> str:
    first, *others = ITEM.split(paragraph)
    items = [f"- {each.strip()}".replace("\n", "\n  ") for each in others]
    return "\n".join([first.strip(), "", *items] if first.strip() else items)
