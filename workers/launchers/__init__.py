"""Launchers of runs: on this machine, or through the scheduler of a cluster."""
