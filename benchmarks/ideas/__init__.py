"""Benchmarks of ideas from the literature, each with one number."""
