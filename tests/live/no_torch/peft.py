"""Stands first on the path of a worker without torch: `workers.run.preload` imports it first."""

raise ImportError("This machine has no torch.")
