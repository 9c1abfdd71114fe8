"""Limits on organisation and deployments, money and device time; prices; alerts."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("governance", "0005_key_details")]

    operations = [
        migrations.CreateModel(
            name="BudgetHold",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("reference", models.CharField(max_length=64, unique=True)),
                ("department", models.CharField(max_length=40)),
                ("kind", models.CharField(max_length=30)),
                (
                    "state",
                    models.CharField(
                        choices=[("open", "Open"), ("ended", "Ended"), ("settled", "Settled")],
                        default="open",
                        max_length=8,
                    ),
                ),
                ("reserved_device_ms", models.PositiveBigIntegerField(default=0)),
                ("reserved_micro", models.PositiveBigIntegerField(default=0)),
                ("device_second", models.PositiveBigIntegerField(default=0)),
                ("device_ms", models.PositiveBigIntegerField(default=0)),
                ("outcome", models.CharField(blank=True, default="", max_length=40)),
                ("made_at", models.DateTimeField()),
                ("running_since", models.DateTimeField(blank=True, null=True)),
                ("ended_at", models.DateTimeField(blank=True, null=True)),
            ],
            options={
                "ordering": ("-id",),
            },
        ),
        migrations.CreateModel(
            name="Price",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "deployment",
                    models.CharField(blank=True, default="", max_length=80, unique=True),
                ),
                ("prompt", models.PositiveBigIntegerField(default=0)),
                ("completion", models.PositiveBigIntegerField(default=0)),
                ("device_second", models.PositiveBigIntegerField(default=0)),
                ("updated_at", models.DateTimeField(auto_now=True)),
            ],
            options={
                "ordering": ("deployment",),
            },
        ),
        migrations.CreateModel(
            name="QuotaAlert",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("window", models.CharField(max_length=10)),
                ("threshold", models.PositiveSmallIntegerField()),
                ("used", models.PositiveBigIntegerField()),
                ("limit_then", models.PositiveBigIntegerField()),
                ("raised_at", models.DateTimeField(auto_now_add=True)),
            ],
            options={
                "ordering": ("-id",),
            },
        ),
        migrations.RemoveConstraint(
            model_name="quotalimit",
            name="one_limit_of_a_kind",
        ),
        migrations.RemoveConstraint(
            model_name="quotalimit",
            name="limit_names_one_subject",
        ),
        migrations.AddField(
            model_name="quotalimit",
            name="deployment",
            field=models.CharField(blank=True, default="", max_length=80),
        ),
        migrations.AddField(
            model_name="quotalimit",
            name="shadow",
            field=models.BooleanField(default=False),
        ),
        migrations.AddField(
            model_name="usagerecord",
            name="cost_micro",
            field=models.PositiveBigIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="usagerecord",
            name="device_ms",
            field=models.PositiveBigIntegerField(db_default=0, default=0),
        ),
        migrations.AlterField(
            model_name="quotalimit",
            name="kind",
            field=models.CharField(
                choices=[
                    ("requests_per_minute", "requests per minute"),
                    ("tokens_per_minute", "tokens per minute"),
                    ("concurrent_requests", "concurrent requests"),
                    ("tokens_per_day", "tokens per day"),
                    ("money_per_month", "money per month"),
                    ("gpu_seconds_per_month", "GPU-seconds per month"),
                ],
                max_length=30,
            ),
        ),
        migrations.AddIndex(
            model_name="usagerecord",
            index=models.Index(fields=["occurred_at"], name="usage_in_time"),
        ),
        migrations.AddConstraint(
            model_name="quotalimit",
            constraint=models.UniqueConstraint(
                fields=("department", "api_key", "deployment", "kind"),
                name="one_limit_of_a_kind",
                nulls_distinct=False,
            ),
        ),
        migrations.AddConstraint(
            model_name="quotalimit",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("api_key__isnull", True), ("department__isnull", True)),
                    models.Q(("department__isnull", True), ("deployment", "")),
                    models.Q(("api_key__isnull", True), ("deployment", "")),
                    _connector="OR",
                ),
                name="limit_names_one_subject_at_most",
            ),
        ),
        migrations.AddIndex(
            model_name="budgethold",
            index=models.Index(
                condition=models.Q(("state", "settled"), _negated=True),
                fields=["state", "id"],
                name="holds_not_settled",
            ),
        ),
        migrations.AddIndex(
            model_name="budgethold",
            index=models.Index(fields=["kind", "department", "-id"], name="holds_by_kind"),
        ),
        migrations.AddField(
            model_name="quotaalert",
            name="limit",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE,
                related_name="alerts",
                to="governance.quotalimit",
            ),
        ),
        migrations.AddConstraint(
            model_name="quotaalert",
            constraint=models.UniqueConstraint(
                fields=("limit", "window", "threshold"), name="one_alert_a_window"
            ),
        ),
    ]
