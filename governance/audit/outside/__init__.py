"""Copies outside this installation: the second place and the witnesses."""
