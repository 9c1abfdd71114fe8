"""Intake's call of a provider, for each operation."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
import soundfile

from registry.catalog import TASKS
from registry.catalog.generation import GenerationInputs
from registry.catalog.hosted import PROBE_TEXT, HostedDescription, Operation, ProbeResult
from registry.catalog.operations import operations_for
from registry.intake.probes import probe_findings
from tests.unit.registry.hosted_world import described_as
from tests.unit.workers.provider import Behavior, Provider, Received, described, replies
from tests.waiting import PATIENCE_S
from workers.egress.connections import EgressRules
from workers.egress.loop import EgressLoop
from workers.egress.probing import probe, probe_audio, probe_request
from workers.engines.hosted.engine import shape_of


def probed(operation: str, behave: Behavior, **fields: Any) -> tuple[ProbeResult, list[Received]]:
    provider = Provider(behave)
    loop = EgressLoop(EgressRules(internal_hosts=frozenset({"localhost"})))
    try:
        description = described(provider.origin, operation=operation, **fields)
        result = loop.run(probe(loop.egress, description, None)).result(PATIENCE_S)
        return result, provider.received
    finally:
        loop.close()
        provider.close()


@pytest.mark.parametrize("operation", list(Operation))
def test_the_fixed_request_fits_every_description(operation: Operation) -> None:
    least = HostedDescription.read({**described_as(operation), "parameters": []})
    for description in (least, HostedDescription.read(described_as(operation))):
        inputs, options = probe_request(description)
        assert shape_of(description).call(description, inputs, options, stream=False).path
        for task in TASKS.values():
            if operation in operations_for(task) and not isinstance(inputs, GenerationInputs):
                task.input_schema.model_validate(dict(inputs))
                task.option_schema.model_validate(dict(options))


def test_a_tone_is_transcribed() -> None:
    result, received = probed("transcription", replies({"text": "Beep"}))
    assert (result.reached, result.model) == (True, "")
    assert probe_audio() in received[0].body
    description = HostedDescription.read(described_as(Operation.TRANSCRIPTION))
    details = [each.detail for each in probe_findings(description, result)]
    assert "metered in audio seconds" in details[0]
    with soundfile.SoundFile(BytesIO(probe_audio())) as file:
        assert (file.frames, file.samplerate) == (8_000, 8_000)


@pytest.mark.parametrize(
    ("operation", "behave", "unit"),
    [
        ("speech", replies(b"RIFF sound", "Content-Type: audio/wav"), "characters"),
        ("images", replies({"data": [{"b64_json": "iVBORw0KGgo="}]}), "images"),
    ],
)
def test_a_fixed_text_is_spoken_and_drawn(operation: str, behave: Behavior, unit: str) -> None:
    result, received = probed(operation, behave)
    assert (result.reached, result.error) == (True, "")
    assert PROBE_TEXT in received[0].json.values()
    description = HostedDescription.read(described_as(Operation(operation)))
    assert f"metered in {unit}" in probe_findings(description, result)[0].detail


def test_an_answer_without_an_end_does_not_count() -> None:
    result, _ = probed("chat", replies({"model": "test-1", "choices": []}))
    assert not result.reached
    assert "ended its answer before it was complete" in result.error


def test_vectors_are_requested_of_a_fixed_text() -> None:
    row = {"index": 0, "embedding": [1.0, 0.0, 0.0]}
    answer = {"model": "test-1", "data": [row], "usage": {"prompt_tokens": 5}}
    result, received = probed("embeddings", replies(answer))
    assert (result.reached, result.model) == (True, "test-1")
    assert (result.prompt_tokens, result.completion_tokens) == (5, 0)
    assert received[0].json["input"] == [PROBE_TEXT]
    result, _ = probed("embeddings", replies(answer), dimensions=4)
    assert "3 dimensions; 4 were expected" in result.error
    findings = probe_findings(HostedDescription.read(described_as(Operation.EMBEDDINGS)), result)
    assert not findings[0].passed
