"""Public interface for plug-ins: `declare` for declarations, `run` for code that workers run.

Plug-ins import nothing else from Assay. See docs/reference/plug-in-interface.md.
"""
