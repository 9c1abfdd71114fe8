"""One database role per process, with least privilege: `manage.py apply_database_roles`."""
