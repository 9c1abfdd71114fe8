"""The controller signs for the web process, and the broker between them forges nothing."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from governance.audit.attesting import REQUESTS, Attestation, attest
from governance.audit.checkpoint import Signer, Verifier
from governance.audit.signing import audit_public_keys
from governance.errors import Unavailable
from tests.live.celery_worker import controller
from tests.services import broker_url

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]

DIGEST = hashlib.sha256(b"a manifest").hexdigest()
PACK = Attestation("evidence", "release 7", DIGEST)


def forged_by(redis: Redis, settings: Any, note: str) -> None:
    """Answer the next request as somebody who reaches the broker."""
    taken: Any = redis.blpop([REQUESTS], timeout=10)
    redis.rpush(json.loads(taken[1])["reply"], note)


def test_the_controller_signs_what_web_attests_and_nothing_else(
    redis: Redis, settings: Any, tmp_path: Path
) -> None:
    log = tmp_path / "controller.log"
    with controller(log):
        settings.PROCESS, settings.REDIS_URL = "web", broker_url("web")
        verifier = Verifier.from_text(audit_public_keys())
        text = verifier.open_text(attest(PACK), "attestation")
        assert text == f"{settings.AUDIT_LOG_NAME}/evidence\nrelease 7\n{DIGEST}\n"

        # A checkpoint of another history, a place that is no answer's, and what is no request.
        for request in (
            {"kind": "", "subject": "1", "digest": DIGEST, "reply": f"{REQUESTS}:{'0' * 32}"},
            {"kind": "evidence", "subject": "1000\n", "digest": DIGEST, "reply": REQUESTS},
            {"kind": "evidence", "subject": "release 7", "digest": DIGEST, "reply": "celery"},
            {"text": "assay.example/audit\n1\n", "reply": f"{REQUESTS}:{'0' * 32}"},
            ["evidence"],
        ):
            redis.rpush(REQUESTS, json.dumps(request))
        redis.rpush(REQUESTS, b"\xff", b"x" * 5000)
        assert attest(PACK)
        assert redis.keys("*:0000*") == [] == redis.keys("celery")
    assert log.read_text().count("was dropped") == 7


def test_an_answer_that_the_controller_did_not_sign_is_refused(
    redis: Redis, settings: Any, tmp_path: Path
) -> None:
    real = Signer(settings.AUDIT_LOG_NAME, bytes.fromhex(_seed(settings)))
    other = Signer(settings.AUDIT_LOG_NAME, bytes(range(32)))
    settings.PROCESS, settings.REDIS_URL = "web", broker_url("web")
    forgeries = {
        "cannot be used": other.sign_text(PACK.text(settings.AUDIT_LOG_NAME)),
        "other content": real.sign_text(
            Attestation("evidence", "release 8", DIGEST).text(settings.AUDIT_LOG_NAME)
        ),
    }
    with ThreadPoolExecutor(1) as pool:
        for words, note in forgeries.items():
            answered = pool.submit(forged_by, redis, settings, note)
            with pytest.raises(Unavailable, match=words):
                attest(PACK)
            answered.result()


def _seed(settings: Any) -> str:
    audit_public_keys()  # Made, if no test before did.
    return str((settings.DATA_DIR / "audit-signing-key").read_text().strip())
