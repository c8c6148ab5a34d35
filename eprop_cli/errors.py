"""The errors that a user can cause, each told in one line."""

from typing import Any


def legible(text: str) -> str:
    """Text without what a terminal would obey: control characters and the like are shown escaped."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


class UserError(Exception):
    """Something the user asked for cannot be done; the message is one line that says what to change."""


class ConfigError(UserError):
    """A config value breaks a constraint.

    The message names key, value, constraint and, where the constraint alone does not tell, the remedy.
    """

    def __init__(self, key: str, value: Any, constraint: str) -> None:
        super().__init__(legible(f"{key}={_spelling(value)}: {constraint}"))
        self.key = key

    def __reduce__(self) -> Any:  # an exception made from three arguments pickles as one otherwise
        return _restore, (type(self), self.key, str(self))


class TrainingError(Exception):
    """A run that started well cannot go on; it ends FAILED with this message."""


def reason(error: BaseException) -> str:
    """Why something failed, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {error.filename}" if error.filename else "")
    expected = isinstance(error, UserError | TrainingError)
    return " ".join((str(error) if expected else f"{type(error).__name__}: {error}").split())


def require(condition: bool, key: str, value: Any, constraint: str) -> None:
    """Raise a ConfigError unless the condition holds."""
    if not condition:
        raise ConfigError(key, value, constraint)


def _spelling(value: Any) -> str:
    """A value as the user would write it on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{', '.join(map(_spelling, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_spelling(item)}' for key, item in value.items())}}}"
    return str(value)


def _restore(kind: type[ConfigError], key: str, message: str) -> ConfigError:
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    error.key = key
    return error
