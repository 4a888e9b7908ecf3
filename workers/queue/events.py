"""Logs: one line per event, `TIME LEVEL event name=value …`, on stderr."""

import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any

_LOGGER = logging.getLogger("convscope")
_PLAIN = re.compile(r"[^\s\"=]+")
_LONGEST = 500


def log(event: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Log an event, such as `job.started`, with its fields; None is left out."""
    told = [f"{name}={_value(value)}" for name, value in fields.items() if value is not None]
    _LOGGER.log(level, "%s", " ".join([event, *told]))


def _value(value: Any) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    if len(text) > _LONGEST:
        text = text[:_LONGEST] + "…"
    if _PLAIN.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


class _OneLine(logging.Formatter):
    """Formats our events as they are, a library's as `log logger=… message="…"` with the traceback in the same line."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        if record.name == _LOGGER.name:
            what = record.getMessage()
        else:
            message = record.getMessage()
            if record.exc_info:
                message += "\n" + self.formatException(record.exc_info)
            what = f"log logger={record.name} message={_value(message)}"
        return f"{moment} {record.levelname.lower()} {what}"


def write_events(level: int = logging.INFO) -> None:
    """Send this process's events and libraries' warnings to stderr. Call once, at process start."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    _LOGGER.setLevel(level)
