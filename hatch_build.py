"""Have what is built say which commit it is of: in its version, and in a file of the package.

Hatchling takes the version of a source distribution from its PKG-INFO, so that one can be built without git.
"""

import importlib.util
import re
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent
ARCHIVED = ROOT / ".git_archival.txt"  # in archives as GitHub makes them, git has put the commit there


def version() -> str:
    """The version of the package, with the commit."""
    module = _versions()
    return str(module.of_commit(module.RELEASE, commit()))


def commit() -> str | None:
    """The commit that is built, with -dirty if tracked files have changes; None where nothing tells."""
    module = _versions()
    if (ROOT / ".git").exists():
        found = module.describe_commit(ROOT)
        return None if found is None else str(found)
    for path in (ROOT / "eprop_cli" / module.COMMIT, ARCHIVED):
        if path.is_file() and (match := re.search(r"\b[0-9a-f]{40,64}(-dirty)?\b", path.read_text())):
            return match[0]
    return None


class CommitHook(BuildHookInterface):
    """Puts the commit into the package."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the file, but where the package stays in its checkout."""
        found, module = commit(), _versions()
        if found is None or version == "editable":
            return
        self._directory = tempfile.TemporaryDirectory()
        path = Path(self._directory.name) / module.COMMIT
        path.write_text(found + "\n")
        build_data["force_include"][str(path)] = f"eprop_cli/{module.COMMIT}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was made beside the package."""
        if hasattr(self, "_directory"):
            self._directory.cleanup()


def _versions() -> Any:
    """eprop_cli.versions, which imports nothing that a build does not have."""
    spec = importlib.util.spec_from_file_location("versions", ROOT / "eprop_cli" / "versions.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
