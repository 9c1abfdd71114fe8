"""POST /v1/messages with images in the messages, as Anthropic's client sends them.

https://docs.claude.com/en/api/messages
"""

from __future__ import annotations

from itertools import groupby
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from registry.catalog.data_urls import decoded
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
from registry.catalog.requests import (
    Body,
    RequestInvalid,
    Strict,
    estimate_tokens,
    one_or_many,
    parse,
)
from tasks.image_text_to_text.endpoints import IMAGE_TOKENS
from tasks.text_generation.messages import (
    CacheControl,
    MessageParam,
    MessagesRequest,
    TextBlock,
    messages_plan,
    plain_text,
)


class Base64Source(Strict):
    """An image in base64. Images are never fetched from other servers."""

    type: Literal["base64"]
    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp"]
    data: Annotated[str, Field(min_length=1)]


class ImageBlock(Strict):
    """An image among the blocks of a user's message."""

    type: Literal["image"]
    source: Base64Source
    cache_control: CacheControl | None = None


SeenBlock = Annotated[TextBlock | ImageBlock, Field(discriminator="type")]


class VisionMessageParam(MessageParam):
    """One turn. A user's may hold images."""

    content: Annotated[  # type: ignore[assignment]
        Annotated[str, Field(min_length=1, max_length=1_000_000), Tag("one")]
        | Annotated[list[SeenBlock], Field(min_length=1, max_length=MAX_PARTS), Tag("many")],
        Discriminator(one_or_many),
    ]

    def read(self, images: list[MediaInput], param: str) -> list[Part]:
        """Return the parts of the message, and add its images to `images`.

        Raises:
            RequestInvalid: an image is not in base64, or not a user's.
        """
        if isinstance(self.content, str):
            return [TextPart(type="text", text=self.content)]
        parts: list[Part] = []
        for number, block in enumerate(self.content):
            if isinstance(block, TextBlock):
                parts.append(TextPart(type="text", text=block.text))
                continue
            place = f"{param}.content[{number}].source.data"
            if self.role != "user":
                raise RequestInvalid("Only messages of the user hold images.", param=place)
            images.append(MediaInput("image", decoded(block.source.data, place), place))
            parts.append(ImagePart(type="image"))
        return parts


class VisionMessagesRequest(MessagesRequest):
    """POST /v1/messages."""

    messages: Annotated[  # type: ignore[assignment]
        list[VisionMessageParam], Field(min_length=1, max_length=512)
    ]
    tools: None = None
    tool_choice: None = None


def read_vision_messages(body: Body, request_id: str, name: str) -> Plan:
    """Read POST /v1/messages. Raises RequestInvalid."""
    request = parse(VisionMessagesRequest, body.data)
    request.check_last()
    images: list[MediaInput] = []
    given = [
        (message.role, message.read(images, f"messages[{number}]"))
        for number, message in enumerate(request.messages)
    ]
    if len(images) > MAX_IMAGES:
        raise RequestInvalid(
            f"The messages hold {len(images)} images; at most {MAX_IMAGES} are read.",
            param="messages",
        )
    turns: list[ChatMessage] = []
    if system := plain_text(request.system or ""):
        turns.append(ChatMessage(role="system", content=system))
    for role, group in groupby(given, lambda turn: turn[0]):
        parts = [part for _, following in group for part in following]
        if len(parts) > MAX_PARTS:
            raise RequestInvalid(
                f"Consecutive messages hold {len(parts)} blocks; at most {MAX_PARTS} are read.",
                param="messages",
            )
        turns.append(ChatMessage(role=role, content=parts))
    _, options = request.tools_and_form()
    tokens = estimate_tokens([turn.text for turn in turns]) + IMAGE_TOKENS * len(images)
    return messages_plan(
        request, request_id, GenerationInputs(messages=turns, images=images), options, tokens
    )
