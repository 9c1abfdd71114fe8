"""Serbian texts of Django's catalogs, and the untrained model that is to learn them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from assay_demo.data.serbian import serbian_pairs, untrained_writer


def test_no_text_is_trained_on_and_tested_and_the_choice_is_always_the_same() -> None:
    train, test = serbian_pairs()
    assert (train, test) == serbian_pairs()
    assert len(train) > 500
    assert len(test) > 100
    for side in ("source", "target"):
        seen, held_out = ({row[side].casefold() for row in rows} for rows in (train, test))
        assert not seen & held_out
    assert all(len(row["source"]) <= 40 and row["target"] for row in [*train, *test])
    cyrillic = [row for row in test if any("Ѐ" <= each <= "ӿ" for each in row["source"])]
    assert len(cyrillic) > 0.9 * len(test)
    assert not any("Ѐ" <= each <= "ӿ" for row in test for each in row["target"])


@pytest.mark.torch
def test_the_tokenizer_gives_back_every_text(tmp_path: Path) -> None:
    import transformers

    folder = untrained_writer(tmp_path)
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    for row in serbian_pairs()[0]:
        for text in row.values():
            tokens = tokenizer(text)["input_ids"]
            assert len(tokens) == len(text) + 1
            assert tokenizer.decode(tokens, skip_special_tokens=True) == text
