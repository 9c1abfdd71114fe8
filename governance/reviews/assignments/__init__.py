"""Assignments: people who look after a review. They change nothing of who may decide."""
