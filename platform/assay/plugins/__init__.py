"""Public interface for plug-ins: `declare` for declarations, `run` for what workers run.


A plug-in imports nothing else of Assay. See docs/reference/plug-in-interface.md.
"""
