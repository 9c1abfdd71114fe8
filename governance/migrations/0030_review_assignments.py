"""People to whom reviews are assigned, and notices of assignments and mentions."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


OF_A_REVIEW = "review_id IN (SELECT id FROM governance_review)"


class Migration(migrations.Migration):

    dependencies = [
        ('governance', '0029_empowered_at'),
    ]

    operations = [
        migrations.CreateModel(
            name='ReviewAssignment',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('assigned_at', models.DateTimeField(auto_now_add=True)),
            ],
            options={
                'ordering': ('id',),
            },
        ),
        migrations.RemoveConstraint(
            model_name='reviewreminder',
            name='each_reminder_once',
        ),
        migrations.AlterField(
            model_name='reviewreminder',
            name='kind',
            field=models.CharField(choices=[('early', 'Early'), ('late', 'Late'), ('overdue', 'Overdue'), ('escalated', 'Escalated'), ('emergency', 'Emergency'), ('assigned', 'Assigned'), ('mentioned', 'Mentioned')], max_length=10),
        ),
        migrations.AddConstraint(
            model_name='reviewreminder',
            constraint=models.UniqueConstraint(condition=models.Q(('kind__in', ('emergency', 'assigned', 'mentioned')), _negated=True), fields=('review', 'kind'), name='each_reminder_once'),
        ),
        migrations.AddField(
            model_name='reviewassignment',
            name='assigned_by',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='reviewassignment',
            name='person',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='reviewassignment',
            name='review',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='assignments', to='governance.review'),
        ),
        migrations.AddConstraint(
            model_name='reviewassignment',
            constraint=models.UniqueConstraint(fields=('review', 'person'), name='assigned_once'),
        ),
        migrations.RunSQL(
            [
                (
                    "SELECT assay_guard(%s, %s, %s)",
                    ("governance_reviewassignment", OF_A_REVIEW, OF_A_REVIEW),
                )
            ],
            [("SELECT assay_unguard(%s)", ("governance_reviewassignment",))],
        ),
    ]
