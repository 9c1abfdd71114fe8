"""`Idempotency-Key`: a POST that is sent twice does its work only once.

The key's record is written in the transaction of the work, so a crash cannot leave one without the
other. A refused request changed nothing and is not stored, so a retry runs it again. Answers with a
secret (keys, tokens) are never stored, so their endpoints do not accept the header.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import wraps
from typing import Any

from django.core.files.uploadedfile import UploadedFile
from django.db import transaction
from django.http.response import HttpResponseBase
from django.utils import timezone
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from assay.models import IdempotencyRecord
from governance.database.locks import try_lock_once
from governance.errors import InvalidInput, WrongState
from governance.principals import Principal

HEADER = "Idempotency-Key"
KEY_PATTERN = r"^[\x21-\x7e]{1,255}$"
REPLAYED = "Idempotency-Replayed"
RETENTION = timedelta(days=1)
CLEARED_AT_ONCE = 200

Handler = Callable[..., HttpResponseBase]


def fingerprint(request: Request, actor: Principal) -> str:
    """Return the SHA-256 of the request and the caller's rights: method, path, parsed body with the
    content of its files, roles and scopes. So an answer is not repeated after rights were lost.
    """
    digest = hashlib.sha256(f"{request.method} {request.get_full_path()}\n".encode())
    rights = [*sorted(map(repr, actor.roles)), *sorted(actor.scopes or ()), actor.department]
    digest.update(f"{rights}\n".encode())
    for part in _parts(request.data):
        digest.update(part.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def _parts(data: Any) -> Iterable[str]:
    if not hasattr(data, "lists"):
        yield json.dumps(data, sort_keys=True, ensure_ascii=False)
        return
    for name, values in sorted(data.lists()):
        for value in values:
            is_file = isinstance(value, UploadedFile)
            yield json.dumps([name, value.name, _sha256(value)] if is_file else [name, str(value)])


def _sha256(file: UploadedFile[Any]) -> str:
    digest = hashlib.sha256()
    for chunk in file.chunks():
        digest.update(chunk)
    file.seek(0)
    return digest.hexdigest()


def checked_key(request: Request) -> str | None:
    """Return the header; None if it is absent.

    Raises:
        InvalidInput: it is empty, longer than 255 characters or not printable ASCII.
    """
    key = request.headers.get(HEADER)
    if key is None:
        return None
    if not re.fullmatch(KEY_PATTERN, key):
        sentence = "1 to 255 printable ASCII characters without spaces."
        raise InvalidInput(
            f"{HEADER} is not valid: {sentence}", fields={HEADER: [sentence]}, malformed=True
        )
    return key


def idempotent(handler: Handler) -> Handler:
    """Make a view's `post` answer a repeated `Idempotency-Key` with the first answer."""

    @wraps(handler)
    def wrapper(view: Any, request: Request, *args: Any, **kwargs: Any) -> HttpResponseBase:
        key = checked_key(request)
        if key is None:
            return handler(view, request, *args, **kwargs)
        caller = f"{view.actor.kind}:{view.actor.id}"
        digest = fingerprint(request, view.actor)
        with transaction.atomic():
            _hold(caller, key)
            if (record := _find(caller, key)) is not None:
                return _replay(record, digest)
            response = handler(view, request, *args, **kwargs)
            _keep(caller, key, digest, response)
        return response

    wrapper.takes_idempotency_key = True  # type: ignore[attr-defined]
    return wrapper


def key_lock(caller: str, key: str) -> str:
    """Return the name of the lock of a caller's key."""
    digest = hashlib.sha256(f"{caller}\n{key}".encode()).hexdigest()
    return f"idempotency:{digest}"


def _hold(caller: str, key: str) -> None:
    """Take the key until the transaction ends.

    Raises:
        WrongState: another request has the key now.
    """
    if try_lock_once(key_lock(caller, key)):
        return
    raise WrongState(
        "A request with this Idempotency-Key is still running.",
        code="idempotency_in_progress",
        hint="Wait for its answer, or send this again shortly.",
        retry_after=1,
    )


def _find(caller: str, key: str) -> IdempotencyRecord | None:
    oldest = timezone.now() - RETENTION
    return IdempotencyRecord.objects.filter(
        principal=caller, key=key, created_at__gte=oldest
    ).first()


def _replay(record: IdempotencyRecord, digest: str) -> Response:
    if record.fingerprint != digest:
        raise WrongState(
            "This Idempotency-Key was used for another request, or with other roles, within the "
            "last day.",
            code="idempotency_conflict",
            hint="Use a new key for a new request.",
        )
    return Response(record.body, status=record.status, headers={REPLAYED: "true"})


def _keep(caller: str, key: str, digest: str, response: HttpResponseBase) -> None:
    if not isinstance(response, Response) or response.status_code >= 400:
        return
    old = IdempotencyRecord.objects.filter(created_at__lt=timezone.now() - RETENTION)
    IdempotencyRecord.objects.filter(pk__in=old.values("pk")[:CLEARED_AT_ONCE]).delete()
    IdempotencyRecord.objects.filter(
        principal=caller, key=key, created_at__lt=timezone.now() - RETENTION
    ).delete()
    IdempotencyRecord.objects.create(
        principal=caller,
        key=key,
        fingerprint=digest,
        status=response.status_code,
        body=json.loads(JSONRenderer().render(response.data) or b"null"),
    )
