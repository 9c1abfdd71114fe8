"""Processes that read what comes from outside: what they may reach, and their bounds."""
