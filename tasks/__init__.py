"""The tasks that ship with Assay: one folder each, found by entry point like any other package's.

Nothing imports this package by name. A folder's `__init__.py` holds the declaration and loads
neither Django nor torch; its runner, recipes and score are loaded by workers alone.
"""
