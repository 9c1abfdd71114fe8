"""Answers of the API: IDs, names, states, times and links. Nothing here writes."""
