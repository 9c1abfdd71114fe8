"""POST /v1/chat/completions with images in the messages, as OpenAI's clients send them."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from registry.catalog.data_urls import read_image_url
from registry.catalog.endpoints import Plan
from registry.catalog.generation import (
    MAX_IMAGES,
    MAX_PARTS,
    ChatMessage,
    GenerationInputs,
    ImagePart,
    Part,
    TextPart,
)
from registry.catalog.inputs import MediaInput
from registry.catalog.requests import Body, RequestInvalid, Strict, estimate_tokens, one_or_many
from registry.catalog.requests import parse as parse_request
from tasks.text_generation.chat import ChatRequest, Message
from tasks.text_generation.chat import TextPart as TextContent
from tasks.text_generation.rendering import ChatRenderer

# Reserved for an image before it is known how many the model has: LLaVA 1.5 has as many.
IMAGE_TOKENS = 576


class ImageURL(Strict):
    """An image; `url` is a `data:` URL. The model has one level of detail, its own."""

    url: Annotated[str, Field(min_length=1)]
    detail: Literal["auto"] | None = None


class ImageContent(Strict):
    """An image among the parts of a message."""

    type: Literal["image_url"]
    image_url: ImageURL


ContentPart = Annotated[TextContent | ImageContent, Field(discriminator="type")]


class VisionMessage(Message):
    """One turn. A user's may hold images."""

    role: Literal["system", "developer", "user", "assistant"]
    tool_calls: None = None
    tool_call_id: None = None
    content: Annotated[  # type: ignore[assignment]
        Annotated[str, Field(max_length=1_000_000), Tag("one")]
        | Annotated[list[ContentPart], Field(min_length=1, max_length=MAX_PARTS), Tag("many")],
        Discriminator(one_or_many),
    ]

    def read(self, images: list[MediaInput], param: str) -> ChatMessage:
        """Return the message as an engine takes it, and add its images to `images`.

        Raises:
            RequestInvalid: an image is none, or is not a user's.
        """
        role = "system" if self.role == "developer" else self.role
        if isinstance(self.content, str):
            return ChatMessage(role=role, content=self.named(self.content))
        parts: list[Part] = []
        if self.name is not None:
            parts.append(TextPart(type="text", text=f"{self.name}:"))
        for number, part in enumerate(self.content):
            if isinstance(part, TextContent):
                parts.append(TextPart(type="text", text=part.text))
                continue
            place = f"{param}.content[{number}].image_url.url"
            if role != "user":
                raise RequestInvalid(
                    f"Only messages of the user hold images; this one is the {role}'s.",
                    param=place,
                )
            images.append(read_image_url(part.image_url.url, place))
            parts.append(ImagePart(type="image"))
        return ChatMessage(role=role, content=parts)


class VisionChatRequest(ChatRequest):
    """POST /v1/chat/completions."""

    messages: Annotated[  # type: ignore[assignment]
        list[VisionMessage], Field(min_length=1, max_length=512)
    ]
    prompt_variables: None = None
    tools: None = None
    tool_choice: None = None
    parallel_tool_calls: None = None
    store: Literal[False] | None = None
    metadata: None = None
    knowledge_base: None = None
    max_passages: None = None


def read_vision_chat(body: Body, request_id: str, name: str) -> Plan:
    """Read POST /v1/chat/completions. Raises RequestInvalid."""
    request = parse_request(VisionChatRequest, body.data)
    images: list[MediaInput] = []
    messages = [
        message.read(images, f"messages[{number}]")
        for number, message in enumerate(request.messages)
    ]
    if len(images) > MAX_IMAGES:
        raise RequestInvalid(
            f"The messages hold {len(images)} images; at most {MAX_IMAGES} are read.",
            param="messages",
        )
    prompt_tokens = estimate_tokens([message.text for message in messages])
    prompt_tokens += IMAGE_TOKENS * len(images)
    _, use = request.shown_tools()
    options = request.options(request.token_limit, logprobs=request.stated_logprobs(), **use)
    return Plan(
        model=request.model,
        inputs=GenerationInputs(messages=messages, images=images),
        options=options,
        stream=bool(request.stream),
        renderer=ChatRenderer(
            id=f"chatcmpl-{request_id[4:]}",
            model=request.model,
            created=int(time.time()),
            include_usage=request.include_usage,
            choices=options.choices,
            tier="default" if request.service_tier else "",
        ),
        tokens=prompt_tokens + request.token_limit * options.made,
        prompt_tokens=prompt_tokens,
    )
