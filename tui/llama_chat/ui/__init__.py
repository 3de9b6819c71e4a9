"""The terminal interface: everything that knows Textual.

From the keys down to the answer: `ChatScreen` has the keys and the widgets. `ChatSession` is the chat without them: the
backend, the token count, and the `ShownConversation`, from which each `Turn` is made. A `StreamingTurn` writes the
answer of one `Turn` to the screen while it arrives.
"""
