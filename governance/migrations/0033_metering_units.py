"""Units of use in the ledger, in kinds of limits and in prices.

Adding `units` rewrites the ledger once: PostgreSQL computes it for every record, old and new, so that
no append-only row is updated.
"""

import django.db.models.expressions
import django.db.models.functions.comparison
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('governance', '0032_mentions'),
    ]

    operations = [
        migrations.AddField(
            model_name='price',
            name='units',
            field=models.JSONField(blank=True, db_default={}, default=dict),
        ),
        migrations.AddField(
            model_name='usagerecord',
            name='metered',
            field=models.PositiveBigIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name='usagerecord',
            name='unit',
            field=models.CharField(db_default='tokens', default='tokens', max_length=20),
        ),
        migrations.AlterField(
            model_name='quotalimit',
            name='kind',
            field=models.CharField(choices=[('requests_per_minute', 'requests per minute'), ('concurrent_requests', 'concurrent requests'), ('tokens_per_minute', 'tokens per minute'), ('tokens_per_day', 'tokens per day'), ('tokens_per_month', 'tokens per month'), ('images_per_minute', 'images per minute'), ('images_per_day', 'images per day'), ('images_per_month', 'images per month'), ('megapixels_per_minute', 'megapixels per minute'), ('megapixels_per_day', 'megapixels per day'), ('megapixels_per_month', 'megapixels per month'), ('audio_seconds_per_minute', 'audio seconds per minute'), ('audio_seconds_per_day', 'audio seconds per day'), ('audio_seconds_per_month', 'audio seconds per month'), ('characters_per_minute', 'characters per minute'), ('characters_per_day', 'characters per day'), ('characters_per_month', 'characters per month'), ('points_per_minute', 'points per minute'), ('points_per_day', 'points per day'), ('points_per_month', 'points per month'), ('money_per_month', 'money per month'), ('gpu_seconds_per_month', 'GPU-seconds per month')], max_length=30),
        ),
        migrations.AddConstraint(
            model_name='usagerecord',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('metered', 0), ('unit', 'tokens')), models.Q(models.Q(('unit', 'tokens'), _negated=True), ('completion_tokens', 0), ('prompt_tokens', 0)), _connector='OR'), name='usage_in_one_unit'),
        ),
        migrations.AddField(
            model_name='usagerecord',
            name='units',
            field=models.GeneratedField(db_persist=True, expression=models.Case(models.When(then=django.db.models.expressions.CombinedExpression(django.db.models.functions.comparison.Cast('prompt_tokens', models.BigIntegerField()), '+', django.db.models.functions.comparison.Cast('completion_tokens', models.BigIntegerField())), unit='tokens'), default=models.F('metered'), output_field=models.BigIntegerField()), output_field=models.BigIntegerField()),
        ),
    ]
