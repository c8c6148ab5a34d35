"""Tell in one line what keeps eprop-run from beginning, and exit."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from eprop_cli.config.arguments import one_line
from eprop_cli.config.composition import is_bad_input
from eprop_cli.errors import legible, reason
from eprop_cli.terminal import BAD_INPUT

FAILED = 1  # exit status


@contextmanager
def exiting() -> Iterator[None]:
    """Exit if anything is wrong: of an exception in one of its callbacks Hydra would warn, and go on."""
    try:
        yield
    except Exception as error:
        if is_bad_input(error):
            refuse(error)
        fail(error)


def refuse(error: Exception) -> NoReturn:
    """Tell a bad input in one line and exit."""
    print(f"eprop-run: {legible(one_line(error))}", file=sys.stderr)
    sys.exit(BAD_INPUT)


def fail(error: Exception) -> NoReturn:
    """Tell what came in between before a run began, and exit."""
    if isinstance(error, OSError) and error.errno is None:  # OmegaConf's, of a file without keys
        refuse(error)
    if isinstance(error, OSError):
        print(f"eprop-run: {reason(error)}", file=sys.stderr)
    else:
        traceback.print_exception(error)
    sys.exit(FAILED)
