"""POST /v1/chat/completions with images in the messages, as OpenAI's clients send them."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from assay.plugins import declare
from tasks.text_generation.chat import ChatRequest, Message
from tasks.text_generation.chat import TextPart as TextContent
from tasks.text_generation.rendering import ChatRenderer
from tasks.text_generation.sampling import named_user

# Tokens reserved for an image until the model's own number is known: the number of LLaVA 1.5.
IMAGE_TOKENS = 576


class ImageURL(declare.Strict):
    """An image; `url` is a `data:` URL. The model has only one level of detail."""

    url: Annotated[str, Field(min_length=1)]
    detail: Literal["auto"] | None = None


class ImageContent(declare.Strict):
    """An image among the parts of a message."""

    type: Literal["image_url"]
    image_url: ImageURL


ContentPart = Annotated[TextContent | ImageContent, Field(discriminator="type")]


class VisionMessage(Message):
    """One turn. Only the user's turns may contain images."""

    role: Literal["system", "developer", "user", "assistant"]
    tool_calls: None = None
    tool_call_id: None = None
    content: Annotated[  # type: ignore[assignment]
        Annotated[str, Field(max_length=1_000_000), Tag("one")]
        | Annotated[
            list[ContentPart], Field(min_length=1, max_length=declare.MAX_PARTS), Tag("many")
        ],
        Discriminator(declare.one_or_many),
    ]

    def read(self, images: list[declare.MediaInput], param: str) -> declare.ChatMessage:
        """Return the message in the engine's form, and add its images to `images`.

        Raises:
            RequestInvalid: an image is invalid, or belongs to another role than the user.
        """
        role = "system" if self.role == "developer" else self.role
        if isinstance(self.content, str):
            return declare.ChatMessage(role=role, content=self.with_name(self.content))
        parts: list[declare.MessagePart] = []
        if self.name is not None:
            parts.append(declare.TextPart(type="text", text=f"{self.name}:"))
        for number, part in enumerate(self.content):
            if isinstance(part, TextContent):
                parts.append(declare.TextPart(type="text", text=part.text))
                continue
            place = f"{param}.content[{number}].image_url.url"
            if role != "user":
                raise declare.RequestInvalid(
                    f"Only the user's messages may contain images; this one is the {role}'s.",
                    param=place,
                )
            images.append(declare.read_image_url(part.image_url.url, place))
            parts.append(declare.ImagePart(type="image"))
        return declare.ChatMessage(role=role, content=parts)


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


def read_vision_chat(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read POST /v1/chat/completions. Raises RequestInvalid."""
    request = declare.parse(VisionChatRequest, body.data)
    images: list[declare.MediaInput] = []
    messages = [
        message.read(images, f"messages[{number}]")
        for number, message in enumerate(request.messages)
    ]
    if len(images) > declare.MAX_IMAGES:
        raise declare.RequestInvalid(
            f"The messages have {len(images)} images; at most {declare.MAX_IMAGES} are accepted.",
            param="messages",
        )
    prompt_tokens = declare.estimate_tokens([message.text for message in messages])
    prompt_tokens += IMAGE_TOKENS * len(images)
    _, use = request.prompt_tools()
    options = request.options(request.token_limit, logprobs=request.stated_logprobs(), **use)
    return declare.Plan(
        model=request.model,
        user=named_user(request.safety_identifier, request.user),
        inputs=declare.GenerationInputs(messages=messages, images=images),
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
