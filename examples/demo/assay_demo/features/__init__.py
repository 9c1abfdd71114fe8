"""Features that `./demo --all` shows after the families, since no single task stands for them."""
