"""One showcase per task: the same way through the product for every family of models."""
