"""Terms that review policies of releases may use: the risk answers, facts about the version, and
the automatic checks.

Does not import Django, so that a policy can be checked on any machine.
"""

from __future__ import annotations

from governance.reviews.policies.vocabulary import Vocabulary
from registry.releases.risk import FACTS, QUESTIONS

# The function for each name is in `registry.releases.checklist.CHECKS`.
CHECKS = {
    "card": "the model card has content",
    "classification": "the stated classification is no lower than the training data's",
    "dossier": "the dossier's sections that the tier requires are filled in",
    "evaluated": "it was evaluated on held-out data",
    "files": "every stored file has the digest that the dossier names",
    "gates": "every gate that was set beforehand is passed, and enough are set",
    "intake": "its base came in through a signed intake",
    "leak": "training and test data are apart",
    "license": "the license of the version and of each of its bases is recorded",
}
VOCABULARY = Vocabulary(questions={**QUESTIONS, **FACTS}, checks=CHECKS)
