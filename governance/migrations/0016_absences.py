"""Absences of reviewers, and votes of their deputies, that hold in the database.

A vote in somebody's place needs an absence of theirs that is under way, for that speciality and
with that deputy. Nobody votes in the place of who is excluded from the review, nor twice for one
person: who was voted for in a round does not vote in it, and the other way round. An absence stands
as it was set; it can only be ended early.
"""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models
from django.db.models import F, Q

VOTE = """
CREATE FUNCTION assay_deputy_is_allowed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.in_place_of_id IS NOT NULL AND NOT EXISTS (
        SELECT FROM governance_absence AS absence
        WHERE absence.person_id = NEW.in_place_of_id AND absence.deputy_id = NEW.person_id
            AND absence.speciality = NEW.speciality AND absence.ended_at IS NULL
            AND absence.starts_at <= now() AND absence.ends_at > now()
    ) THEN
        RAISE EXCEPTION 'person % is no deputy of person %', NEW.person_id, NEW.in_place_of_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'deputy_has_an_absence';
    END IF;
    IF NEW.in_place_of_id IS NOT NULL AND EXISTS (
        SELECT FROM governance_review
        WHERE id = NEW.review_id AND NEW.in_place_of_id = ANY (excluded_people)
    ) THEN
        RAISE EXCEPTION 'person % is excluded from deciding on review %, and so is a deputy',
            NEW.in_place_of_id, NEW.review_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'excluded_people_have_no_deputy';
    END IF;
    IF EXISTS (
        SELECT FROM governance_decision AS other
        WHERE other.review_id = NEW.review_id AND other.round = NEW.round
            AND other.verdict <> 'comment'
            AND (other.in_place_of_id = NEW.person_id OR other.person_id = NEW.in_place_of_id)
    ) THEN
        RAISE EXCEPTION 'review % has a vote for person % in round %',
            NEW.review_id, NEW.person_id, NEW.round
            USING ERRCODE = 'check_violation', CONSTRAINT = 'one_vote_for_whom_is_away';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_deputy_is_allowed BEFORE INSERT ON governance_decision
    FOR EACH ROW WHEN (NEW.verdict <> 'comment') EXECUTE FUNCTION assay_deputy_is_allowed();
"""

STANDS = """
CREATE FUNCTION assay_absence_stands() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'absence % stands: % is refused', OLD.id, TG_OP
        USING ERRCODE = 'check_violation', CONSTRAINT = 'absence_stands';
END
$$;
CREATE TRIGGER assay_absence_stands BEFORE UPDATE ON governance_absence
    FOR EACH ROW WHEN (
        OLD.ended_at IS NOT NULL
        OR (OLD.person_id, OLD.deputy_id, OLD.speciality, OLD.starts_at, OLD.ends_at, OLD.set_by_id)
            IS DISTINCT FROM
           (NEW.person_id, NEW.deputy_id, NEW.speciality, NEW.starts_at, NEW.ends_at, NEW.set_by_id)
    ) EXECUTE FUNCTION assay_absence_stands();
CREATE TRIGGER assay_absence_stays BEFORE DELETE ON governance_absence
    FOR EACH ROW EXECUTE FUNCTION assay_absence_stands();
"""


class Migration(migrations.Migration):

    dependencies = [
        ('governance', '0015_person_erasure'),
    ]

    operations = [
        migrations.CreateModel(
            name='Absence',
            fields=[
                (
                    'id',
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name='ID'
                    ),
                ),
                (
                    'speciality',
                    models.CharField(
                        choices=[
                            ('compliance', 'Compliance'),
                            ('security', 'Security'),
                            ('model-risk', 'model risk'),
                            ('privacy', 'Privacy'),
                        ],
                        max_length=20,
                    ),
                ),
                ('starts_at', models.DateTimeField()),
                ('ends_at', models.DateTimeField()),
                ('ended_at', models.DateTimeField(blank=True, null=True)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                (
                    'deputy',
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name='deputyships',
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    'person',
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name='absences',
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    'set_by',
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name='+',
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={'ordering': ('-id',)},
        ),
        migrations.AddIndex(
            model_name='absence',
            index=models.Index(fields=['deputy', 'ends_at'], name='absences_of_deputy'),
        ),
        migrations.AddConstraint(
            model_name='absence',
            constraint=models.CheckConstraint(
                condition=~Q(person=F('deputy')), name='nobody_is_their_own_deputy'
            ),
        ),
        migrations.AddConstraint(
            model_name='absence',
            constraint=models.CheckConstraint(
                condition=Q(ends_at__gt=F('starts_at')), name='an_absence_ends_after_it_starts'
            ),
        ),
        migrations.AddField(
            model_name='decision',
            name='in_place_of',
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name='+',
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddConstraint(
            model_name='decision',
            constraint=models.UniqueConstraint(
                condition=Q(in_place_of__isnull=False),
                fields=('review', 'in_place_of', 'round'),
                name='one_deputy_votes_for_whom_is_away',
            ),
        ),
        migrations.RunSQL(VOTE, 'DROP FUNCTION assay_deputy_is_allowed() CASCADE;'),
        migrations.RunSQL(STANDS, 'DROP FUNCTION assay_absence_stands() CASCADE;'),
    ]
