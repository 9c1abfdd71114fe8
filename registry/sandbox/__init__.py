"""Confinement and bounds of processes that read untrusted input."""
