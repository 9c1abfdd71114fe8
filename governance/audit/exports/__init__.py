"""The log taken along: the whole of it, or selected events with their proofs."""
