"""Tasks that worker processes offer: tested where they run, reported, and waited for."""
