"""Needs of the artifact store, and the services that check, clean and copy it."""
