"""Benchmarks: interleave subject and reference in one run, and report medians and ratios."""
