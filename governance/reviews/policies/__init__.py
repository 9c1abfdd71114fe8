"""Review policies: what a review asks for, as versioned data that a second person puts in force."""
