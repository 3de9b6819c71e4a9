"""The log on standard error, for persons or as JSON lines. It holds no prompts, answers or keys."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

import msgspec

from llama_backend.server_config import LogFormat

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class JsonFormatter(logging.Formatter):
    """One object a line: `time`, `level`, `logger`, `message`, and where something failed `error`."""

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
    """Logs to standard error; what llama.cpp says only where that is no terminal.

    What uvicorn warns of is what strangers send, who could fill a disk with it.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if kind == "json" else logging.Formatter(_TEXT))
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    if sys.stderr.isatty():
        logging.getLogger("llama_backend.engine").setLevel(logging.ERROR)
