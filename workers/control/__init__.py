"""The interface between worker processes and the control plane."""
