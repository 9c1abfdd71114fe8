"""10. A provider's model: taken in, released, called, and the fallback of an own model."""

from __future__ import annotations

import hashlib
import time
from http import HTTPStatus
from typing import Any

from assay_demo.client import RequestRejected
from assay_demo.clients import openai_client, posted
from assay_demo.provider import CONTEXT, HOST, MODEL, Provider, start
from assay_demo.stage import Stage
from assay_demo.story.adapt import DOCSTRING_TEST, DOCSTRINGS, evaluate
from assay_demo.story.intake import sign_off
from assay_demo.story.release import approve, attest, ensure_deployed, submit, wait_serving
from assay_demo.story.use import PROMPT

ASSISTANT, CREDENTIAL = "hosted-assistant", "strangers-server"
TERMS = b"The stranger keeps no prompt and no answer, and trains on neither."


def run(stage: Stage) -> None:
    with stage.chapter("10. A provider's model: intake, release, and fallback of an own model"):
        provider = start(stage.folder, stage.materials["smollm2"], f"sk-{stage.folder.name}")
        stage.say(f"A stranger's server offers {MODEL} at {provider.origin}, in OpenAI's shape.")
        _enter_secret(stage, provider)
        version = _take_in(stage, provider)
        _evaluate(stage, version)
        _call(stage, version)
        _fall_back(stage, version)


def _enter_secret(stage: Stage, provider: Provider) -> None:
    if stage["enzo"].find("credentials", name=CREDENTIAL) is None:
        stage.prove("enzo")
        stage["enzo"].post(
            "credentials",
            department="engineering",
            name=CREDENTIAL,
            kind="header",
            hosts=[HOST],
            header="authorization",
            secret=f"Bearer {provider.key}",
        )
    stage.say("Enzo enters its key once. Only the egress worker can open it.")


def _take_in(stage: Stage, provider: Provider) -> dict[str, Any]:
    enzo = stage["enzo"]
    if enzo.find("models", name=ASSISTANT) is None:
        enzo.post(
            "models",
            name=ASSISTANT,
            department="engineering",
            task="text-generation",
            description="A small chat model that a stranger runs.",
        )
    if (known := _version(stage)) is not None:
        return known
    intake = enzo.post(
        "hosted-models",
        model=ASSISTANT,
        description={
            "provider": "Stranger",
            "shape": "openai",
            "base_url": f"{provider.origin}/v1",
            "model": MODEL,
            "region": "this machine",
            "credential": CREDENTIAL,
            "parameters": ["max_tokens", "temperature", "top_p", "stop"],
            "context_tokens": CONTEXT,
            "max_tokens": 512,
            "terms": {
                "title": "Terms of the stranger",
                "sha256": hashlib.sha256(TERMS).hexdigest(),
                "retention_days": 0,
                "trains_on_content": False,
            },
        },
    )

    def called() -> dict[str, Any] | None:
        now: dict[str, Any] = enzo.get(f"intakes/{intake['id']}")
        return now if now["state"] in {"awaiting_sign_off", "rejected"} else None

    checked = stage.wait_for("the egress worker calls the provider", called)
    stage.expect(checked["state"] == "awaiting_sign_off", f"its call succeeds: {checked}")
    stage.say("The egress worker has called the model once, with a fixed text.")
    sign_off(stage, ASSISTANT, intake)
    version = stage.require(_version(stage), f"{ASSISTANT} has a version")
    stage.say(
        f"Omar signs off the description. It is version {version['number']}, digest "
        f"{version['digest'][:12]}."
    )
    return version


def _evaluate(stage: Stage, version: dict[str, Any]) -> None:
    measured = evaluate(stage, stage["enzo"], version, DOCSTRING_TEST)
    stage.say(
        f"An egress worker evaluates it on {measured['sample_size']} public rows: chrf "
        f"{measured['metrics']['chrf']:.1f}."
    )


def _version(stage: Stage) -> dict[str, Any] | None:
    for version in stage["enzo"].all(f"models/{ASSISTANT}/versions"):
        detail: dict[str, Any] = version
        return detail
    return None


def _release(stage: Stage, version: dict[str, Any], name: str) -> dict[str, Any]:
    """Return an approved release of the version for a deployment's name."""
    states = {"in_review", "changes_requested", "approved"}
    releases = stage["devi"].all("releases")
    release = next(
        (
            each
            for each in releases
            if each["deployment_name"] == name
            and each["version"]["id"] == version["id"]
            and each["state"] in states
        ),
        None,
    ) or submit(
        stage,
        "devi",
        version,
        name,
        again=True,
        departments=["engineering"],
        visibility="organization",
        purpose="Answer engineers' questions, and stand in when the docstring writer is down.",
        tier="minimal",
    )
    if release["state"] != "approved":
        attest(stage, "carla", release)
        for reviewer, specialty in (("carla", "compliance"), ("milo", "model-risk")):
            if release["state"] != "approved":
                release = approve(stage, reviewer, specialty, release)
    stage.expect(release["state"] == "approved", f"the hosted model is approved for {name}")
    return release


def _call(stage: Stage, version: dict[str, Any]) -> None:
    ensure_deployed(stage, "enzo", _release(stage, version, ASSISTANT))
    served = wait_serving(stage, "enzo", ASSISTANT)
    stage.expect(
        served["replicas"][0]["loaded_digest"] == version["digest"],
        f"{ASSISTANT} runs exactly the approved description",
    )
    # Gateways learn of a new replica within a second.
    stage.wait_for("the gateway knows the replica", lambda: _is_ready(stage))
    message = posted(
        stage,
        "messages",
        json={
            "model": ASSISTANT,
            "max_tokens": 24,
            "messages": [{"role": "user", "content": "Name a city."}],
        },
    ).json()
    response = posted(
        stage,
        "responses",
        json={
            "model": ASSISTANT,
            "max_output_tokens": 24,
            "input": "Name a river.",
            "store": False,
        },
    ).json()
    stage.expect(message["usage"]["output_tokens"] > 0, "/v1/messages answers with usage")
    stage.expect(response["usage"]["output_tokens"] > 0, "/v1/responses answers with usage")
    stage.say(
        f"{ASSISTANT} is approved and answers by Anthropic's /v1/messages "
        f"({message['usage']['output_tokens']} tokens) and OpenAI's /v1/responses "
        f"({response['usage']['output_tokens']} tokens)."
    )


def _is_ready(stage: Stage) -> bool:
    models = openai_client(stage).models.list().data
    return any(each.id == ASSISTANT and getattr(each, "ready", True) for each in models)


def _fall_back(stage: Stage, version: dict[str, Any]) -> None:
    release = _release(stage, version, DOCSTRINGS)
    own = wait_serving(stage, "enzo", DOCSTRINGS)
    if not _is_fallback(stage, own, release, ready=False):
        stage.prove("enzo")
        stage["enzo"].put(
            f"deployments/{own['id']}/targets",
            targets=[{"release": release["id"], "role": "fallback"}],
            revision=own["targets_revision"],
            reason="Answer while the own model is down.",
        )
    stage.wait_for("the fallback is ready", lambda: _is_fallback(stage, own, release, ready=True))
    stage.say(f"Enzo makes it the fallback of {DOCSTRINGS}, under a release of its own.")
    stage.stack.end("engine-worker", kill=True)
    began = time.monotonic()
    answer = posted(
        stage,
        "chat/completions",
        json={
            "model": DOCSTRINGS,
            "max_tokens": 24,
            "messages": [{"role": "user", "content": PROMPT}],
        },
    )
    took = time.monotonic() - began
    stage.stack.start_engine_worker()
    stage.expect(
        answer.headers["x-assay-release"] == str(release["id"]), "the fallback's release answers"
    )
    stage.say(
        f"The engine worker is killed. The next request gets an answer after {took:.1f} s, without "
        f"an error: x-assay-served-by: {answer.headers['x-assay-served-by']}."
    )
    _in_ledger(stage, answer.headers["x-request-id"], version)
    wait_serving(stage, "enzo", DOCSTRINGS)


def _is_fallback(
    stage: Stage, own: dict[str, Any], release: dict[str, Any], *, ready: bool
) -> bool:
    for target in stage["enzo"].get(f"deployments/{own['id']}/targets"):
        if target["release"] == release["id"] and target["role"] == "fallback":
            return not ready or target["state"] == "serving"
    return False


def _in_ledger(stage: Stage, request_id: str, version: dict[str, Any]) -> None:
    def recorded() -> dict[str, Any] | None:
        try:
            record: dict[str, Any] = stage["enzo"].get(f"requests/{request_id}")
        except RequestRejected as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            return None
        return record

    record = stage.wait_for("the request is in the ledger", recorded)
    stage.expect(
        record["version_digest"] == version["digest"], "the ledger names the description's digest"
    )
    stage.say(f"The ledger says who answered: digest {record['version_digest'][:12]}.")
