"""Answers of the API that several views share: IDs, names, states, times and links."""
