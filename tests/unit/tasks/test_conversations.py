"""Conversations are read within limits by code that came with the base, as transformers does it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from workers.engines.bounded import Limits
from workers.trainers.protocol import BadMaterial

pytestmark = pytest.mark.torch

ROW = {
    "messages": [
        {"role": "user", "content": "What follows 7?"},
        {"role": "assistant", "content": "Eight, ünï 漢字."},
    ]
}
LOOPS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


@pytest.fixture
def tokenizer(smollm2: Path) -> Any:
    from workers.engines.loading import load_tokenizer

    return load_tokenizer(smollm2)


def test_a_conversation_is_the_tokens_that_transformers_makes(tokenizer: Any) -> None:
    from tasks.text_generation.conversations import ConversationReader, cut_to

    text = tokenizer.apply_chat_template(
        ROW["messages"][:1], tokenize=False, add_generation_prompt=True
    )
    prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
    answer = tokenizer(ROW["messages"][1]["content"], add_special_tokens=False)["input_ids"]
    with closing(ConversationReader(tokenizer)) as reader:
        (example,) = reader.examples([ROW], 256).examples
        assert reader.prompt(ROW) == prompt
        assert example.tokens == [*prompt, *answer, tokenizer.eos_token_id]
        assert example.start == len(prompt)
        assert cut_to(reader.whole(ROW), len(prompt)) is None
        fitted = reader.examples([ROW, ROW], len(example.tokens) - 1)
        assert (len(fitted.examples), fitted.left_out, fitted.shortened) == (2, 0, 2)
        assert fitted.longest == len(example.tokens)
        assert "2 of 2 answers are cut short" in fitted.words(10)
        assert reader.examples([ROW], 256).words(256) == ""
        with pytest.raises(BadMaterial, match="leaves room"):
            reader.examples([ROW], len(prompt))


def test_a_template_that_does_not_end_fails_the_run_for_good(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.text_generation.conversations import ConversationReader
    from workers.engines import prompts

    monkeypatch.setattr(prompts, "Limits", lambda: Limits(seconds=2.0))
    tokenizer.chat_template = LOOPS
    with (
        closing(ConversationReader(tokenizer)) as reader,
        pytest.raises(BadMaterial, match="longer than 2 seconds"),
    ):
        reader.examples([ROW], 256)


def test_a_base_without_a_template_is_refused(tokenizer: Any) -> None:
    from tasks.text_generation.conversations import ConversationReader

    tokenizer.chat_template = None
    with pytest.raises(BadMaterial, match="no chat template"):
        ConversationReader(tokenizer)
