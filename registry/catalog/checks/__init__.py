"""Checks of a task's declaration: each field, and the sample and examples that it brings."""
