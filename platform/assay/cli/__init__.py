"""The `assay` command. Its functions import Django, our code that needs Django, and whatever else
takes long, when they run: help and commands that only call the API start sooner without it, and
others must load the settings first."""
