"""Checks of a task's declaration: its fields, its sample and its examples."""
