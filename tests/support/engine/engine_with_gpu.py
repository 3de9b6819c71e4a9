"""`python -m tests.support.engine.engine_with_gpu BYTES CONFIG SOCKET`: an engine that believes it has a GPU.

The GPU has BYTES of free memory. A build for the processor alone computes all layers itself, but plans for the GPU.
"""

from __future__ import annotations

import sys
from unittest.mock import patch

from llama_backend.engine.__main__ import main
from llama_backend.engine.placement.device import Device

if __name__ == "__main__":
    size = int(sys.argv.pop(1))
    with patch("llama_backend.engine.tuning.gpu_devices", lambda: [Device("CUDA0", "a GPU", size, size)]):
        sys.exit(main())
