"""What the commands share at the terminal: exit statuses, parsers, how they end."""

import argparse
import contextlib
import io
import logging
import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import NoReturn

from eprop_cli.errors import UserError, legible
from eprop_cli.versions import version_line

BAD_INPUT = 2  # exit status
VERSION = "--version"
HELP = {"--help", "-h"}
WIDTH = 80  # columns that help fits in


class Parser(argparse.ArgumentParser):
    """Tells what is wrong in one line."""

    def __init__(self, prog: str, description: str, epilog: str) -> None:
        raw = argparse.RawDescriptionHelpFormatter
        super().__init__(prog, description=description, epilog=epilog, formatter_class=raw, allow_abbrev=False)
        self.add_argument(VERSION, action=_Version, nargs=0, help="print versions and exit")

    def error(self, message: str) -> NoReturn:
        """Exit."""
        self.exit(BAD_INPUT, f"{self.prog}: {message}; see {self.prog} --help\n")


class _Version(argparse.Action):
    """Prints versions, which are found out only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        print(version_line(parser.prog))
        parser.exit()


@contextlib.contextmanager
def narrow() -> Iterator[None]:
    """Fold the long lines of what is printed inside."""
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text):
            yield
    finally:
        for line in text.getvalue().splitlines():
            print(*textwrap.wrap(line, WIDTH, subsequent_indent="    ") if len(line) > WIDTH else [line], sep="\n")


def leave(prog: str, act: Callable[[], int]) -> NoReturn:
    """Exit with the status of an action, or with one line if it cannot be done."""
    replace_closed_outputs()
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # not that it builds a cache
    status: int | str | None = 0
    try:
        try:
            status = act()
        except SystemExit as ending:  # after --help, for one
            status = ending.code
        sys.stdout.flush()
    except UserError as error:
        status = complain(prog, error)
    except BrokenPipeError:  # the reader, such as head, has had enough
        drop_output()
    except OSError as error:
        told = complain(prog, f"{error.filename}: {error.strerror}" if error.filename else error.strerror or error)
        status = status or told
        try:
            sys.stdout.flush()
        except OSError:  # it was of what is printed
            drop_output()
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


def drop_output() -> None:
    """Let what is still to be printed go nowhere, or Python would complain of it on its way out."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(prog: str, problem: object) -> int:
    """Tell a problem in one line; returns the exit status of a bad input."""
    print(f"{prog}: {legible(str(problem))}", file=sys.stderr)
    return BAD_INPUT


def name_list(text: str) -> list[str]:
    """Names separated by commas, as the type of an option."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("must name at least one")
    return names


def index_list(text: str) -> list[int]:
    """Whole numbers from 0 separated by commas, as the type of an option."""
    names = name_list(text)
    if not all(name.isdecimal() for name in names):
        raise argparse.ArgumentTypeError("must be whole numbers from 0, separated by commas")
    return list(map(int, names))


def positive(text: str) -> int:
    """A whole number from 1, as the type of an option."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError("must be a whole number from 1")
    return int(text)


def replace_closed_outputs() -> None:
    """Let what is printed to an output that was closed, as by >&-, go nowhere, here and in processes started here."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_WRONLY)  # the number of the closed one, as the lowest that is free
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "w"))
