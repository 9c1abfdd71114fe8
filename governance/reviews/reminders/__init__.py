"""Reminders: who can still decide is told before a review is due, administrators after it."""
