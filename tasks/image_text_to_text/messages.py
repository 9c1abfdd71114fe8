"""POST /v1/messages with images in the messages, as Anthropic's client sends them.

https://docs.claude.com/en/api/messages
"""

from __future__ import annotations

from itertools import groupby
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from assay.plugins import declare
from tasks.image_text_to_text.endpoints import IMAGE_TOKENS
from tasks.text_generation.messages import (
    CacheControl,
    MessageParam,
    MessagesRequest,
    TextBlock,
    messages_plan,
    plain_text,
)


class Base64Source(declare.Strict):
    """An image in base64. Images are never fetched from other servers."""

    type: Literal["base64"]
    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp"]
    data: Annotated[str, Field(min_length=1)]


class ImageBlock(declare.Strict):
    """An image among the blocks of a user's message."""

    type: Literal["image"]
    source: Base64Source
    cache_control: CacheControl | None = None


SeenBlock = Annotated[TextBlock | ImageBlock, Field(discriminator="type")]


class VisionMessageParam(MessageParam):
    """One turn. Only the user's turns may contain images."""

    content: Annotated[  # type: ignore[assignment]
        Annotated[str, Field(min_length=1, max_length=1_000_000), Tag("one")]
        | Annotated[
            list[SeenBlock], Field(min_length=1, max_length=declare.MAX_PARTS), Tag("many")
        ],
        Discriminator(declare.one_or_many),
    ]

    def read(self, images: list[declare.MediaInput], param: str) -> list[declare.MessagePart]:
        """Return the parts of the message, and add its images to `images`.

        Raises:
            RequestInvalid: an image is not in base64, or belongs to another role than the user.
        """
        if isinstance(self.content, str):
            return [declare.TextPart(type="text", text=self.content)]
        parts: list[declare.MessagePart] = []
        for number, block in enumerate(self.content):
            if isinstance(block, TextBlock):
                parts.append(declare.TextPart(type="text", text=block.text))
                continue
            place = f"{param}.content[{number}].source.data"
            if self.role != "user":
                raise declare.RequestInvalid(
                    "Only the user's messages may contain images.", param=place
                )
            images.append(
                declare.MediaInput("image", declare.decode_base64(block.source.data, place), place)
            )
            parts.append(declare.ImagePart(type="image"))
        return parts


class VisionMessagesRequest(MessagesRequest):
    """POST /v1/messages."""

    messages: Annotated[  # type: ignore[assignment]
        list[VisionMessageParam], Field(min_length=1, max_length=512)
    ]
    tools: None = None
    tool_choice: None = None


def read_vision_messages(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read POST /v1/messages. Raises RequestInvalid."""
    request = declare.parse(VisionMessagesRequest, body.data)
    request.check_last()
    images: list[declare.MediaInput] = []
    messages = [
        (message.role, message.read(images, f"messages[{number}]"))
        for number, message in enumerate(request.messages)
    ]
    if len(images) > declare.MAX_IMAGES:
        raise declare.RequestInvalid(
            f"The messages have {len(images)} images; at most {declare.MAX_IMAGES} are accepted.",
            param="messages",
        )
    turns: list[declare.ChatMessage] = []
    if system := plain_text(request.system or ""):
        turns.append(declare.ChatMessage(role="system", content=system))
    for role, group in groupby(messages, lambda turn: turn[0]):
        parts = [part for _, following in group for part in following]
        if len(parts) > declare.MAX_PARTS:
            raise declare.RequestInvalid(
                f"Consecutive messages have {len(parts)} blocks; "
                f"at most {declare.MAX_PARTS} are accepted.",
                param="messages",
            )
        turns.append(declare.ChatMessage(role=role, content=parts))
    _, options = request.tools_and_form()
    tokens = declare.estimate_tokens([turn.text for turn in turns]) + IMAGE_TOKENS * len(images)
    return messages_plan(
        request,
        request_id,
        declare.GenerationInputs(messages=turns, images=images),
        options,
        tokens,
    )
