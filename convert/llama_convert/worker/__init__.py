"""llama.cpp at work in a process of its own: a crash in C++ ends the task and not the program that asked for it."""
