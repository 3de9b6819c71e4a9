"""Keeps the data of this program's processes private: their files, memory, and secrets in the environment."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Mapping

_NO_CORE = 1 if sys.platform == "linux" else 0
"""Bytes of a core dump. With a limit of 0 Linux still pipes dumps to a program; with 1 it does not."""

_NEEDED_NAMES = "HOME LANG LANGUAGE LOGNAME PATH SHELL TEMP TERM TMP TMPDIR TZ USER VIRTUAL_ENV"
_NEEDED_FAMILIES = (
    "LC_ LD_ DYLD_ PYTHON XDG_ MALLOC_ GLIBC_ "
    "CUDA_ NVIDIA_ NCCL_ HIP_ HSA_ ROCR_ ROCM_ AMD_ GPU_ VK_ GGML_ LLAMA_ ONEAPI_ SYCL_ ZE_ "
    "OMP_ GOMP_ KMP_ MKL_ OPENBLAS_ BLIS_ VECLIB_ NUMEXPR_"
)
"""Beginnings of the variables that Python, the dynamic loader, llama.cpp and its libraries read."""
_SECRET = ("TOKEN", "SECRET", "PASSW", "_KEY", "CREDENTIAL", "LLAMA_CHAT_")


def keep_private() -> None:
    """Makes this process, and those that it starts, create files for this user alone and leave no core dump.

    Prompts and answers are in its memory and in most of what it writes. Other processes of the same user may still
    read its memory, so that debuggers and profilers work; they could read the history as well.
    """
    os.umask(0o077)
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    limit = _NO_CORE if most == resource.RLIM_INFINITY else min(_NO_CORE, most)
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with only the variables that a server or an engine may need.

    Removing known secrets would not be enough, since a variable of any name can hold a key.
    """
    return {name: value for name, value in environment.items() if _is_needed(name)}


def _is_needed(name: str) -> bool:
    known = name in _NEEDED_NAMES.split() or name.startswith(tuple(_NEEDED_FAMILIES.split()))
    return known and not any(word in name for word in _SECRET)
