"""Questions about short letters with made-up facts, and the passages that answer them.

Faker generates names and numbers; they are not real personal data. The test sentences and most test
questions differ from those for training.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Any

from faker import Faker

SEED = 17
PEOPLE = 2

_SLOT = re.compile(r"\{([a-z]+)\}")

# A sentence of a letter, and questions about it. {name} is the person of the sentence; the other
# slot is the answer.
_Facts = Sequence[tuple[str, Sequence[str]]]
_TRAIN: _Facts = (
    ("{name} lives in {city}.", ("Where does {name} live?", "In which town is {name}'s home?")),
    ("{name} works as a {job}.", ("What is {name}'s job?", "What does {name} work as?")),
    ("You can reach {name} under {phone}.", ("What is {name}'s phone number?",)),
    ("{name} wrote to us from {email}.", ("What is {name}'s e-mail address?",)),
    ("{name} joined {company} as a customer.", ("Which company did {name} join?",)),
    ("{name} was born on {date}.", ("When was {name} born?", "What is {name}'s birthday?")),
    ("{name} paid {amount} for the order.", ("How much did {name} pay?",)),
    ("The parcel of {name} has the number {number}.", ("Which number has {name}'s parcel?",)),
    ("{name} speaks {language}.", ("Which language does {name} speak?",)),
)
_TEST: _Facts = (
    ("Since last year {name} has had a flat in {city}.", ("Where does {name} live?",)),
    ("{name} earns a living as a {job}.", ("What is the profession of {name}?",)),
    ("The phone of {name} is {phone}.", ("Under which number can one call {name}?",)),
    ("Mail for {name} goes to {email}.", ("Which e-mail address does {name} use?",)),
    ("{company} counts {name} among its clients.", ("Of which company is {name} a client?",)),
    ("The date of birth of {name} is {date}.", ("On which day was {name} born?",)),
    ("We received {amount} from {name}.", ("What amount did {name} send?",)),
    ("Case {number} was opened by {name}.", ("What is the number of {name}'s case?",)),
    ("{name} asked for a form in {language}.", ("In which language does {name} want the form?",)),
)
_FILLERS = (
    "Thank you for your patience.",
    "The office is closed on Monday.",
    "All documents are attached.",
    "The matter is with the second line of support.",
)
_LANGUAGES = ("Portuguese", "German", "Polish", "Greek", "Turkish", "Finnish", "Czech", "Danish")


def questions_on_letters(
    train: int, test: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return training and test rows {"question", "context", "answers"}, deterministic for a version
    of Faker."""
    fake = Faker("en_US")
    fake.seed_instance(SEED)
    draw = random.Random(SEED)
    return _rows(_TRAIN, train, fake, draw), _rows(_TEST, test, fake, draw)


def _rows(facts: _Facts, count: int, fake: Faker, draw: random.Random) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    while len(rows) < count:
        rows += _letter(facts, fake, draw)
    return rows[:count]


def _letter(facts: _Facts, fake: Faker, draw: random.Random) -> list[dict[str, Any]]:
    """Return the questions about one letter, with the same kinds of facts for several people."""
    fact_numbers = draw.sample(range(len(facts)), 3)
    sentences: list[tuple[str, str, str]] = []
    for name in (fake.unique.name() for _ in range(PEOPLE)):
        for number in fact_numbers:
            sentence, questions = facts[number]
            (slot,) = (each for each in _SLOT.findall(sentence) if each != "name")
            value = _values(fake)[slot]()
            question = draw.choice(questions).replace("{name}", name)
            text = sentence.replace("{name}", name).replace(f"{{{slot}}}", value)
            sentences.append((text, question, value))
    draw.shuffle(sentences)
    filler = draw.choice(_FILLERS)
    context = " ".join([*(text for text, _, _ in sentences), filler])
    rows = []
    for text, question, value in draw.sample(sentences, 3):
        start = context.index(text) + text.index(value)
        rows.append(
            {
                "question": question,
                "context": context,
                "answers": [{"start": start, "end": start + len(value)}],
            }
        )
    return rows


def _values(fake: Faker) -> dict[str, Callable[[], str]]:
    return {
        "city": fake.city,
        "job": lambda: fake.job().split(",")[0].lower(),
        "phone": lambda: fake.numerify("555-###-####"),
        "email": fake.email,
        "company": lambda: fake.company().split(",")[0],
        "date": lambda: f"{fake.day_of_month().lstrip('0')} {fake.month_name()} {fake.year()}",
        "amount": lambda: f"{fake.random_int(20, 9_000)} dollars",
        "number": lambda: fake.bothify("??-#####").upper(),
        "language": lambda: fake.random_element(_LANGUAGES),
    }
