"""What `./demo --all` shows after the families: features that no single task stands for."""
