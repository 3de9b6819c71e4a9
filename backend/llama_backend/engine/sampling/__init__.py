"""How a token is chosen: the chain of samplers, log probabilities, and grammars for JSON schemas."""
