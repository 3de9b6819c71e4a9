"""A backend elsewhere, as the front end attaches to it."""

from __future__ import annotations

from llama_backend.wire.api import ChatMessage, ChatRequest
from llama_chat.backends.remote import RemoteBackend
from llama_chat.backends.targets import find_target
from llama_chat.backends.tunnel import make_route
from llama_chat.settings import Settings
from tests.support.scripted_server import MODEL

REQUEST = ChatRequest(model=MODEL, messages=[ChatMessage("user", "hi")])


def attach(url: str, **settings: str) -> RemoteBackend:
    """The backend at that URL."""
    chosen = Settings(target=url, **settings)  # type: ignore[arg-type]
    target = find_target(chosen)
    assert target is not None
    return RemoteBackend(chosen, make_route(target, chosen.api_key_file), target.name)


async def answer(backend: RemoteBackend) -> str:
    """The answer to REQUEST."""
    return "".join([delta.text async for delta in backend.chat(REQUEST)])
