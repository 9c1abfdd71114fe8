"""Engines of other projects: each runs as a server process, reached over a Unix socket."""
