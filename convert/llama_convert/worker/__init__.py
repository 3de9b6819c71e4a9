"""llama.cpp in a separate process: a crash in C++ ends the task, but not the program that asked for it."""
