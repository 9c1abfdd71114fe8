"""Benchmarks: subject and reference interleaved in one run, medians and ratios."""
