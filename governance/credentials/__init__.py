"""Named secrets of departments that authenticate requests to providers of hosted models."""
