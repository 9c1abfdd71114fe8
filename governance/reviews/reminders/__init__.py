"""Reminders: to reviewers before a review is due, and to administrators when it is overdue."""
