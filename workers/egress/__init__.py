"""Connections to providers and credentials for them; calls for intakes, and evaluations."""
