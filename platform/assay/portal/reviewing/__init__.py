"""Data of each part of the review page: one module for each, one template in `reviews/`."""
