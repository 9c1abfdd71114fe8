"""Figures that the controller measures and the web process shows to Prometheus."""
