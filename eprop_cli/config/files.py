"""Where the config files are."""

from pathlib import Path


def conf_dir() -> Path:
    """Directory of the config files: inside the package when installed, at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"
