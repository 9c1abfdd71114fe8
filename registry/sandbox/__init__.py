"""Confine and bound processes that read untrusted input."""
