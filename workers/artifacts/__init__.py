"""What the artifact store must hold, and the commands that look after it."""
