"""Supervise one attempt: its lease, inputs, process, events and result.

Uses neither Django nor the database: `JobControl` and `Files` represent the control plane.
"""
