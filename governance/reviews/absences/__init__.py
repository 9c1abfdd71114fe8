"""Who reviews in the place of a reviewer who is away."""
