"""The `assay` command. Its functions import Django, and our own code that needs it, when they run:
a command that only calls the API starts sooner without, and others read the settings first."""
