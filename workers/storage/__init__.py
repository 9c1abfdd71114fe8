"""Files that the artifact store must keep, and services that check, clean and copy the store."""
