"""What a worker and its parent say to each other: one JSON object a line, each of a known type.

The parent sends one task. The worker answers with any number of `Progressed`, and at the end with the result of its
task or with `Failed`. Both sides decode strictly: a field that is missing, unknown or of another type is an error.
"""

from __future__ import annotations

import json

import msgspec


class _Task(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="task"):
    """A task; paths are absolute, or relative to the folder of the parent."""


class QuantizeTask(_Task, frozen=True, tag="quantize"):
    """Quantises `source` into `target`; `file_type` is llama.cpp's number for the quantisation."""

    source: str
    target: str
    file_type: int
    threads: int
    imatrix: str | None = None


class SizeTask(_Task, frozen=True, tag="size"):
    """Computes what quantising `source` to each of `file_types` would give; no weights are read."""

    source: str
    file_types: list[int]


class CheckTask(_Task, frozen=True, tag="check"):
    """Decodes a few tokens with the model at `path`; with `full` llama.cpp also validates every block."""

    path: str
    threads: int
    full: bool = False


class EvaluateTask(_Task, frozen=True, tag="evaluate"):
    """Measures the model at `path` on at most `windows` windows of `text`.

    `base` is a file of log probabilities. Without `compare` those of this model, the original, are written to it; with
    `compare` this model is compared with them.
    """

    path: str
    text: str
    base: str
    compare: bool
    windows: int
    threads: int


Task = QuantizeTask | SizeTask | CheckTask | EvaluateTask


class _Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="event"):
    """A line of the worker."""


class Progressed(_Event, frozen=True, tag="progress"):
    """`done` of `total` bytes or windows are finished."""

    done: int
    total: int


class Failed(_Event, frozen=True, tag="error"):
    """The task failed; `kind` is the name of a class in `llama_convert.errors`."""

    kind: str
    text: str


class Quantized(_Event, frozen=True, tag="quantized"):
    """The new type of each tensor that changed, and how many tensors fell back to which type.

    They fall back where their rows are not divisible by 256.
    """

    types: dict[str, str]
    fallbacks: dict[str, int]


class Sized(_Event, frozen=True, tag="sized"):
    """What each of the quantisations would give, in their order."""

    sizes: list[Quantized]


class Checked(_Event, frozen=True, tag="checked"):
    """The tokens that the model decoded."""

    tokens: list[int]


class Evaluated(_Event, frozen=True, tag="evaluated"):
    """The figures of a model. Without a comparison the divergence is 0 and the agreement 1.

    Divergences are in nats for each prediction; `agreement` is a share between 0 and 1.
    """

    predictions: int
    perplexity: float
    perplexity_error: float
    divergence: float = 0.0
    divergence_error: float = 0.0
    divergence_p99: float = 0.0
    divergence_max: float = 0.0
    agreement: float = 1.0
    probability_shift: float = 0.0


Result = Quantized | Sized | Checked | Evaluated
Event = Progressed | Failed | Quantized | Sized | Checked | Evaluated


def encode_line(message: Task | Event) -> bytes:
    """The message as a line of ASCII, since paths may hold bytes that are not UTF-8 (lone surrogates in Python)."""
    return json.dumps(msgspec.to_builtins(message)).encode() + b"\n"


def decode_task(line: bytes) -> Task:
    """The task in a line.

    Raises ValueError where it is not one.
    """
    task: Task = msgspec.convert(json.loads(line), Task)
    return task


def decode_event(line: bytes) -> Event:
    """The event in a line.

    Raises ValueError where it is not one.
    """
    event: Event = msgspec.convert(json.loads(line), Event)
    return event
