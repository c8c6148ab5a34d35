"""Hooks of mkdocs: pages that are read on their own too link into the repository, which is not part of the site."""

import re
from typing import Any

OUTSIDE = re.compile(r"\[([^\]]*)\]\((?:\.\./[^)]*|extending[^).]*(?:\.py)?|own_task(?:/[^)]*)?)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Leave of links to files of the repository what they are called."""
    return OUTSIDE.sub(r"\1", markdown)
