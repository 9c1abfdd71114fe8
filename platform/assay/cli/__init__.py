"""The `assay` command. Its functions import Django, and our code that needs Django, when they run:
commands that only call the API start sooner without it, and others must load the settings first."""
