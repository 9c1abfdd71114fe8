"""The engine of hosted models: requests in the wire shapes of providers, and their answers."""
