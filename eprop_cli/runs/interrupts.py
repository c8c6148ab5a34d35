"""Signals at which a run ends in order."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

log = logging.getLogger(__name__)
TOLD = "Stopping after this iteration (Ctrl-C again: now)."


def stopping() -> tuple[signal.Signals, ...]:
    """Signals to end in order at; SIGHUP, by which a terminal goes, only where it is not ignored, as after nohup."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM, *(() if ignored else (signal.SIGHUP,)))


class Interruption(BaseException):
    """One of the stopping() signals came."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Interrupts:
    """Raises the first of stopping() as an Interruption, if held back then on release; later ones are ignored.

    patient: whether a first Ctrl-C waits for the next release() too, to lose nothing of what is computed; a second does
    not. Other signals leave little time.
    """

    def __init__(self) -> None:
        self.patient = False
        self._number: int | None = None
        self._held = True
        self._waits = False  # for the next release, or another Ctrl-C

    def receive(self, number: int, _frame: Any) -> None:
        """Handle a signal."""
        if self._number is None:  # SLURM, for one, sends several; the end that follows is to be whole
            self._number = number
            self._waits = self.patient and number == signal.SIGINT
            if self._waits:
                # From a thread: this one may hold a lock of the terminal's.
                threading.Thread(target=log.warning, args=(TOLD,)).start()
            elif not self._held:
                raise Interruption(number)
        elif self._waits and not self._held:
            self._waits = False
            raise Interruption(self._number)

    def hold(self) -> None:
        """Do not raise for the time being: files are written."""
        self._held = True

    def release(self) -> None:
        """Raise from here on, and at once if a signal came meanwhile."""
        self._held = self._waits = False
        if self._number is not None:
            raise Interruption(self._number)


@contextmanager
def interruptible() -> Iterator[Interrupts]:
    """Heed the stopping() signals, which are held back at first; off the main thread there are none."""
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    before = {number: signal.signal(number, interrupts.receive) for number in stopping()}
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def interruption_behind(error: BaseException | None) -> Interruption | None:
    """The interruption that an error took the place of: libraries may fail when left in mid-work.

    A KeyboardInterrupt is one too: a function of the user's may raise it where no handler of signals is.
    """
    while error is not None and not isinstance(error, Interruption | KeyboardInterrupt):
        error = error.__context__
    return Interruption(signal.SIGINT) if isinstance(error, KeyboardInterrupt) else error
