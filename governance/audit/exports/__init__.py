"""Exports: the whole log, or selected events with their proofs."""
