"""Processes in which an engine worker runs its engines: client, server, frames."""
