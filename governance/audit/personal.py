"""Personal data in audit events: boxes, each encrypted with the key of the person concerned.

An event's canonical bytes never contain a person's name, addresses or details in clear. They
contain `"personal": [{"of": "person:17", "box": "<base64>"}]`. A box is the ChaCha20-Poly1305
(RFC 8439) encryption of 32 zero bytes, which bind it to its key, and a JSON object, which is merged
over the event to read it. Its key is HKDF-SHA256 (RFC 5869) of the person's key, salted with the
event's nonce; it is used once, so the cipher's nonce is zero. Destroying a person's key makes all
their boxes unreadable, and leaves all hashes unchanged.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.db import connection

from governance import strict_json
from governance.audit.boxes import COMMITMENT, ZERO_NONCE, Body, merged, open_box
from governance.audit.models import AuditEvent
from governance.audit.outside.bodies import canonical_of

INFO = b"assay audit box v1"
KEY_BYTES = 32
PREFIX = "person:"
_KEYS = """
SELECT person_id, key FROM governance_auditpersonkey WHERE person_id = ANY (%s) AND key IS NOT NULL
"""
# Keys of `data` without information on the person that an event is about.
IMPERSONAL = frozenset({"decision", "code", "status"})


@dataclass(frozen=True, slots=True)
class Disclosure:
    """The key of one box of one event; it does not open any other box."""

    of: str
    key: bytes


def person_keys(people: Iterable[int]) -> dict[int, bytes]:
    """Return the keys of `people` by person ID; an erased person has none."""
    ids = set(people)
    if not ids:
        return {}
    with connection.cursor() as cursor:
        # Plain SQL for speed: every change by a person runs this query.
        cursor.execute(_KEYS, [list(ids)])
        return {person: bytes(key) for person, key in cursor.fetchall()}


def box_key(person_key: bytes, nonce: str) -> bytes:
    """Return the key of a person's box in the event with this nonce (hexadecimal)."""
    hkdf = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=bytes.fromhex(nonce), info=INFO)
    return hkdf.derive(person_key)


def put_in_boxes(
    body: Body, *, actor: int | None, subject: int | None, keys: Mapping[int, bytes]
) -> Body:
    """Return the event's body with personal data moved into boxes.

    Args:
        body: A canonical body, with its nonce; it is not modified.
        actor, subject: IDs of the acting person and of the person concerned, if they are people.
        keys: Their keys. An erased person has none: their name and address are dropped for good, as
            is a reason that may name them. It happens if a refusal is recorded after the erasure.
    """
    if actor is None and subject is None:
        return body
    body = {**body, "data": dict(body["data"])}
    boxes: dict[int, Body] = {}
    if subject is not None:
        about = boxes.setdefault(subject, {})
        name = body["subject_name"]
        # The name of an erased person is a placeholder with a number, which is not personal data.
        personal = name and name.casefold() != f"erased person {subject}"
        named = personal and name in body["reason"]
        _move(body, about, "subject_name")
        if subject in keys:
            _move_data(body, about)
        if subject in keys or named:
            _move(body, about, "reason")
        if actor is None:
            _move_address(body, about)
        _move_decided(body, about, "resource", "name", blank=True)
    if actor is not None:
        by = boxes.setdefault(actor, {})
        names = {body["actor_name"]} - {""}
        _move(body, by, "actor_name")
        _move_address(body, by)
        _move_decided(body, by, "principal", "name", blank=True)
        # The sentence of a denial names the actor.
        if body["outcome"] == "denied" or any(name in body["reason"] for name in names):
            _move(body, by, "reason")
    nonce = body["nonce"]
    sealed = [
        {"of": f"{PREFIX}{person}", "box": _encrypted(content, box_key(keys[person], nonce))}
        for person, content in boxes.items()
        if person in keys and content
    ]
    return {**body, "personal": sealed}


def sealed_body(event: AuditEvent) -> Body:
    """Return the hashed body: the decoded canonical bytes.

    Raises:
        ValueError: they are not a JSON object with unique names; only tampering causes this.
    """
    body = strict_json.loads(canonical_of(event))
    if not isinstance(body, dict):
        raise ValueError(f"audit event {event.pk} is not a JSON object")
    return body


def opened_body(event: AuditEvent) -> Body:
    """Return the recorded body: the hashed body, merged with all boxes that can still be opened.

    Raises:
        ValueError: as `sealed_body`.
    """
    return opened_bodies([event])[0]


def opened_bodies(events: Iterable[AuditEvent]) -> list[Body]:
    """Return `opened_body` of many events, with one query for their keys."""
    bodies = [sealed_body(event) for event in events]
    keys = person_keys(people_in_boxes(bodies))
    return [with_boxes(body, keys) for body in bodies]


def opened(events: Iterable[AuditEvent]) -> list[AuditEvent]:
    """Return the events with names and reasons filled in from their boxes, in memory only.

    An erased person is "erased person 17". An event with tampered bytes keeps its columns.
    """
    rows = list(events)
    bodies: list[Body] = []
    for event in rows:
        try:
            bodies.append(sealed_body(event))
        except ValueError:
            bodies.append({})
    keys = person_keys(people_in_boxes(bodies))
    for event, body in zip(rows, bodies, strict=True):
        if _boxes(body):
            _fill(event, with_boxes(body, keys), keys)
    return rows


def disclosures(events: Iterable[AuditEvent]) -> dict[int, list[Disclosure]]:
    """Return the keys of the events' boxes by event ID, for exports."""
    bodies = [(event.pk, sealed_body(event)) for event in events]
    keys = person_keys(people_in_boxes(body for _, body in bodies))
    return {
        pk: [
            Disclosure(f"{PREFIX}{person}", box_key(keys[person], body["nonce"]))
            for person, _ in _boxes(body)
            if person in keys
        ]
        for pk, body in bodies
    }


def _move(body: Body, box: Body, name: str) -> None:
    if body[name]:
        box[name], body[name] = body[name], ""


def _move_address(body: Body, box: Body) -> None:
    _move(body, box, "client_address")
    _move_decided(body, box, "context", "client_address", blank=False)


def _move_data(body: Body, box: Body) -> None:
    details = {name: value for name, value in body["data"].items() if name not in IMPERSONAL}
    if details:
        box.setdefault("data", {}).update(details)
        body["data"] = {name: v for name, v in body["data"].items() if name in IMPERSONAL}


def _move_decided(body: Body, box: Body, part: str, name: str, *, blank: bool) -> None:
    """Move a field from one part of the recorded decision into a box; `blank` keeps it, empty."""
    decision = body["data"].get("decision")
    inner = decision.get(part) if isinstance(decision, dict) else None
    if not isinstance(decision, dict) or not isinstance(inner, dict) or not inner.get(name):
        return
    rest = {other: value for other, value in inner.items() if other != name}
    if blank:
        rest[name] = ""
    body["data"]["decision"] = {**decision, part: rest}
    moved = box.setdefault("data", {}).setdefault("decision", {})
    moved[part] = {name: inner[name]}


def _encrypted(content: Body, key: bytes) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    clear = COMMITMENT + text.encode("utf-8", "replace")
    box = ChaCha20Poly1305(key).encrypt(ZERO_NONCE, clear, None)
    return base64.b64encode(box).decode()


def _boxes(body: Body) -> list[tuple[int, bytes]]:
    """Return person ID and bytes of each valid box; a tampered body may have any shape."""
    entries = body.get("personal")
    boxes = []
    for entry in entries if isinstance(entries, list) else ():
        try:
            kind, _, person = entry["of"].partition(":")
            if f"{kind}:" == PREFIX:
                boxes.append((int(person), base64.b64decode(entry["box"], validate=True)))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return boxes


def with_boxes(body: Body, keys: Mapping[int, bytes]) -> Body:
    """Return the body, merged with the boxes that `keys` open."""
    for person, box in _boxes(body):
        try:
            body = merged(body, open_box(box, box_key(keys[person], body["nonce"])))
        except (KeyError, ValueError, TypeError):
            continue
    return body


def people_in_boxes(bodies: Iterable[Body]) -> set[int]:
    """Return the IDs of the people who have a box in `bodies`."""
    return {person for body in bodies for person, _ in _boxes(body)}


def box_opens(body: Body, person: int, keys: Mapping[int, bytes]) -> bool:
    """Return whether the person's key opens their boxes in `body`; True without a key or a box."""
    if person not in keys:
        return True
    try:
        key = box_key(keys[person], body["nonce"])
        for of, box in _boxes(body):
            if of == person:
                open_box(box, key)
    except (KeyError, ValueError, TypeError):
        return False
    return True


def _fill(event: AuditEvent, body: Body, keys: Mapping[int, bytes]) -> None:
    for name in ("actor_name", "subject_name", "reason"):
        setattr(event, name, str(body.get(name, "")))
    actor_id, subject_id = event.actor_id, event.subject_id
    for person, _ in _boxes(body):
        if person in keys:
            continue
        placeholder = f"erased person {person}"
        if not event.actor_name and actor_id == str(person):
            event.actor_name = placeholder
        if not event.subject_name and (event.subject_type, subject_id) == ("person", str(person)):
            event.subject_name = placeholder
