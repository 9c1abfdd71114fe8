"""One module for each context's endpoints."""
