"""Measurements. `python -m bench.<name>` prints a table of medians and ratios."""
