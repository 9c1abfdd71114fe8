"""Backends of the artifact store. Other modules read and write through `registry.storage.store`."""
