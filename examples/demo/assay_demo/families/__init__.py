"""One showcase per task: the same steps through the product for every family of models."""
