"""One database role per process, with the least that it needs: `manage.py apply_database_roles`."""
