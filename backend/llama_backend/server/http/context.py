"""The context of a request for something to compute: its model, its account, and how long it may wait and take."""

from __future__ import annotations

import re
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from time import monotonic

from starlette.requests import Request

from llama_backend.account import Account, scope_of
from llama_backend.server.engines.deadline import Deadline, deadline_of
from llama_backend.server.engines.request_table import RequestTable
from llama_backend.server.engines.served_model import ServedModel
from llama_backend.server.state import ServerState

_WAIT = re.compile(r"\bwait=(\d{1,6})\b")


@dataclass(frozen=True, slots=True)
class RequestContext:
    """The context of one request, which has passed the checks of its headers and its model's name."""

    server: ServerState
    model: ServedModel
    account: Account
    max_wait: float
    """Seconds that the client is willing to wait for a model that is loading."""
    deadline: Deadline

    @classmethod
    def of(cls, request: Request, server: ServerState, model: str, timeout: float | None) -> RequestContext:
        """The context of `request`. Raises ModelNotFound, Unavailable at shutdown, InvalidRequest, and RateLimited."""
        served = server.models.find(model)
        server.check_open()
        account: Account = request.state.account
        deadline = deadline_of(request, timeout, server.config.request_timeout)
        server.rates.take(account, monotonic())
        return cls(server, served, account, max_wait_of(request), deadline)

    def admitted(self, choices: int = 1) -> AbstractContextManager[None]:
        """Holds a place in the queue for each of the answers."""
        return self.server.admission.enter(self.server.slots, choices, self.account)

    def engine(self) -> AbstractAsyncContextManager[RequestTable]:
        """The requests to the model's engine, once the model is loaded; it stays loaded during the block."""
        return self.server.models.use(self.model, self.max_wait, self.deadline)

    def scope(self, salt: str | None) -> str:
        """The scope within which this request shares KV cells, see `scope_of`."""
        return scope_of(self.account, self.model.config.kv_sharing == "all", salt)


def max_wait_of(request: Request) -> float:
    """Seconds that the client is willing to wait for a model that is loading (RFC 7240, `Prefer: wait`)."""
    match = _WAIT.search(request.headers.get("prefer", ""))
    return float(match[1]) if match else 0.0
