"""What lies outside of this installation: the second place, and witnesses."""
