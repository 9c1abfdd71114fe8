"""Review policies: requirements of reviews, as versioned data that a second person approves."""
