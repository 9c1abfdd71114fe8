"""Waivers: one checklist item of one review excused, for a time, by a second person."""
