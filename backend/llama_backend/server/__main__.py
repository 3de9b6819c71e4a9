"""`python -m llama_backend.server CONFIG`: a server in the background, described by a JSON ServerConfig."""

from __future__ import annotations

import sys

import msgspec

from llama_backend.errors import BackendError
from llama_backend.host.privacy import keep_private
from llama_backend.server.main import run
from llama_backend.server_config import ServerConfig


def main() -> int:
    keep_private()
    config = msgspec.json.decode(sys.argv[1], type=ServerConfig)
    try:
        return run(config)
    except BackendError as error:
        print(f"llama-chat: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
