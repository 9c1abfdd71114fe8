"""Endpoints of tasks that read one file: an image, a recording or a video.

Loads neither Django nor torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from registry.catalog.endpoints import Answer, Endpoint, Plan
from registry.catalog.inference import MediaRequest, content_types, read_file
from registry.catalog.inputs import Inputs, MediaKind, Options
from registry.catalog.requests import Body, Strict

DEFAULT_TOP_K = 5
_TopK = Annotated[int, Field(ge=1, le=1_000)]

Request = TypeVar("Request", bound=MediaRequest)


def file_endpoint(
    task: str,
    kind: MediaKind,
    inputs: type[Inputs],
    request: type[Request],
    *,
    summary: str,
    options: Callable[[Request | None], Options],
    result: Callable[[Any], list[Any]] = list,
) -> Endpoint:
    """Return the endpoint of a task in Hugging Face's format: a file, raw or in JSON.

    Args:
        task: Name of the task, the last segment of the path.
        kind: Kind of the file, and the name of its field in `inputs`.
        inputs: The task's inputs.
        request: Schema of JSON that contains a file.
        summary: One sentence for the API's description.
        options: Returns the options in a request; its argument is None for a raw file.
        result: Returns the response for the result of the runner.
    """

    def read(body: Body, request_id: str, name: str) -> Plan:
        file, parsed = read_file(body, kind, request)
        return Plan(
            model=name,
            inputs=inputs.model_validate({kind: file}),
            renderer=_ResultRenderer(result),
            tokens=0,
            prompt_tokens=0,
            # A recording's length is unknown until it is decoded.
            units=0 if kind == "audio" else 1,
            options=options(parsed),
        )

    return Endpoint(
        f"/v1/tasks/{task}",
        read,
        named=True,
        content_types=content_types(kind),
        takes_media=True,
        request=request,
        summary=summary,
    )


@dataclass(frozen=True, slots=True)
class _ResultRenderer:
    """Renderer of the only result in the endpoint's format."""

    result: Callable[[Any], list[Any]]

    def whole(self, answer: Answer) -> list[Any]:
        return self.result(answer.results[0])


class LabelOptions(Options):
    """`top_k` is the number of labels to return; None returns all of them."""

    top_k: _TopK | None = None


class LabelParameters(Strict):
    """`top_k` is the number of labels to return; scores are always a softmax over all labels."""

    top_k: _TopK | None = None
    function_to_apply: Literal["softmax"] | None = None


class LabelRequest(MediaRequest):
    """A file in base64."""

    parameters: LabelParameters | None = None


def label_endpoint(task: str, kind: MediaKind, inputs: type[Inputs], *, noun: str) -> Endpoint:
    """Return the endpoint of a task that classifies files; `noun` names the file for people."""
    return file_endpoint(
        task,
        kind,
        inputs,
        LabelRequest,
        summary=f"Hugging Face's shape: send the {noun}; the answer is `[{{label, score}}]`.",
        options=_label_options,
    )


def _label_options(request: LabelRequest | None) -> LabelOptions:
    parameters = (request and request.parameters) or LabelParameters()
    return LabelOptions(top_k=parameters.top_k or DEFAULT_TOP_K)


def label_requests(
    kind: MediaKind, inputs: type[Inputs]
) -> Callable[[dict[str, Any]], tuple[Inputs, Options]]:
    """Return a function that builds a row's request for the scores of all labels."""
    return lambda row: (inputs.model_validate({kind: row[kind]}), LabelOptions())
