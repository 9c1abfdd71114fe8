"""Terms that review policies of releases may use: the risk answers, and the automatic checks.

Knows no Django, so that a policy can be checked on any machine.
"""

from __future__ import annotations

from governance.reviews.policies.vocabulary import Vocabulary
from registry.releases.risk import QUESTIONS

# Each is made by the function of that name in `registry.releases.checklist.CHECKS`.
CHECKS = {
    "card": "the model card says something",
    "classification": "the stated classification is no lower than the training data's",
    "dossier": "the dossier's sections that the tier asks for are filled in",
    "evaluated": "it was evaluated on held-out data",
    "files": "every stored file has the digest that the dossier names",
    "gates": "every gate that was set beforehand is passed, and enough are set",
    "intake": "what it stands on came in through a signed intake",
    "leak": "training and test data are apart",
    "license": "the license of the version and of each of its bases is recorded",
}
VOCABULARY = Vocabulary(questions=QUESTIONS, checks=CHECKS)
