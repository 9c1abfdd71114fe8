"""What each part of the review page shows: one module for each, one template in `reviews/`."""
