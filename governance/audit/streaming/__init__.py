"""The audit log, streamed to a SIEM: at least once, in order, from where it left off."""
