"""People whom comments mention."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


OF_A_COMMENT = "comment_id IN (SELECT id FROM governance_threadcomment)"


class Migration(migrations.Migration):

    dependencies = [
        ('governance', '0031_playground_token'),
    ]

    operations = [
        migrations.CreateModel(
            name='Mention',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('seen_at', models.DateTimeField(blank=True, null=True)),
                ('comment', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='mentions', to='governance.threadcomment')),
                ('person', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'ordering': ('id',),
                'indexes': [models.Index(condition=models.Q(('seen_at__isnull', True)), fields=['person'], name='unseen_mentions')],
                'constraints': [models.UniqueConstraint(fields=('comment', 'person'), name='mentioned_once')],
            },
        ),
        migrations.RunSQL(
            [
                (
                    "SELECT assay_guard(%s, %s, %s)",
                    ("governance_mention", OF_A_COMMENT, OF_A_COMMENT),
                )
            ],
            [("SELECT assay_unguard(%s)", ("governance_mention",))],
        ),
    ]
