"""Nodes with real keys, for the tests of what they may do."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.unit.workers import company
from workers.control.messages import signed_text
from workers.nodes.credentials import challenge_make
from workers.nodes.models import Node
from workers.nodes.services import node_enroll, node_join
from workers.nodes.sessions import session_start


@dataclass(slots=True)
class Machine:
    """A machine with a key pair."""

    name: str = "gpu-1"
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    broker_password: str = ""

    @property
    def public_key(self) -> str:
        return self.key.public_key().public_bytes_raw().hex()

    def answer(self, challenge: str) -> str:
        return self.key.sign(signed_text(challenge, self.name)).hex()

    def sign_in(self, current: str = "") -> str:
        """Return the token of a new session."""
        challenge = challenge_make(self.name)
        signature = self.answer(challenge)
        started = session_start(
            name=self.name, challenge=challenge, signature=signature, current=current
        )
        self.broker_password = started.broker_password
        return started.token


def joined(name: str = "gpu-1") -> tuple[Machine, Node]:
    """A machine that an administrator enrolled, and its node."""
    machine = Machine(name)
    _, token, _ = node_enroll(actor=company.person("ada", "admin"), name=name)
    return machine, node_join(token=token, public_key=machine.public_key)
