"""All trials, one module each."""

from __future__ import annotations

from tests.hostile.frames import FRAMES
from tests.hostile.gguf_heads import GGUF_IN_BACKEND, GGUF_IN_CONVERTER, IMPORTANCE
from tests.hostile.grammars import GRAMMARS
from tests.hostile.histories import HISTORIES
from tests.hostile.http_bodies import HTTP_BODIES
from tests.hostile.http_heads import HTTP_HEADS
from tests.hostile.kv_states import KV_STATES
from tests.hostile.pickles import ARCHIVES, PICKLES
from tests.hostile.safetensors import SAFETENSORS
from tests.hostile.schedules import SCHEDULES
from tests.hostile.server_answers import SERVER_ANSWERS
from tests.hostile.templates import TEMPLATES
from tests.hostile.terminal_text import TERMINAL_TEXT
from tests.hostile.tokenizers import TOKENIZERS
from tests.hostile.trial import Trial

TRIALS: list[Trial] = [
    ARCHIVES,
    FRAMES,
    GGUF_IN_BACKEND,
    GGUF_IN_CONVERTER,
    GRAMMARS,
    HISTORIES,
    HTTP_BODIES,
    HTTP_HEADS,
    IMPORTANCE,
    KV_STATES,
    PICKLES,
    SAFETENSORS,
    SCHEDULES,
    SERVER_ANSWERS,
    TEMPLATES,
    TERMINAL_TEXT,
    TOKENIZERS,
]
