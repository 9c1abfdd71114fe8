"""Decisions, threads, emergency accesses and measurements of an evidence pack, and its README."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

from governance.audit.models import AuditEvent
from governance.errors import WrongState
from governance.people.mentions import people_names
from governance.people.models import Person
from governance.permissions import Action
from governance.reviews.logged_conditions import conditions_logged
from governance.reviews.models import Decision, Review
from governance.reviews.threads.models import ReviewThread, ThreadComment
from governance.reviews.threads.selectors import threads_of
from governance.reviews.waivers.models import Waiver
from registry.evaluations.models import Evaluation
from registry.releases.emergency_access.models import EmergencyAccess
from registry.releases.evidence_events import Record
from registry.releases.models import Release

# The log cuts longer reasons and marks their end.
REASON_LOGGED = 2000
_DECISIONS = frozenset({str(Action.RELEASE_DECIDE), str(Action.REVIEW_COMMENT)})


class Names:
    """Names of people, from the log where their boxes still open."""

    def __init__(self, record: Record) -> None:
        self._known: dict[int, str] = {}
        for event, body in zip(record.events, record.bodies, strict=True):
            if event.actor_kind == "person" and event.actor_id.isdecimal():
                person = int(event.actor_id)
                self._known[person] = body["actor_name"] or f"erased person {person}"

    def by_id(self, people: Collection[int]) -> dict[int, str]:
        """Return names by ID; IDs of no person are missing."""
        known = {person: self._known[person] for person in people if person in self._known}
        return people_names(people) | known

    def of(self, person_id: int | None) -> dict[str, Any] | None:
        """Return ID and name; None if `person_id` is None."""
        if person_id is None:
            return None
        if person_id not in self._known:
            person = Person.objects.filter(pk=person_id, erased_at=None).first()
            self._known[person_id] = person.name if person else f"erased person {person_id}"
        return {"id": person_id, "name": self._known[person_id]}


def decisions_document(
    release: Release, reviews: Iterable[Review], record: Record, names: Names
) -> dict[str, Any]:
    """Return rounds, votes and reasons, each decision with its event's position in the log.

    Raises:
        WrongState: the rows contradict the log.
    """
    return {
        "release": release.pk,
        "dossier": release.dossier_digest,
        "submitted_by": names.of(release.submitted_by_id),
        "conditions": release.conditions,
        "renews": release.renews_id,
        "reviews": [_review(review, record, names) for review in reviews],
    }


def _review(review: Review, record: Record, names: Names) -> dict[str, Any]:
    decisions = list(review.decisions.order_by("pk"))
    logged = [
        (event, body)
        for event, body in record.about("review", review.pk)
        if event.action in _DECISIONS and "thread" not in body["data"]
    ]
    if len(logged) != len(decisions):
        raise evidence_contradiction(review)
    return {
        "id": review.pk,
        "state": review.state,
        "tier": review.tier,
        "round": review.round,
        "digest": review.digest,
        "policy_version": review.policy_version,
        "review_policy": _review_policy(review),
        "required_approvals": review.required_approvals,
        "excluded_people": review.excluded_people,
        "opened_by": names.of(review.opened_by_id),
        "opened_at": review.opened_at.isoformat(),
        "due_at": review.due_at.isoformat(),
        "closed_at": review.closed_at.isoformat() if review.closed_at else None,
        "checklist": [
            {
                "code": item.code,
                "title": item.title,
                "why": item.why,
                "automatic": item.automatic,
                "waivable": item.waivable,
                "state": item.state,
                "note": item.note,
                "digest": item.digest,
                "checked_at": item.checked_at.isoformat() if item.checked_at else None,
                "attested_by": names.of(item.attested_by_id),
                "attested_at": item.attested_at.isoformat() if item.attested_at else None,
                "carried_from": item.carried_from_id,
            }
            for item in review.checklist.order_by("pk")
        ],
        "waivers": _waivers(review, record, names),
        "decisions": [
            _decision(decision, event.sequence or 0, body, names)
            for decision, (event, body) in zip(decisions, logged, strict=True)
        ],
    }


def _review_policy(review: Review) -> dict[str, Any] | None:
    """Return the review's policy with its text, whose digest the dossier names."""
    policy = review.review_policy
    if policy is None:
        return None
    named = {"name": policy.name, "version": policy.version, "digest": policy.digest}
    return {**named, "text": policy.text}


def _decision(
    decision: Decision, sequence: int, body: dict[str, Any], names: Names
) -> dict[str, Any]:
    data = body["data"]
    stored = (
        str(decision.person_id),
        decision.verdict,
        decision.specialty,
        decision.digest,
        decision.round,
        decision.in_place_of_id,
        decision.proof_method or None,
        conditions_logged(decision.conditions),
    )
    logged = (
        body["actor_id"],
        *(data.get(name) for name in ("verdict", "specialty", "digest", "round", "in_place_of")),
        data.get("proof_method"),
        data.get("conditions", {}),
    )
    if stored != logged:
        raise evidence_contradiction(decision.review)
    # The log has only the beginning of a long reason, and none if its box is closed by now.
    logged_reason: str = body["reason"]
    cut = len(logged_reason) == REASON_LOGGED and decision.reason.startswith(logged_reason[:-1])
    return {
        "event": sequence,
        "round": decision.round,
        "verdict": decision.verdict,
        "specialty": decision.specialty,
        "digest": decision.digest,
        "person": names.of(decision.person_id),
        "in_place_of": names.of(decision.in_place_of_id),
        "reason": decision.reason if cut else logged_reason,
        "conditions": decision.conditions,
        "proof_method": data.get("proof_method"),
        "proved_at": data.get("proved_at"),
        "at": body["occurred_at"],
    }


def _waivers(review: Review, record: Record, names: Names) -> list[dict[str, Any]]:
    """Return the waivers, each with its steps from the log."""
    steps: dict[int, list[tuple[AuditEvent, dict[str, Any]]]] = {}
    for event, body in record.about("review", review.pk):
        if event.action.startswith("waiver:"):
            steps.setdefault(body["data"]["waiver"], []).append((event, body))
    waivers = list(review.waivers.select_related("item").order_by("pk"))
    if steps.keys() != {waiver.pk for waiver in waivers}:
        raise evidence_contradiction(review)
    return [_waiver(waiver, steps[waiver.pk], names) for waiver in waivers]


def _waiver(
    waiver: Waiver, steps: Sequence[tuple[AuditEvent, dict[str, Any]]], names: Names
) -> dict[str, Any]:
    history = [
        {
            "event": event.sequence or 0,
            "state": _waiver_state(event.action),
            "person": names.of(int(body["actor_id"])) if event.actor_kind == "person" else None,
            "reason": body["reason"],
            "at": body["occurred_at"],
        }
        for event, body in steps
    ]
    people = {each["state"]: (each["person"] or {"id": None})["id"] for each in history}
    stored = (waiver.state, waiver.asked_by_id, waiver.decided_by_id)
    decided = people.get("granted", people.get("refused"))
    if stored != (history[-1]["state"], people.get("requested"), decided):
        raise evidence_contradiction(waiver.review)
    return {
        "id": waiver.pk,
        "item": waiver.item.code,
        "title": waiver.item.title,
        "excused": waiver.excused,
        "state": waiver.state,
        "digest": waiver.digest,
        "round": waiver.round,
        "expires_at": waiver.expires_at.isoformat(),
        "history": history,
    }


def _waiver_state(action: str) -> str:
    return "requested" if action == Action.WAIVER_REQUEST else action.partition(":")[2]


def evidence_contradiction(review: Review) -> WrongState:
    """Return the error for rows of a review that contradict the log."""
    return WrongState(
        f"The decisions, waivers or threads of review {review.pk} are not those in the audit log; "
        "no evidence was packed.",
        hint="`assay audit verify` shows whether the log is intact.",
    )


def evaluations_document(evaluations: Sequence[Evaluation], names: Names) -> dict[str, Any]:
    """Return all evaluations of the version with their details, oldest first."""
    return {
        "evaluations": [
            {
                "id": each.pk,
                "digest": each.digest,
                "dataset": each.dataset_version.dataset.name,
                "dataset_version": each.dataset_version.number,
                "dataset_digest": each.dataset_version.digest,
                "sample_size": each.sample_size,
                "on_training_data": each.on_training_data,
                "rows_cut": each.rows_cut,
                "metrics": each.metrics,
                "baseline": each.baseline,
                "baseline_name": each.baseline_name,
                "details": each.details,
                "intervals": each.intervals,
                "slices": each.slices,
                "started_at": each.started_at.isoformat(),
                "started_by": names.of(each.created_by_id),
            }
            for each in evaluations
        ]
    }


def emergencies_document(
    emergencies: Iterable[EmergencyAccess], names: Names
) -> list[dict[str, Any]]:
    """Return each emergency access: who requested and confirmed it, of which dossier, from when to
    when, and the verdict of a third person; times in ISO 8601, null for events that have not
    happened.
    """
    return [
        {
            "id": emergency.pk,
            "state": emergency.state,
            "dossier": emergency.dossier_digest,
            "reason": emergency.reason,
            "hours": emergency.hours,
            "asked_by": names.of(emergency.asked_by_id),
            "asked_at": _iso(emergency.asked_at),
            "confirmed_by": names.of(emergency.confirmed_by_id),
            "confirmed_at": _iso(emergency.confirmed_at),
            "proof": emergency.proof,
            "ended_by": names.of(emergency.ended_by_id),
            "ended_at": _iso(emergency.over_at),
            "ended_reason": emergency.ended_reason,
            "reviewed_by": names.of(emergency.reviewed_by_id),
            "reviewed_at": _iso(emergency.reviewed_at),
            "verdict": emergency.verdict,
            "lessons": emergency.lessons,
        }
        for emergency in emergencies
    ]


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def threads_document(review: Review, record: Record, names: Names) -> list[dict[str, Any]]:
    """Return threads with all entries, each with its event's position in the log.

    Raises:
        WrongState: the rows contradict the log.
    """
    logged = {
        body["data"]["entry"]: (event, body)
        for event, body in record.about("review", review.pk)
        if "thread" in body["data"]
    }
    threads = threads_of(review)
    if logged.keys() != {entry.pk for thread in threads for entry in thread.comments.all()}:
        raise evidence_contradiction(review)
    return [
        {
            "id": thread.pk,
            "anchor": {"kind": thread.anchor_kind, "key": thread.anchor_key},
            "blocking": thread.blocking,
            "state": thread.state,
            "digest": thread.digest,
            "round": thread.round,
            "entries": [
                _entry(thread, entry, logged[entry.pk], names) for entry in thread.comments.all()
            ],
        }
        for thread in threads
    ]


def _entry(
    thread: ReviewThread,
    entry: ThreadComment,
    logged_entry: tuple[AuditEvent, dict[str, Any]],
    names: Names,
) -> dict[str, Any]:
    event, body = logged_entry
    facts = ("thread", "blocking", "digest", "round")
    stored = (str(entry.person_id), thread.pk, thread.blocking, entry.digest, entry.round)
    if stored != (body["actor_id"], *(body["data"].get(name) for name in facts)):
        raise evidence_contradiction(thread.review)
    # As for decisions: the log has only the beginning of a long text, and none of a closed box.
    logged: str = body["reason"]
    cut = len(logged) == REASON_LOGGED and entry.text.startswith(logged[:-1])
    return {
        "event": event.sequence or 0,
        "said": entry.said,
        "person": names.of(entry.person_id),
        "text": entry.text if cut else logged,
        "digest": entry.digest,
        "round": entry.round,
        "at": body["occurred_at"],
    }


README = """\
Evidence pack of release {release}: {version} as {name}, {environment}
{underline}

Made on {made_at} for {made_by}. The release was {state} then.

Contents

  dossier.html      the dossier and the decisions on it, to read and to print
  dossier.pdf       the dossier, to file
  dossier.json      the dossier as data; each approval names the SHA-256 of these bytes
  decisions.json    reviews: rounds, checklist, waivers, votes, and why; threads; emergency access
  evaluations.json  all evaluations of the version
  mlbom.cdx.json    the model as a bill of materials, CycloneDX 1.6
  model.spdx.json   the same as SPDX 3.0.1, with its AI and dataset profiles
  events.json       events of the audit log, each with its proof
  checkpoint.txt    the signed head of the log that the proofs lead to
  public-keys.txt   the log's public keys
  manifest.json     every file with its SHA-256 and size
  manifest.sig      the log's signature over the manifest
  verify.py         checks all of this; needs Python 3.8 or later, nothing else

How to check it

  python3 verify.py
  python3 verify.py --key KEY      with the log's public key as you know it from elsewhere

Take the key, and preferably verify.py, from a source that you trust: whoever could write this
whole pack could write both. The check then shows that the log's owner signed this pack; that the
events are in the log under the checkpoint; that the people named made these decisions on this
dossier, and none on their own work; and that the dossier names the model's files.

What it does not show

  That the pack is complete: an export of the whole log shows that. That the log was not
  rewritten: a checkpoint that another party kept or cosigned shows that. dossier.html and
  dossier.pdf are for reading, with the names of people; dossier.json is what was approved, with
  their numbers. The pack does not contain requests that the model answered.
  {left_out}
"""


def readme(release: Release, *, made_at: str, made_by: str, left_out: int) -> bytes:
    """Return the README of the pack: its content, and how to check it."""
    first = README.split("\n", 1)[0]
    about = {
        "release": release.pk,
        "version": release.version,
        "name": release.deployment_name,
        "environment": release.environment,
    }
    return README.format(
        **about,
        underline="=" * len(first.format(**about)),
        made_at=made_at,
        made_by=made_by,
        state=release.get_state_display().lower(),
        left_out=f"{left_out} older refusals and events of deployments or packs taken did not fit."
        if left_out
        else "No event was left out for lack of space.",
    ).encode("utf-8", "replace")
