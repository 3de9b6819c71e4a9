"""How the next token is chosen, as plain data: chains of samplers, log probabilities, and grammars for schemas."""
