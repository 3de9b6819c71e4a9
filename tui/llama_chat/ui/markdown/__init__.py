"""Markdown as rows of a terminal, laid out without a widget for each block.

Textual's own Markdown widget mounts a widget for every paragraph and list item, and mounts a growing list again with
every piece that arrives: 340 ms for 60 items. Here a growing document costs only the parsing and wrapping of its last
block, and rows that are not on the screen are never drawn.
"""
