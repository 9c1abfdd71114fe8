"""Waivers: a second person excuses a checklist item of a review for a limited time."""
