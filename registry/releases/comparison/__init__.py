"""Comparison of a release with the live one of its name: numbers, data, settings, card, files.

`build.py` puts it together; each other module compares one thing and knows no database.
"""
