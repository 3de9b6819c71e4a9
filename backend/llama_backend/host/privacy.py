"""What every process of ours keeps to itself: its files, its memory, and the secrets in its environment."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Mapping

_NO_CORE = 1 if sys.platform == "linux" else 0
"""Bytes of a core dump. Linux pipes dumps to a program in spite of a limit of 0, and to none with one of 1."""

_NEEDED_NAMES = "HOME LANG LANGUAGE LOGNAME PATH SHELL TEMP TERM TMP TMPDIR TZ USER VIRTUAL_ENV"
_NEEDED_FAMILIES = (
    "LC_ LD_ DYLD_ PYTHON XDG_ MALLOC_ GLIBC_ "
    "CUDA_ NVIDIA_ NCCL_ HIP_ HSA_ ROCR_ ROCM_ AMD_ GPU_ VK_ GGML_ LLAMA_ ONEAPI_ SYCL_ ZE_ "
    "OMP_ GOMP_ KMP_ MKL_ OPENBLAS_ BLIS_ VECLIB_ NUMEXPR_"
)
"""How variables begin that Python, the loader, llama.cpp and its libraries read."""
_SECRET = ("TOKEN", "SECRET", "PASSW", "_KEY", "CREDENTIAL", "LLAMA_CHAT_")


def keep_private() -> None:
    """Has this process, and those that it starts, make files for this user alone and leave no core dump.

    Prompts and answers are in its memory and in most of what it writes. That others of the same user may still look
    into its memory is left as it is: they can read the history as well, and debuggers and profilers go on working.
    """
    os.umask(0o077)
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    limit = _NO_CORE if most == resource.RLIM_INFINITY else min(_NO_CORE, most)
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that a server or an engine may need, and none else.

    A list of what is needed holds where one of what is secret would not: any variable can hold a key.
    """
    return {name: value for name, value in environment.items() if _is_needed(name)}


def _is_needed(name: str) -> bool:
    known = name in _NEEDED_NAMES.split() or name.startswith(tuple(_NEEDED_FAMILIES.split()))
    return known and not any(word in name for word in _SECRET)
