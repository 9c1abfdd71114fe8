"""Tasks that worker processes offer, after a self-test where they run."""
