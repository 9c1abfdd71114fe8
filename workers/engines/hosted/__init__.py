"""The engine of hosted models, and the wire shapes of providers."""
