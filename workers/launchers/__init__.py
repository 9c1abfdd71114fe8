"""Ways to start the process of a run: on this machine, or through the scheduler of a cluster."""
