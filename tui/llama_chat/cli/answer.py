"""The answer of `ask`, from the backend to standard output."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import msgspec

from llama_chat.cli.conversation import Choice
from llama_chat.cli.display import output
from llama_chat.cli.display.waiting import Waiting
from llama_chat.errors import SchemaError
from llama_chat.turn import Turn


class Answer:
    """One turn whose text goes to a writer: piece by piece where it is `streamed`, or else as a whole."""

    def __init__(self, choice: Choice, writer: output.AnswerWriter, *, streamed: bool) -> None:
        settings = choice.setup.settings
        self._sampling = settings.sampling()
        self._connection = choice.connection()
        self._writer = writer
        self._streamed = streamed
        self._turn = Turn(
            choice.history,
            choice.conversation,
            model=self._connection.model,
            system=settings.system,
            record=settings.log,
        )

    def run(self, text: str) -> None:
        """Answers `text`. Ctrl+C raises KeyboardInterrupt once what had come is kept."""
        asyncio.run(self._answer(text))
        if self._turn.finish_reason == "length":
            output.hint("llama-chat: the answer ended at its limit of tokens")

    def check(self) -> None:
        """Raises SchemaError where a schema was asked for and the answer is no whole JSON text."""
        if self._sampling.json_schema is None:
            return
        try:
            msgspec.json.decode(self._turn.text)
        except (msgspec.DecodeError, RecursionError) as error:
            raise SchemaError(f"the answer does not satisfy the schema: {error}") from error

    def facts(self) -> dict[str, Any]:
        """What `--json` shows."""
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

    async def _answer(self, text: str) -> None:
        complete = False
        async with aclosing(self._connection):
            try:
                await self._stream(text)
                complete = True
            finally:
                self._writer.end(complete=complete)

    async def _stream(self, text: str) -> None:
        with Waiting() as waiting:
            self._connection.report_stages(waiting.say)
            async with aclosing(self._turn.stream(self._connection, text, self._sampling)) as deltas:
                async for delta in deltas:
                    waiting.end()
                    if self._streamed:
                        self._writer.write(delta.text)
        if not self._streamed:
            self._writer.write(self._turn.text)
