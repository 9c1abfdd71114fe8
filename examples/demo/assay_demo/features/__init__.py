"""Features that `./demo --all` shows after the families, because they are not single tasks."""
