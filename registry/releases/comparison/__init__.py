"""A release beside the one that serves under its name: numbers, data, settings, words, files.

`build.py` puts it together; each other module compares one thing and knows no database.
"""
