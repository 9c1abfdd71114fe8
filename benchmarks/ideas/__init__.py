"""Ideas of the field, each by one measured number."""
