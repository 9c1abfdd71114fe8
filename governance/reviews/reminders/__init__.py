"""Reminders: who can still decide hears before a review is due, administrators when it is overdue."""
