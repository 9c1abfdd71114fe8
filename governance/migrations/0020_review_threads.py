"""Threads of a review, drafts of comments, and that no approval passes an open blocking thread.

What was said stands. A thread blocks only when somebody who may decide began it. Approving and
opening or reopening a thread hold the review's row, so that one of them sees the other.
"""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

KINDS = [
    ("general", "the whole"),
    ("item", "checklist item"),
    ("metric", "metric"),
    ("card", "section of the model card"),
    ("file", "file"),
    ("answer", "risk answer"),
    ("dossier", "section of the dossier"),
]
STATES = [("open", "Open"), ("resolved", "Resolved")]
SAID = [("comment", "Comment"), ("resolve", "Resolve"), ("reopen", "Reopen")]

THREAD = """
CREATE FUNCTION assay_thread_is_allowed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    review governance_review%ROWTYPE;
BEGIN
    SELECT * INTO review FROM governance_review WHERE id = NEW.review_id FOR SHARE;
    IF NEW.state = 'open' AND review.state NOT IN ('open', 'changes_requested') THEN
        RAISE EXCEPTION 'review % is %: no thread is opened in it', review.id, review.state
            USING ERRCODE = 'check_violation', CONSTRAINT = 'closed_review_has_no_new_thread';
    END IF;
    IF TG_OP = 'INSERT' AND NEW.blocking
       AND (NEW.opened_by_id = review.opened_by_id
            OR NEW.opened_by_id = ANY (review.excluded_people)) THEN
        RAISE EXCEPTION 'person % had a part in what review % is about and blocks nothing in it',
            NEW.opened_by_id, review.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'excluded_people_never_block';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_thread_is_allowed BEFORE INSERT OR UPDATE ON governance_reviewthread
    FOR EACH ROW EXECUTE FUNCTION assay_thread_is_allowed();

CREATE FUNCTION assay_thread_stands() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'thread % stands: % is refused', OLD.id, TG_OP
        USING ERRCODE = 'check_violation', CONSTRAINT = 'thread_stands';
END
$$;
CREATE TRIGGER assay_thread_stands_update BEFORE UPDATE ON governance_reviewthread
    FOR EACH ROW WHEN (
        (OLD.id, OLD.review_id, OLD.anchor_kind, OLD.anchor_key, OLD.digest, OLD.round,
         OLD.blocking, OLD.opened_by_id, OLD.opened_at)
        IS DISTINCT FROM
        (NEW.id, NEW.review_id, NEW.anchor_kind, NEW.anchor_key, NEW.digest, NEW.round,
         NEW.blocking, NEW.opened_by_id, NEW.opened_at)
    ) EXECUTE FUNCTION assay_thread_stands();
CREATE TRIGGER assay_thread_stands_delete BEFORE DELETE ON governance_reviewthread
    FOR EACH ROW EXECUTE FUNCTION assay_thread_stands();
"""
NO_THREAD = """
DROP FUNCTION assay_thread_is_allowed() CASCADE;
DROP FUNCTION assay_thread_stands() CASCADE;
"""

APPROVAL = """
CREATE FUNCTION assay_approval_has_no_open_thread() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM governance_reviewthread
               WHERE review_id = NEW.id AND blocking AND state = 'open') THEN
        RAISE EXCEPTION 'review % has open threads that block its approval', NEW.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'approval_has_no_open_thread';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_approval_has_no_open_thread BEFORE UPDATE ON governance_review
    FOR EACH ROW WHEN (NEW.state = 'approved' AND OLD.state <> 'approved')
    EXECUTE FUNCTION assay_approval_has_no_open_thread();
"""

COMMENTS = """
CREATE TRIGGER assay_append_only_update BEFORE UPDATE ON governance_threadcomment
    FOR EACH ROW EXECUTE FUNCTION assay_append_only();
CREATE TRIGGER assay_append_only_delete BEFORE DELETE ON governance_threadcomment
    FOR EACH ROW EXECUTE FUNCTION assay_append_only();
CREATE TRIGGER assay_append_only_truncate BEFORE TRUNCATE ON governance_threadcomment
    FOR EACH STATEMENT EXECUTE FUNCTION assay_append_only();
ALTER TABLE governance_threadcomment ENABLE ALWAYS TRIGGER assay_append_only_update;
ALTER TABLE governance_threadcomment ENABLE ALWAYS TRIGGER assay_append_only_delete;
ALTER TABLE governance_threadcomment ENABLE ALWAYS TRIGGER assay_append_only_truncate;
"""

OF_A_REVIEW = "review_id IN (SELECT id FROM governance_review)"
OF_A_THREAD = "thread_id IN (SELECT id FROM governance_reviewthread)"
MINE = "person_id = (SELECT assay_person())"
GUARDS = (
    ("governance_reviewthread", OF_A_REVIEW, OF_A_REVIEW),
    ("governance_threadcomment", OF_A_THREAD, OF_A_THREAD),
    ("governance_commentdraft", MINE, MINE),
)


def person(null=False):
    return models.ForeignKey(
        blank=null,
        null=null,
        on_delete=django.db.models.deletion.PROTECT,
        related_name="+",
        to=settings.AUTH_USER_MODEL,
    )


def key():
    return models.BigAutoField(
        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
    )


def anchored():
    return [
        ("anchor_kind", models.CharField(choices=KINDS, max_length=10)),
        ("anchor_key", models.CharField(blank=True, max_length=300)),
        ("digest", models.CharField(max_length=64)),
        ("round", models.PositiveIntegerField()),
    ]


class Migration(migrations.Migration):
    dependencies = [("governance", "0019_decision_conditions")]

    operations = [
        migrations.CreateModel(
            name="ReviewThread",
            fields=[
                ("id", key()),
                *anchored(),
                ("blocking", models.BooleanField(default=False)),
                ("state", models.CharField(choices=STATES, default="open", max_length=10)),
                ("opened_at", models.DateTimeField(auto_now_add=True)),
                ("resolved_at", models.DateTimeField(blank=True, null=True)),
                ("opened_by", person()),
                ("resolved_by", person(null=True)),
                (
                    "review",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="threads",
                        to="governance.review",
                    ),
                ),
            ],
            options={
                "ordering": ("id",),
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("resolved_at__isnull", True),
                                ("resolved_by__isnull", True),
                                ("state", "open"),
                            ),
                            models.Q(
                                ("resolved_at__isnull", False),
                                ("resolved_by__isnull", False),
                                ("state", "resolved"),
                            ),
                            _connector="OR",
                        ),
                        name="resolved_thread_says_by_whom",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("anchor_key", ""), ("anchor_kind", "general")),
                            models.Q(
                                models.Q(("anchor_kind", "general"), _negated=True),
                                models.Q(("anchor_key", ""), _negated=True),
                            ),
                            _connector="OR",
                        ),
                        name="thread_is_somewhere",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="ThreadComment",
            fields=[
                ("id", key()),
                ("said", models.CharField(choices=SAID, default="comment", max_length=10)),
                ("text", models.TextField(blank=True, max_length=4000)),
                ("digest", models.CharField(max_length=64)),
                ("round", models.PositiveIntegerField()),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "decision",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="comments",
                        to="governance.decision",
                    ),
                ),
                ("person", person()),
                (
                    "thread",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="comments",
                        to="governance.reviewthread",
                    ),
                ),
            ],
            options={
                "ordering": ("id",),
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("said", "comment"), _negated=True),
                            models.Q(("text", ""), _negated=True),
                            _connector="OR",
                        ),
                        name="comment_has_words",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="CommentDraft",
            fields=[
                ("id", key()),
                *anchored(),
                ("blocking", models.BooleanField(default=False)),
                ("text", models.TextField(max_length=4000)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("person", person()),
                (
                    "review",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="comment_drafts",
                        to="governance.review",
                    ),
                ),
                (
                    "thread",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="governance.reviewthread",
                    ),
                ),
            ],
            options={
                "ordering": ("id",),
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("text", ""), _negated=True), name="draft_has_words"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("thread__isnull", True), ("blocking", False), _connector="OR"
                        ),
                        name="answer_blocks_nothing",
                    ),
                ],
            },
        ),
        migrations.RunSQL(THREAD, NO_THREAD),
        migrations.RunSQL(APPROVAL, "DROP FUNCTION assay_approval_has_no_open_thread() CASCADE;"),
        migrations.RunSQL(COMMENTS, migrations.RunSQL.noop),
        *(
            migrations.RunSQL(
                [("SELECT assay_guard(%s, %s, %s)", guard)],
                [("SELECT assay_unguard(%s)", guard[:1])],
            )
            for guard in GUARDS
        ),
    ]
