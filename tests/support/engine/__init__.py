"""An engine without llama.cpp, whose memory keeps the same rules, and what drives it."""
