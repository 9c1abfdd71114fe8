"""A recall locks the table of versions in place of an advisory lock, which any role could hold.

Whoever inserts a version has a lock on its table until the commit. A recall's conflicts with it, so
that the trigger of the migration `recall` need not take one.
"""

from django.db import migrations

# The function keeps its trigger, owner and privileges.
_REPLACE = """
DO $do$ BEGIN
    EXECUTE replace(pg_get_functiondef('assay_not_on_recalled'::regproc), {before}, {after});
END $do$
"""
_LOCKS = """$lock$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtext('assay:recall'));
$lock$"""
_LOCKS_NOTHING = """$lock$
BEGIN
$lock$"""


class Migration(migrations.Migration):
    dependencies = [("registry", "0029_intake_virtual_tokens")]

    operations = [
        migrations.RunSQL(
            _REPLACE.format(before=_LOCKS, after=_LOCKS_NOTHING),
            _REPLACE.format(before=_LOCKS_NOTHING, after=_LOCKS),
        ),
    ]
