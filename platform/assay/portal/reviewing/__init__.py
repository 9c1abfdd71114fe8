"""Data of the review page: one module and one template in `reviews/` for each part."""
