"""Only whole characters are sent, and nothing that belongs to a stop string."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.engines.text import TextStream


class Bytes:
    """One token a byte, as the worst byte-level tokenizer has it."""

    def decode(self, tokens: list[int], *, skip_special_tokens: bool) -> str:
        return bytes(tokens).decode("utf-8", errors="replace")


def stream(text: str, stops: list[str]) -> list[str]:
    """Return the text sent for each byte of `text`, and at the end."""
    whole = TextStream(Bytes(), stops)
    sent = []
    for byte in text.encode():
        sent.append(whole.push(byte))
        if whole.stopped:
            break
    return [*sent, whole.flush()]


@given(st.text(alphabet=st.characters(exclude_characters="�", codec="utf-8"), max_size=40))
def test_the_pieces_are_the_text_and_none_has_half_a_character(text: str) -> None:
    pieces = stream(text, [])
    assert "".join(pieces) == text
    assert not any("�" in piece for piece in pieces)


@given(
    st.text(alphabet="abc", max_size=30),
    st.lists(st.text(alphabet="abc", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_the_text_ends_before_the_first_stop_string_to_be_complete(
    text: str, stops: list[str]
) -> None:
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    seen = text[: min(ends)] if ends else text
    expected = min((seen.find(stop) for stop in stops if stop in seen), default=len(seen))
    assert "".join(stream(text, stops)) == text[:expected]


def test_what_might_begin_a_stop_string_is_held_back_until_it_does_not() -> None:
    assert stream("aENd", ["END"]) == ["a", "", "", "ENd", ""]
    assert stream("aEN", ["END"]) == ["a", "", "", "EN"]
    assert stream("aENDb", ["END"]) == ["a", "", "", "", ""]


@pytest.mark.parametrize("broken", [b"ok\xff", b"ok\xf0\x9f"])
def test_bytes_that_are_no_character_are_sent_at_the_end_as_the_whole_would_read(
    broken: bytes,
) -> None:
    whole = TextStream(Bytes())
    pieces = [whole.push(byte) for byte in broken] + [whole.flush()]
    assert "".join(pieces) == broken.decode("utf-8", errors="replace")
