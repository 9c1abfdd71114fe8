"""The controllers that run, and the one among them that leads."""
