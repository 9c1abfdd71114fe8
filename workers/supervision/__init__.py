"""Supervision of one attempt: lease, inputs, the run's process, its events, and what it delivers.

Knows no Django and no database: a `JobControl` and `Files` stand for the control plane.
"""
