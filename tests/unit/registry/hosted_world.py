"""Descriptions of hosted models and versions of them, for tests."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

from governance.people.models import Person
from registry.catalog.hosted import (
    HOSTED_FILE,
    OPERATIONS,
    HostedDescription,
    Operation,
    ProbeResult,
)
from registry.intake.models import IntakeProbe
from registry.versions.hosted import hosted_settings
from registry.versions.models import Model, ModelVersion
from tests.unit.registry.objects import taken_in, version

GENERATE = "text-generation"
ANSWERED: dict[str, Any] = {
    "reached": True,
    "listed": True,
    "model": "gpt-4o-2024-08-06",
    "fingerprint": "fp_1",
    "latency_ms": 812,
    "prompt_tokens": 14,
    "completion_tokens": 3,
}


def described(**changes: Any) -> dict[str, Any]:
    """The values of a complete description, with `changes`; of chat unless they have another
    operation."""
    values: dict[str, Any] = {
        "provider": "Example AI",
        "shape": "openai",
        "base_url": "https://api.example.com/v1",
        "model": "gpt-4o-2024-08-06",
        "region": "eu-central",
        "credential": "example-key",
        "parameters": ["temperature", "max_tokens"],
        "context_tokens": 128_000,
        "max_tokens": 16_384,
        "terms": {
            "title": "Data processing addendum of 2026",
            "sha256": "a" * 64,
            "retention_days": 30,
            "trains_on_content": False,
            "subprocessors": ["Example Cloud"],
        },
        "shutdown_on": "2099-01-01",
        "prices": {"prompt": 2_500_000, "completion": 10_000_000},
    }
    if "operation" in changes:
        values = {name: value for name, value in values.items() if name not in FIELDS}
    return {**values, **changes}


# Values of the fields that only some operations have.
FIELDS: dict[str, Any] = {
    "context_tokens": 128_000,
    "max_tokens": 16_384,
    "dimensions": 1_536,
    "max_inputs": 2_048,
    "voices": ["alloy", "ash"],
}


def described_as(operation: Operation) -> dict[str, Any]:
    """The values of a description of an operation, with all parameters that it may permit."""
    rules = OPERATIONS[operation]
    others = {name: value for name, value in described().items() if name not in FIELDS}
    by_token = rules.unit == "tokens"
    return {
        **others,
        "operation": operation.value,
        "parameters": sorted(rules.parameters),
        "prices": {"prompt": 20_000} if by_token else {"unit": 100},
        **{name: FIELDS[name] for name in rules.fields},
    }


def description(**changes: Any) -> HostedDescription:
    return HostedDescription.read(described(**changes))


def file_of(**changes: Any) -> bytes:
    """A `hosted.json` as a person writes it: not canonical."""
    return json.dumps(described(**changes), indent=2).encode()


def answered(**changes: Any) -> ProbeResult:
    return ProbeResult.model_validate({**ANSWERED, **changes})


def unreached() -> ProbeResult:
    return ProbeResult(reached=False, error="The provider refused the credential (401).")


def hosted_version(
    of: Model, creator: Person, signer: Person | None = None, **changes: Any
) -> ModelVersion:
    """A trusted hosted version; with `signer` it came in through an intake that was called."""
    content = description(**changes)
    made = version(
        of,
        creator,
        "hosted",
        files={HOSTED_FILE: content.canonical()},
        parameters=hosted_settings(content),
        license="proprietary",
    )
    if signer is not None:
        intake = taken_in(made, creator, signer)
        intake.hosted = hosted_settings(content)
        intake.job_id = uuid4()
        intake.save()
        IntakeProbe.objects.create(
            intake=intake, tries=1, result=answered().model_dump(mode="json")
        )
    return made
