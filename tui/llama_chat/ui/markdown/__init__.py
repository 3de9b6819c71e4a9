"""Markdown as rows of a terminal, laid out without a widget for each block.

Textual's own Markdown widget mounts a widget for every paragraph and list item, and a growing list is mounted anew
with each piece that comes: 340 ms for 60 items. Here a growing document costs what parsing and wrapping its last
block costs, and rows that are not on the screen are never drawn.
"""
