"""How a token is chosen: the chain of samplers, log probabilities, grammars of JSON schemas."""
