"""The tasks that ship with Assay: one folder each, found by entry point as in any other package.

Nothing imports this package by name. A folder's `__init__.py` holds the declaration and loads
neither Django nor torch; only workers load its runner, recipes and score.
"""
