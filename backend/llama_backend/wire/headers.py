"""The names of HTTP headers that client and server use in addition to the common ones."""

from __future__ import annotations

RESUMABLE = "X-Resumable"
"""In a request: the name of an answer that can be resumed. In its response: for how many seconds it can be."""
LAST_EVENT_ID = "Last-Event-ID"
"""The number of the last event of an answer that the client has."""
REQUEST_TIMEOUT = "X-Request-Timeout"
"""Seconds after which the answer must be complete."""
SHOULD_RETRY = "X-Should-Retry"
"""Tells OpenAI's clients whether to send a failed request again."""
SESSION_ID = "X-Session-ID"
"""The same in all requests of one client, so that a router can send them all to the same backend."""
