"""The inference engine: one process, one model, and one thread that computes.

`loading` puts an engine together, after `placement` has decided what is computed where. Then `loop` runs steps:

1. `messages` has read requests and cut their texts into tokens by `prompt`; the loop takes them between two steps.
2. `scheduler` gives sequences slots of `kv` and chooses the tokens of the step, within `budget`.
3. `speculation` adds tokens that may come next.
4. `llama` computes the batch with llama.cpp, and chooses the next tokens as `sampling` describes.
5. `outputs` collects the text of each answer, which `messages` sends to the server.

`engine` runs the parts 2 to 5; `embedder` computes embeddings beside the answers.
"""
