"""Reminders of reviews that are due, each once, and the notices that carry them out."""

import django.contrib.postgres.fields
import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

OF_A_REVIEW = "review_id IN (SELECT id FROM governance_review)"
OF_A_REMINDER = "reminder_id IN (SELECT id FROM governance_reviewreminder)"
GUARDS = (
    ("governance_reviewreminder", OF_A_REVIEW, OF_A_REVIEW),
    ("governance_reviewnotice", OF_A_REMINDER, OF_A_REMINDER),
)


class Migration(migrations.Migration):
    dependencies = [
        ("governance", "0021_review_policies"),
    ]

    operations = [
        migrations.CreateModel(
            name="ReviewNotice",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "channel",
                    models.CharField(
                        choices=[("mail", "Mail"), ("webhook", "Webhook")], max_length=8
                    ),
                ),
                ("attempts", models.PositiveSmallIntegerField(default=0)),
                ("next_at", models.DateTimeField(null=True)),
                ("sent_at", models.DateTimeField(blank=True, null=True)),
                ("error", models.CharField(blank=True, max_length=200)),
            ],
            options={
                "ordering": ("id",),
            },
        ),
        migrations.CreateModel(
            name="ReviewReminder",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("early", "Early"),
                            ("late", "Late"),
                            ("overdue", "Overdue"),
                            ("escalated", "Escalated"),
                        ],
                        max_length=10,
                    ),
                ),
                (
                    "people",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.BigIntegerField(), default=list, size=None
                    ),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True)),
            ],
            options={
                "ordering": ("id",),
            },
        ),
        migrations.AddIndex(
            model_name="review",
            index=models.Index(
                condition=models.Q(("state__in", ("open", "changes_requested"))),
                fields=["due_at"],
                name="waiting_reviews_by_due_time",
            ),
        ),
        migrations.AddField(
            model_name="reviewnotice",
            name="person",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="reviewreminder",
            name="review",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT,
                related_name="reminders",
                to="governance.review",
            ),
        ),
        migrations.AddField(
            model_name="reviewnotice",
            name="reminder",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE,
                related_name="notices",
                to="governance.reviewreminder",
            ),
        ),
        migrations.AddConstraint(
            model_name="reviewreminder",
            constraint=models.UniqueConstraint(
                fields=("review", "kind"), name="each_reminder_once"
            ),
        ),
        migrations.AddIndex(
            model_name="reviewnotice",
            index=models.Index(
                condition=models.Q(("next_at__isnull", False)),
                fields=["next_at"],
                name="notices_to_send",
            ),
        ),
        migrations.AddConstraint(
            model_name="reviewnotice",
            constraint=models.UniqueConstraint(
                fields=("reminder", "channel", "person"),
                name="each_notice_once",
                nulls_distinct=False,
            ),
        ),
        migrations.AddConstraint(
            model_name="reviewnotice",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("channel", "webhook"), ("person__isnull", True)),
                    models.Q(("channel", "mail"), ("person__isnull", False)),
                    _connector="OR",
                ),
                name="mail_goes_to_somebody",
            ),
        ),
        *(
            migrations.RunSQL(
                [("SELECT assay_guard(%s, %s, %s)", guard)],
                [("SELECT assay_unguard(%s)", guard[:1])],
            )
            for guard in GUARDS
        ),
    ]
