"""Assignments: people who look after a review. They do not change who may decide."""
