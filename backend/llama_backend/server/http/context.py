"""A request that may be worked on: for which model, whose it is, and how long it may take."""

from __future__ import annotations

import re
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from time import monotonic

from starlette.requests import Request

from llama_backend.account import Account
from llama_backend.server.engines.deadline import Deadline, deadline_of
from llama_backend.server.engines.served_model import HostedModel
from llama_backend.server.engines.supervisor import Supervisor
from llama_backend.server.state import Server

_WAIT = re.compile(r"\bwait=(\d{1,6})\b")


@dataclass(frozen=True, slots=True)
class Call:
    """One request to compute something."""

    server: Server
    model: HostedModel
    account: Account
    patience: float
    """Seconds that it is willing to wait for a model that is loading."""
    deadline: Deadline

    @classmethod
    def of(cls, request: Request, server: Server, model: str, timeout: float | None) -> Call:
        """Raises what refuses it: an unknown model, a server that ends, a rate that is used up."""
        hosted = server.models.find(model)
        server.check_open()
        account: Account = request.state.account
        deadline = deadline_of(request, timeout, server.config.request_timeout)
        server.rates.take(account, monotonic())
        return cls(server, hosted, account, patience(request), deadline)

    def admitted(self, choices: int = 1) -> AbstractContextManager[None]:
        """A place in the queue for as many answers."""
        return self.server.admission.enter(self.server.slots, choices, self.account)

    def engine(self) -> AbstractAsyncContextManager[Supervisor]:
        """The model's engine once it is loaded, which stays loaded meanwhile."""
        return self.server.models.use(self.model, self.patience, self.deadline)


def patience(request: Request) -> float:
    """Seconds that a request is willing to wait for a model that is loading (RFC 7240, `Prefer: wait`)."""
    match = _WAIT.search(request.headers.get("prefer", ""))
    return float(match[1]) if match else 0.0
