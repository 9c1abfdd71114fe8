"""Engines that other programs run: a server in a process of its own, reached over a Unix socket."""
