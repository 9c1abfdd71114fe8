"""Streams of the audit log to a SIEM: at least once, in order, resumed at a cursor."""
