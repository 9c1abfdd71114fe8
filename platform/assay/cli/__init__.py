"""The `assay` command.

Its functions import Django, modules that need Django, and slow packages when they run: help and
commands of the API start sooner, and the other commands load the settings first.
"""
