"""Draws the picture of the chat that the README shows: `python -m tests.tui.ui.make_readme_picture`."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from llama_backend.wire.status import BackendStatus
from llama_chat.ui.app import ChatApp
from llama_chat.ui.chat_options import ChatOptions
from llama_chat.ui.prompt.area import PromptArea
from llama_chat.ui.widgets.status_line import StatusLine
from tests.support.ui.sample import saved_conversation
from tests.support.ui.scripted_backend import ScriptedBackend
from tests.support.wait import until_async

PICTURE = Path(__file__).with_name("readme.svg")
_MODEL = "llama2:7b-chat"
_CONTEXT = 4096
_FOREIGN_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


async def draw() -> str:
    """The chat with the sample conversation, as an SVG that loads nothing from elsewhere."""
    history, conversation = saved_conversation()
    ready = BackendStatus(state="ready", model=_MODEL, context=_CONTEXT)
    backend = ScriptedBackend(states=[ready], context=_CONTEXT)
    app = ChatApp(backend, history, ChatOptions(model=_MODEL, theme="textual-dark"), conversation)
    async with app.run_test(size=(80, 24)) as pilot:
        app.query_one(PromptArea).put("And how cold is it down there?")
        line = app.query_one(StatusLine)
        await until_async(lambda: line.status.reading.is_exact)
        await pilot.pause()
        picture = app.export_screenshot(title="llama-chat")
    return _FOREIGN_FONTS.sub("", picture)


if __name__ == "__main__":
    PICTURE.write_text(asyncio.run(draw()), encoding="utf-8")
