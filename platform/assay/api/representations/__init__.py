"""What the API answers with: ids, names, states, times and links. Nothing here writes."""
