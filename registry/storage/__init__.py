"""Backends of the artifact store, and what keeps them whole. Users read and write through
`registry.storage.store`."""
