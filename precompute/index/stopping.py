"""Defer Ctrl-C and `kill` to the end of a batch, when the state is consistent."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class postponed_signals:
    """While active, SIGINT and SIGTERM are recorded; `obey` then performs their original action.

    A second signal triggers it immediately. Ignored signals stay ignored. Outside the main thread, where
    Python delivers no signals, this does nothing.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._noted: int | None = None

    def __enter__(self) -> "postponed_signals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                # None: a handler that was not installed from Python cannot be restored
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore()
        if kind is None:
            self.obey()

    @property
    def noted(self) -> bool:
        """Whether a signal is pending."""
        return self._noted is not None

    def obey(self) -> None:
        """Perform the action of the pending signal, if there is one."""
        if self._noted is not None:
            number, self._noted = self._noted, None
            self._restore()
            signal.raise_signal(number)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self._noted is not None:
            self.obey()
        self._noted = number

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
