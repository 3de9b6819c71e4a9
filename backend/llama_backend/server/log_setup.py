"""The log on standard error, as text or as JSON lines. Prompts, answers and keys are never logged."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

import msgspec

from llama_backend.server_config import LogFormat

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class JsonFormatter(logging.Formatter):
    """One JSON object a line with `time`, `level`, `logger`, `message`, and `error` with the traceback of a failure."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def set_up_log(kind: LogFormat) -> None:
    """Logs to standard error; llama.cpp's lines are left out where that is a terminal.

    uvicorn's warnings are left out too: anyone who can connect can cause them, and could fill the disk with them.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if kind == "json" else logging.Formatter(_TEXT))
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    if sys.stderr.isatty():
        logging.getLogger("llama_backend.engine").setLevel(logging.ERROR)
