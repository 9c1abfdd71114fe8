"""The engine of hosted models: typed requests in the wire shapes of providers, and their answers."""
