"""An identity provider's groups become roles; people have an external id and a standing."""

import django.db.models.deletion
import django.db.models.functions.text
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("governance", "0006_budgets")]

    operations = [
        migrations.CreateModel(
            name="DirectoryGroup",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=255)),
                ("external_id", models.CharField(blank=True, default="", max_length=255)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("changed_at", models.DateTimeField(auto_now=True)),
            ],
            options={
                "ordering": ("name", "id"),
            },
        ),
        migrations.CreateModel(
            name="GroupMapping",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("group", models.CharField(max_length=255)),
                (
                    "role",
                    models.CharField(
                        choices=[
                            ("admin", "Admin"),
                            ("operator", "Operator"),
                            ("auditor", "Auditor"),
                            ("reviewer", "Reviewer"),
                            ("lead", "Lead"),
                            ("developer", "Developer"),
                            ("viewer", "Viewer"),
                        ],
                        max_length=20,
                    ),
                ),
                (
                    "speciality",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("compliance", "Compliance"),
                            ("security", "Security"),
                            ("model-risk", "model risk"),
                            ("privacy", "Privacy"),
                        ],
                        max_length=20,
                    ),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True)),
            ],
            options={
                "ordering": ("group", "id"),
            },
        ),
        migrations.AddField(
            model_name="person",
            name="changed_at",
            field=models.DateTimeField(auto_now=True),
        ),
        migrations.AddField(
            model_name="person",
            name="deactivated_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="person",
            name="deactivation_reason",
            field=models.CharField(blank=True, default="", max_length=300),
        ),
        migrations.AddField(
            model_name="person",
            name="deprovisioned_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="person",
            name="external_id",
            field=models.CharField(blank=True, default="", max_length=255),
        ),
        migrations.AddField(
            model_name="person",
            name="family_name",
            field=models.CharField(blank=True, default="", max_length=120),
        ),
        migrations.AddField(
            model_name="person",
            name="given_name",
            field=models.CharField(blank=True, default="", max_length=120),
        ),
        migrations.AddField(
            model_name="person",
            name="session_epoch",
            field=models.PositiveIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="person",
            name="user_name",
            field=models.CharField(blank=True, default="", max_length=254),
        ),
        migrations.AddField(
            model_name="roleassignment",
            name="group",
            field=models.CharField(blank=True, default="", max_length=255),
        ),
        migrations.AddField(
            model_name="roleassignment",
            name="source",
            field=models.CharField(
                choices=[
                    ("manual", "by hand"),
                    ("sso", "single sign-on"),
                    ("scim", "provisioning"),
                ],
                default="manual",
                max_length=10,
            ),
        ),
        migrations.AddConstraint(
            model_name="person",
            constraint=models.UniqueConstraint(
                django.db.models.functions.text.Upper("user_name"),
                condition=models.Q(("user_name", ""), _negated=True),
                name="user_name_used_once",
            ),
        ),
        migrations.AddConstraint(
            model_name="person",
            constraint=models.UniqueConstraint(
                condition=models.Q(("external_id", ""), _negated=True),
                fields=("external_id",),
                name="external_id_used_once",
            ),
        ),
        migrations.AddConstraint(
            model_name="person",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("is_active", False),
                    models.Q(
                        ("deactivated_at__isnull", True), ("deprovisioned_at__isnull", True)
                    ),
                    _connector="OR",
                ),
                name="who_is_deactivated_is_not_active",
            ),
        ),
        migrations.AddConstraint(
            model_name="roleassignment",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("group", ""), ("source", "manual")),
                    models.Q(
                        models.Q(("source", "manual"), _negated=True),
                        models.Q(("group", ""), _negated=True),
                    ),
                    _connector="OR",
                ),
                name="role_from_a_group_names_it",
            ),
        ),
        migrations.AddField(
            model_name="directorygroup",
            name="members",
            field=models.ManyToManyField(
                blank=True, related_name="directory_groups", to=settings.AUTH_USER_MODEL
            ),
        ),
        migrations.AddField(
            model_name="groupmapping",
            name="created_by",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="groupmapping",
            name="department",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="group_mappings",
                to="governance.department",
            ),
        ),
        migrations.AddConstraint(
            model_name="directorygroup",
            constraint=models.UniqueConstraint(
                django.db.models.functions.text.Upper("name"), name="group_name_used_once"
            ),
        ),
        migrations.AddConstraint(
            model_name="directorygroup",
            constraint=models.UniqueConstraint(
                condition=models.Q(("external_id", ""), _negated=True),
                fields=("external_id",),
                name="group_external_id_used_once",
            ),
        ),
        migrations.AddConstraint(
            model_name="groupmapping",
            constraint=models.UniqueConstraint(
                fields=("group", "role", "department", "speciality"),
                name="group_mapped_once",
                nulls_distinct=False,
            ),
        ),
        migrations.AddConstraint(
            model_name="groupmapping",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("department__isnull", False), ("role__in", ("lead", "developer", "viewer"))
                    ),
                    models.Q(
                        ("department__isnull", True),
                        ("role__in", ("admin", "operator", "auditor", "reviewer")),
                    ),
                    _connector="OR",
                ),
                name="mapped_department_role_names_its_department",
            ),
        ),
        migrations.AddConstraint(
            model_name="groupmapping",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("role", "reviewer"), models.Q(("speciality", ""), _negated=True)),
                    models.Q(models.Q(("role", "reviewer"), _negated=True), ("speciality", "")),
                    _connector="OR",
                ),
                name="mapped_speciality_belongs_to_reviewers",
            ),
        ),
    ]
