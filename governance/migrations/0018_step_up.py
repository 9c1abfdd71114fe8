"""A vote keeps the fresh proof of who cast it; an access token keeps its person's newest.

Votes from before have no proof. A decision never changes (`assay_decision_stands`), so a constraint
that is not validated against the rows that are there binds all that come, and no row in between.
"""

import datetime

import django.utils.timezone
from django.db import migrations, models

METHODS = ("webauthn", "totp", "recovery_codes", "local")
FRESH = datetime.timedelta(minutes=10)

NEW_VOTES = """
ALTER TABLE governance_decision ADD CONSTRAINT vote_has_a_fresh_proof CHECK (
    verdict = 'comment' OR (
        proof_method IN ('webauthn', 'totp', 'recovery_codes', 'local')
        AND proved_at IS NOT NULL
        AND proved_at <= created_at
        AND proved_at > created_at - interval '10 minutes'
    )
) NOT VALID;
"""


class Migration(migrations.Migration):
    dependencies = [("governance", "0017_waivers")]

    operations = [
        migrations.AddField(
            "decision", "proof_method", models.CharField(blank=True, default="", max_length=20)
        ),
        migrations.AddField("decision", "proved_at", models.DateTimeField(blank=True, null=True)),
        migrations.AlterField(
            "decision", "created_at", models.DateTimeField(default=django.utils.timezone.now)
        ),
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(
                    NEW_VOTES,
                    "ALTER TABLE governance_decision DROP CONSTRAINT vote_has_a_fresh_proof;",
                )
            ],
            state_operations=[
                migrations.AddConstraint(
                    "decision",
                    models.CheckConstraint(
                        name="vote_has_a_fresh_proof",
                        condition=models.Q(verdict="comment")
                        | (
                            models.Q(proof_method__in=METHODS, proved_at__isnull=False)
                            & models.Q(proved_at__lte=models.F("created_at"))
                            & models.Q(proved_at__gt=models.F("created_at") - FRESH)
                        ),
                    ),
                )
            ],
        ),
        migrations.AddField(
            "apikey", "proof_method", models.CharField(blank=True, default="", max_length=20)
        ),
        migrations.AddField("apikey", "proved_at", models.DateTimeField(blank=True, null=True)),
        migrations.AddConstraint(
            "apikey",
            models.CheckConstraint(
                name="only_a_persons_token_carries_their_proof",
                condition=models.Q(proof_method="", proved_at__isnull=True)
                | (
                    models.Q(person__isnull=False, proved_at__isnull=False)
                    & models.Q(proof_method__in=("webauthn", "totp", "recovery_codes"))
                ),
            ),
        ),
    ]
