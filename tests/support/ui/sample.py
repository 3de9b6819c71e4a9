"""A conversation that shows what answers can look like."""

from __future__ import annotations

from pathlib import Path

from llama_chat.history import Conversation, History

QUESTION = "How deep is the sea?"
ANSWER = """On average about **3,700 m**; the deepest point is *Challenger Deep*.

1. Light ends at 1,000 m
2. Below that live
   - anglerfish
   - giant squid

| Ocean    | Deepest point   |      m |
|----------|-----------------|-------:|
| Pacific  | Challenger Deep | 10,935 |
| Atlantic | Milwaukee Deep  |  8,376 |

```python
def depth(bar: float) -> float:
    return (bar - 1) * 10  # metres
```
"""


def saved_conversation(history: History | None = None) -> tuple[History, Conversation]:
    """A history with the sample as its newest conversation."""
    history = history or History(Path(":memory:"))
    conversation = history.create(model="SmolLM2-135M-Instruct")
    question = history.add(conversation.id, "user", QUESTION, parent_id=None)
    answer = history.add(conversation.id, "assistant", "", parent_id=question.id)
    history.update(answer.id, ANSWER, finish_reason="stop")
    return history, history.conversation(conversation.id)
