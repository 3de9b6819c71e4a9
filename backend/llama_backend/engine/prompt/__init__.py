"""From conversations to token ids, and from token ids to text.

A conversation is rendered by the model's chat template (`renderer`, `template`), and `builder` makes token ids of the
result. `detokenizer` makes text of generated tokens.
"""
