"""A vocabulary as GGUF stores it, and how it is fitted to the rows of the embedding."""

from __future__ import annotations

from dataclasses import dataclass, field

from llama_convert.gguf.tensor_types import TokenType
from llama_convert.gguf.values import Metadata, boolean, f32s, i32s, string, strings, u32
from llama_convert.untrusted import MOST_TOKENS, excerpt

PAD_SCORE = -10000.0
ADDED_SCORE = -1000.0
META_SPACE = "▁"

_SPECIAL_KEYS = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}


@dataclass(slots=True)
class Vocabulary:
    """Tokens by id, and how text is cut into them.

    `model` is llama.cpp's name of the algorithm: "llama" (SentencePiece BPE, with `scores`) or "gpt2" (byte-level BPE,
    with `merges` and the pre-tokenizer `pre`). `special` maps bos, eos, unk and pad to ids. A flag that is None is
    left to llama.cpp's default. `warnings` are lines for the user.
    """

    model: str
    pre: str
    tokens: list[str] = field(default_factory=list)
    types: list[TokenType] = field(default_factory=list)
    scores: list[float] | None = None
    merges: list[str] | None = None
    special: dict[str, int] = field(default_factory=dict)
    add_bos: bool | None = None
    add_eos: bool | None = None
    add_space_prefix: bool | None = None
    warnings: list[str] = field(default_factory=list)

    def put(self, index: int, text: str, kind: TokenType, score: float) -> None:
        """Sets the token `index`; ids between the end and `index` become unused padding."""
        if not 0 <= index < MOST_TOKENS:
            raise ValueError(f"token {excerpt(text)} has the impossible id {index}")
        self._grow(index + 1)
        self.tokens[index] = text
        self.types[index] = kind
        if self.scores is not None:
            self.scores[index] = score

    def fit(self, rows: int) -> None:
        """Makes the vocabulary as long as the embedding has rows: pads it, or drops the tokens without a row."""
        if len(self.tokens) > rows:
            self.warnings.append(
                f"the last {len(self.tokens) - rows} tokens have no row in the embedding and are dropped"
            )
            del self.tokens[rows:], self.types[rows:]
            if self.scores is not None:
                del self.scores[rows:]
        self._grow(rows)
        for name, index in list(self.special.items()):
            if index >= rows:
                self.warnings.append(f"the {name} token {index} has no row in the embedding and is dropped")
                del self.special[name]

    def _grow(self, length: int) -> None:
        for index in range(len(self.tokens), length):
            self.tokens.append(f"[PAD{index}]")
            self.types.append(TokenType.UNUSED)
            if self.scores is not None:
                self.scores.append(PAD_SCORE)

    def metadata(self) -> Metadata:
        """The `tokenizer.ggml.*` values."""
        values: Metadata = {
            "tokenizer.ggml.model": string(self.model),
            "tokenizer.ggml.pre": string(self.pre),
            "tokenizer.ggml.tokens": strings(self.tokens),
            "tokenizer.ggml.token_type": i32s(self.types),
        }
        if self.scores is not None:
            values["tokenizer.ggml.scores"] = f32s(self.scores)
        if self.merges is not None:
            values["tokenizer.ggml.merges"] = strings(self.merges)
        for name, key in _SPECIAL_KEYS.items():
            if name in self.special:
                values[f"tokenizer.ggml.{key}_token_id"] = u32(self.special[name])
        flags = {"bos_token": self.add_bos, "eos_token": self.add_eos, "space_prefix": self.add_space_prefix}
        return values | {
            f"tokenizer.ggml.add_{name}": boolean(flag) for name, flag in flags.items() if flag is not None
        }
