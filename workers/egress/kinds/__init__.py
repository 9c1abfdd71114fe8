"""Kinds of credentials: how an opened secret authenticates one request."""
