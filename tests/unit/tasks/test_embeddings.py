"""The batch engine with a real MiniLM: vectors that mean something, many callers at once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from registry.catalog import get_task
from tests.unit.workers.recording import Answer, asked
from workers.engines.protocol import RequestRefused
from workers.wire import Done

pytestmark = pytest.mark.torch

TEXTS = ["A cat sits on the mat.", "A kitten is lying on a rug.", "Interest rates rose again."]


@pytest.fixture(scope="module")
def encoder(minilm: Path) -> Iterator[Any]:
    from workers.engines.batch_engine import BatchEngine

    task = get_task("embeddings")
    engine = BatchEngine(minilm, runner=task.runner, architectures=task.architectures, threads=1)
    yield engine
    engine.close()


def embed(engine: Any, texts: list[str], **sampling: Any) -> Done:
    answer = Answer()
    engine.submit(asked("embeddings", "r", {"input": texts}, sampling), answer)
    return answer.done()


def dot(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def test_like_texts_lie_close_and_vectors_have_unit_length(encoder: Any) -> None:
    cat, kitten, rates = embed(encoder, TEXTS).results or []
    assert len(cat) == 384
    assert dot(cat, cat) == pytest.approx(1, abs=1e-5)
    assert dot(cat, kitten) > 0.5 > dot(cat, rates) + 0.2


def test_a_text_has_the_same_vector_alone_and_among_longer_ones(encoder: Any) -> None:
    alone = (embed(encoder, TEXTS[:1]).results or [])[0]
    among = (embed(encoder, [TEXTS[0], "word " * 200, *TEXTS]).results or [])[0]
    assert among == pytest.approx(alone, abs=1e-5)


def test_usage_counts_the_tokens_that_were_read(encoder: Any) -> None:
    assert embed(encoder, ["hello world"]).prompt_tokens == 4  # with [CLS] and [SEP]
    answer = Answer()
    long = asked("embeddings", "r", {"input": ["word " * 1000]}, {"truncate": "end"})
    encoder.submit(long, answer)
    done = answer.done()
    assert (done.prompt_tokens, done.cut_inputs, done.cut_tokens) == (256, 1, 1002 - 256)


def test_many_requests_at_once_each_get_their_own(encoder: Any) -> None:
    texts = [f"Sentence number {number}." for number in range(40)]
    answers = [Answer() for _ in texts]
    for number, (text, answer) in enumerate(zip(texts, answers, strict=True)):
        encoder.submit(asked("embeddings", f"r{number}", {"input": [text]}), answer)
    together = [(answer.done().results or [])[0] for answer in answers]
    whole = embed(encoder, texts).results or []
    for one, other in zip(together, whole, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_tokens_of_its_own_tokenizer_are_read_as_their_text(encoder: Any, minilm: Path) -> None:
    file = minilm / "tokenizer.json"
    own = hashlib.sha256(file.read_bytes()).hexdigest()
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    ids = tokenizer.encode(TEXTS[0], add_special_tokens=False).ids

    def ask(tokens: list[list[int]], digest: str = own) -> Done:
        answer = Answer()
        inputs = {"tokens": tokens, "tokenizer": digest}
        encoder.submit(asked("embeddings", "r", inputs), answer)
        return answer.done()

    done, text = ask([ids, ids[:3]]), embed(encoder, TEXTS[:1])
    assert (done.results or [])[0] == pytest.approx((text.results or [])[0], abs=1e-5)
    assert done.prompt_tokens == text.prompt_tokens + 5
    for tokens, digest, code in (
        ([ids], "0" * 64, "wrong_tokenizer"),
        ([[101, *ids, 102]], own, "invalid_tokens"),
        ([[100_000]], own, "invalid_tokens"),
        ([[7] * 300], own, "context_length_exceeded"),
    ):
        with pytest.raises(RequestRefused) as refused:
            ask(tokens, digest)
        assert refused.value.code == code


@pytest.mark.parametrize(
    ("inputs", "sampling"),
    [
        ({"input": []}, {}),
        ({"input": "text"}, {}),
        ({"input": [""]}, {}),
        ({"input": ["a"] * 2049}, {}),
        ({"input": ["a" * 100_001]}, {}),
        ({"input": ["a"]}, {"temperature": 1}),
        ({"tokens": [[7]]}, {}),
        ({"input": ["a"], "tokens": [[7]], "tokenizer": "0" * 64}, {}),
    ],
)
def test_what_does_not_fit_is_refused(
    encoder: Any, inputs: dict[str, Any], sampling: dict[str, Any]
) -> None:
    with pytest.raises(RequestRefused):
        encoder.submit(asked("embeddings", "r", inputs, sampling), Answer())


def test_an_encoder_takes_no_adapters(encoder: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no adapters"):
        encoder.add_adapter("a", tmp_path)
    with pytest.raises(RequestRefused):
        encoder.submit(asked("embeddings", "r", {"input": ["a"]}, {}, "a"), Answer())
