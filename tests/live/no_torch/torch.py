"""Stands first on the path of a worker without torch."""

raise ImportError("This machine has no torch.")
