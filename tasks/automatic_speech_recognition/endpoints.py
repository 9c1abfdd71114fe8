"""POST /v1/audio/transcriptions in OpenAI's shape, and speech recognition in Hugging Face's."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from assay.plugins import declare
from tasks.automatic_speech_recognition.renderers import (
    WITH_SEGMENTS,
    ChunksRenderer,
    ResponseFormat,
    TranscriptionRenderer,
)
from tasks.automatic_speech_recognition.schema import (
    Language,
    Prompt,
    Recording,
    SpeechOptions,
    Temperature,
)

Form = TypeVar("Form", bound=BaseModel)
# Fields that may occur several times, under the names of OpenAI's client.
_LISTS = "[]"


def _not_streamed(value: Any) -> Any:
    # Some clients send booleans as Python writes them, `True` and `False`.
    word = value.lower() if isinstance(value, str) else value
    if word == "true":
        raise declare.idle_field("Transcriptions are not streamed; leave stream out.", "stream")
    return word


def _of_segments(value: Any) -> Any:
    if isinstance(value, list) and "word" in value:
        raise declare.idle_field(
            "The times of words are not known; use timestamp_granularities segment.",
            "timestamp_granularities",
        )
    return value


class TranscriptionRequest(BaseModel):
    """The text fields of POST /v1/audio/transcriptions. Fields typed `None` are fields of OpenAI
    that Assay does not support.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: declare.Name
    language: Language | None = None
    response_format: ResponseFormat = "json"
    temperature: Temperature = 0.0
    timestamp_granularities: Annotated[list[Literal["segment"]], BeforeValidator(_of_segments)] = [
        "segment"
    ]
    stream: Annotated[Literal["false"] | None, BeforeValidator(_not_streamed)] = None
    user: declare.User | None = None
    prompt: Prompt | None = None
    include: None = None
    chunking_strategy: None = None


class TranslationRequest(BaseModel):
    """The text fields of POST /v1/audio/translations; the returned text is in English."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: declare.Name
    response_format: ResponseFormat = "json"
    temperature: Temperature = 0.0
    user: declare.User | None = None
    prompt: Prompt | None = None


def read_transcription(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read POST /v1/audio/transcriptions. Raises RequestInvalid."""
    request, audio = _form(body, TranscriptionRequest)
    return _plan(
        request.model,
        audio,
        TranscriptionRenderer(request.response_format, request.temperature),
        SpeechOptions(
            language=request.language,
            temperature=request.temperature,
            segments=request.response_format in WITH_SEGMENTS,
            prompt=request.prompt,
        ),
        user=request.user or "",
    )


def read_translation(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read POST /v1/audio/translations. Raises RequestInvalid."""
    request, audio = _form(body, TranslationRequest)
    return _plan(
        request.model,
        audio,
        TranscriptionRenderer(request.response_format, request.temperature, translated=True),
        SpeechOptions(
            temperature=request.temperature,
            translate=True,
            segments=request.response_format in WITH_SEGMENTS,
            prompt=request.prompt,
        ),
        user=request.user or "",
    )


def _form(body: declare.Body, schema: type[Form]) -> tuple[Form, declare.MediaInput]:
    """Return the fields of a form, and its one file. Raises RequestInvalid."""
    form = declare.parse_form(body)
    request = _fields(form.fields, schema)
    if unknown := sorted(set(form.files) - {"file"}):
        raise declare.RequestInvalid(
            f"Unrecognized file supplied: {unknown[0][:80]}.",
            param=unknown[0][:80],
            code="unknown_parameter",
        )
    data = form.files.get("file")
    if data is None:
        raise declare.RequestInvalid(
            "You must provide the parameter file, as a file.",
            param="file",
            code="missing_parameter",
        )
    if not data:
        raise declare.RequestInvalid("file is empty; send a recording.", param="file")
    return request, declare.MediaInput("audio", data, "file")


def _fields(form: dict[str, list[str]], schema: type[Form]) -> Form:
    fields: dict[str, Any] = {}
    for name, values in form.items():
        if name.endswith(_LISTS):
            fields[name.removesuffix(_LISTS)] = values
        elif len(values) > 1:
            raise declare.RequestInvalid(f"The field {name[:80]} occurs twice.", param=name[:80])
        else:
            fields[name] = [values[0]] if name == "timestamp_granularities" else values[0]
    try:
        return schema.model_validate(fields)
    except ValidationError as error:
        raise declare.request_invalid(error) from None


class Parameters(declare.Strict):
    """Settings of the answer. With `return_timestamps`, it lists the segments with their times.
    `generation_parameters` is not supported.
    """

    return_timestamps: bool | None = None
    generation_parameters: None = None


class SpeechRequest(declare.MediaRequest):
    """A recording in base64."""

    parameters: Parameters | None = None


def read_speech(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read a recording, raw or as JSON. Raises RequestInvalid."""
    audio, request = declare.read_file(body, "audio", SpeechRequest)
    parameters = (request and request.parameters) or Parameters()
    segments = bool(parameters.return_timestamps)
    return _plan(name, audio, ChunksRenderer(segments), SpeechOptions(segments=segments))


def _plan(
    model: str, audio: declare.MediaInput, renderer: Any, options: SpeechOptions, *, user: str = ""
) -> declare.Plan:
    return declare.Plan(
        model=model,
        user=user,
        inputs=Recording(audio=audio),
        renderer=renderer,
        tokens=0,
        prompt_tokens=0,
        options=options,
    )
