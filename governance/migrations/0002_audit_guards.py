"""Guards in the database: recorded events can be neither changed nor removed by anyone.

An event may be changed once, from no sequence number to one; a checkpoint once, when it has been
published. The conditions are evaluated by the executor, so that an allowed change costs no call.
All but the one on INSERT fire in every session: not even `session_replication_role` turns them off.
"""

from django.db import migrations

REFUSE = """
CREATE FUNCTION assay_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege';
END
$$;
"""

EVENT_COLUMNS = (
    'id', 'occurred_at', 'actor_kind', 'actor_id', 'actor_name', 'department', 'action', 'outcome',
    'subject_type', 'subject_id', 'subject_name', 'reason', 'request_id', 'policy_version',
    'delivery', 'canonical', 'leaf_hash',
)
CHECKPOINT_COLUMNS = ('id', 'tree_size', 'root_hash', 'frontier', 'note', 'created_at')


def changed(columns):
    """SQL: any of `columns` differs between the old and the new row."""
    old = ', '.join(f'OLD.{name}' for name in columns)
    new = ', '.join(f'NEW.{name}' for name in columns)
    return f'({old}) IS DISTINCT FROM ({new})'


def row_trigger(table, event, condition='TRUE'):
    return (
        f'CREATE TRIGGER assay_append_only_{event.lower()} BEFORE {event} ON {table} '
        f'FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION assay_append_only();'
    )


def truncate_trigger(table):
    return (
        f'CREATE TRIGGER assay_append_only_truncate BEFORE TRUNCATE ON {table} '
        'FOR EACH STATEMENT EXECUTE FUNCTION assay_append_only();'
    )


def always(table, event):
    return f'ALTER TABLE {table} ENABLE ALWAYS TRIGGER assay_append_only_{event};'


GUARDS = [
    row_trigger('governance_auditevent', 'INSERT', 'NEW.sequence IS NOT NULL'),
    row_trigger(
        'governance_auditevent',
        'UPDATE',
        f'OLD.sequence IS NOT NULL OR NEW.sequence IS NULL OR {changed(EVENT_COLUMNS)}',
    ),
    row_trigger(
        'governance_auditcheckpoint',
        'UPDATE',
        f'OLD.published_at IS NOT NULL OR NEW.published_at IS NULL OR {changed(CHECKPOINT_COLUMNS)}',
    ),
    row_trigger('governance_usagerecord', 'UPDATE'),
]
for table in ('governance_auditevent', 'governance_auditcheckpoint', 'governance_usagerecord'):
    GUARDS += [row_trigger(table, 'DELETE'), truncate_trigger(table)]
    GUARDS += [always(table, event) for event in ('update', 'delete', 'truncate')]


class Migration(migrations.Migration):

    dependencies = [
        ('governance', '0001_initial'),
    ]

    operations = [
        migrations.RunSQL(REFUSE, 'DROP FUNCTION assay_append_only() CASCADE;'),
        *(migrations.RunSQL(sql, migrations.RunSQL.noop) for sql in GUARDS),
    ]
