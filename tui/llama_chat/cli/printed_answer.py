"""The answer of `ask`, from the backend to standard output."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import msgspec

from llama_chat.cli.chat_start import ChatStart
from llama_chat.cli.display import output
from llama_chat.cli.display.waiting import WaitingLine
from llama_chat.errors import SchemaError
from llama_chat.turn import Turn


class PrintedAnswer:
    """One turn whose text goes to a writer: piece by piece where it is `streamed`, or else as a whole."""

    def __init__(self, start: ChatStart, writer: output.AnswerWriter, *, streamed: bool) -> None:
        settings = start.setup.settings
        self._sampling = settings.sampling()
        self._backend = start.backend()
        self._writer = writer
        self._streamed = streamed
        self._turn = Turn(
            start.history,
            start.conversation,
            model=self._backend.model,
            system=settings.system,
            record=settings.log,
        )

    def run(self, prompt: str) -> None:
        """Answers the prompt. Ctrl+C raises KeyboardInterrupt once what had come is in the history."""
        asyncio.run(self._answer(prompt))
        if self._turn.finish_reason == "length":
            output.print_hint("llama-chat: the answer was cut off at its limit of tokens")

    def check_schema(self) -> None:
        """Raises SchemaError where a schema was asked for and the answer is not a whole JSON text."""
        if self._sampling.json_schema is None:
            return
        try:
            msgspec.json.decode(self._turn.text)
        except (msgspec.DecodeError, RecursionError) as error:
            raise SchemaError(f"the answer does not satisfy the schema: {error}") from error

    def facts(self) -> dict[str, Any]:
        """What `--json` writes."""
        turn = self._turn
        return {
            "answer": turn.text,
            "finish_reason": turn.finish_reason,
            "model": turn.model,
            "seed": turn.seed,
            "usage": turn.usage,
            "timings": turn.timings,
            "conversation_id": turn.conversation.id if turn.conversation else None,
        }

    async def _answer(self, prompt: str) -> None:
        complete = False
        async with aclosing(self._backend):
            try:
                await self._stream(prompt)
                complete = True
            finally:
                self._writer.end(complete=complete)

    async def _stream(self, prompt: str) -> None:
        with WaitingLine() as waiting:
            self._backend.report_stages(waiting.set_stage)
            async with aclosing(self._turn.stream(self._backend, prompt, self._sampling)) as deltas:
                async for delta in deltas:
                    waiting.remove()
                    if self._streamed:
                        self._writer.write(delta.text)
        if not self._streamed:
            self._writer.write(self._turn.text)
