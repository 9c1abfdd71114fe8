"""Serve extractive question answering: the passages of a text that answer a question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from assay.plugins import run
from tasks.question_answering.schema import FoundAnswer, QuestionInputs, QuestionOptions


@dataclass(frozen=True, slots=True)
class _ReadText:
    """The tokens of a text, with the logits [tokens, 2] of an answer's start and end; `none` [2]
    are the logits of no answer."""

    starts: list[int]
    ends: list[int]
    words: list[int]
    logits: Tensor
    none: Tensor


class QuestionRunner(run.WindowRunner):
    """Returns one list of answers for each question, best first."""

    def prepare(  # type: ignore[override]
        self, request_id: str, inputs: QuestionInputs, options: QuestionOptions
    ) -> run.Prepared:
        windows = self.windows(request_id, inputs.question, inputs.context)
        if not any(2 in each.texts for each in windows):
            raise run.RequestRefused("The context contains no text that the model can read.")
        tokens = sum(len(each.tokens) for each in windows)
        return run.Prepared(
            items=[run.Item((windows, inputs.context, options), size=tokens)],
            prompt_tokens=tokens,
            units=tokens,
        )

    def compute(self, batch: dict[str, Tensor]) -> Tensor:
        output = self.model(**batch)
        return torch.stack([output.start_logits, output.end_logits], dim=-1)

    def split(self, output: list[Tensor], items: Sequence[run.Item]) -> list[list[FoundAnswer]]:
        rows = iter(output)
        answers: list[list[FoundAnswer]] = []
        for item in items:
            windows, context, options = item.payload
            text = self._merged(windows, [next(rows) for _ in windows])
            answers.append(best_answers(context, text, options))
        return answers

    def _merged(self, windows: Sequence[run.TextWindow], logits: Sequence[Tensor]) -> _ReadText:
        """Merge overlapping windows, so that each token of the text occurs once."""
        starts: list[int] = []
        ends: list[int] = []
        words: list[int] = []
        rows: list[Tensor] = []
        for window, places, each in zip(
            windows, run.owned_tokens(windows, self.stride), logits, strict=True
        ):
            keep = [at for at in places if window.texts[at] == 2]
            starts += [window.starts[at] for at in keep]
            ends += [window.ends[at] for at in keep]
            words += [window.words[at] for at in keep]
            rows.append(each[keep])
        # The first token means no answer. The text has an answer if any of its windows has one.
        none = torch.stack([each[0] for each in logits]).amin(dim=0)
        return _ReadText(starts, ends, words, torch.cat(rows), none)


def best_answers(context: str, text: _ReadText, options: QuestionOptions) -> list[FoundAnswer]:
    """Return the passages with the largest product of the probabilities of start and end."""
    logits = text.logits
    if options.handle_impossible_answer:
        logits = torch.cat([text.none[None], logits])
    chances = logits.softmax(dim=0)
    answers: list[FoundAnswer] = []
    if options.handle_impossible_answer:
        none = float(chances[0].prod())
        answers.append(FoundAnswer(answer="", score=none, start=0, end=0))
        chances = chances[1:]
    for first, last, score in _pairs(chances, options.max_answer_len, 4 * options.top_k):
        if options.align_to_words:
            first, last = _whole_words(text.words, first, last)
        start, end = text.starts[first], text.ends[last]
        if not any(each["start"] == start and each["end"] == end for each in answers):
            answers.append(
                FoundAnswer(answer=context[start:end], score=score, start=start, end=end)
            )
    answers.sort(key=lambda each: -each["score"])
    return answers[: options.top_k]


def _pairs(chances: Tensor, longest: int, count: int) -> list[tuple[int, int, float]]:
    """Return the likeliest pairs of first and last token, `longest` tokens apart at most."""
    length = len(chances)
    width = min(longest, length)
    ends = torch.cat([chances[:, 1], chances.new_zeros(width - 1)]).unfold(0, width, 1)
    scores = chances[:, :1] * ends
    values, places = scores.flatten().topk(min(count, scores.numel()))
    pairs = []
    for value, place in zip(values.tolist(), places.tolist(), strict=True):
        first, more = divmod(place, width)
        if first + more < length:
            pairs.append((first, first + more, value))
    return pairs


def _whole_words(words: Sequence[int], first: int, last: int) -> tuple[int, int]:
    while first and words[first - 1] == words[first]:
        first -= 1
    while last + 1 < len(words) and words[last + 1] == words[last]:
        last += 1
    return first, last
