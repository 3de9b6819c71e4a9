"""How far quantised models are from the original: measured on a text, as a table and as a plot."""
