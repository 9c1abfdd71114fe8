"""Sign-in of programs, sessions, and information on the caller."""

from __future__ import annotations

from typing import Any

from allauth.usersessions.models import UserSession
from django.db.models import QuerySet
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from assay.accounts.adapters import UNKNOWN_ADDRESS
from assay.accounts.devices import device_words
from assay.accounts.schemas import SignIn, StepUp
from assay.accounts.tokens import token_sign_in, token_step_up
from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.representations.common import PersonReference
from assay.api.representations.governance import MeAnswer, TokenAnswer
from assay.api.routes import Routes
from governance.keys.services import access_token_create
from governance.people.proof import FRESH
from governance.people.sessions import session_revoke, sessions_visible_to
from governance.principals import Principal


class SessionAnswer(serializers.Serializer[Any]):
    """A session of the portal; `address` is null if it is unknown."""

    id = serializers.IntegerField()
    person = PersonReference(source="user")
    device = serializers.SerializerMethodField()
    user_agent = serializers.CharField()
    address = serializers.SerializerMethodField()
    created_at = serializers.DateTimeField()
    last_seen_at = serializers.DateTimeField()

    def get_device(self, row: Any) -> str:
        return device_words(row.user_agent)

    def get_address(self, row: Any) -> str | None:
        return None if row.ip == UNKNOWN_ADDRESS else str(row.ip)


class StepUpAnswer(serializers.Serializer[Any]):
    """The current proof of identity of the access token."""

    method = serializers.CharField(help_text="`totp` or `recovery_codes`.")
    proved_at = serializers.DateTimeField()
    fresh_until = serializers.DateTimeField()


class TokenView(Endpoint):
    """Exchange of a password for a personal access token."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    @operation(
        "Session",
        "Exchange e-mail and password for a personal access token",
        body=SignIn,
        answer=TokenAnswer,
        status=201,
        auth=[],
    )
    def post(self, request: Request) -> Response:
        body = self.body_as(SignIn)
        person, proof = token_sign_in(
            email=body.email, password=body.password, code=body.code or ""
        )
        key, token = access_token_create(
            person=person, name="Signed in through the API", proof=proof
        )
        return self.answer({"token": token, "expires_at": key.expires_at}, TokenAnswer, status=201)


routes = Routes("Session", SessionAnswer)


@routes.post(
    "auth/step-up",
    "Verify your identity by a second factor: decisions require that within ten minutes",
    answer=StepUpAnswer,
    name="step_up_post",
)
def step_up(actor: Principal, body: StepUp) -> dict[str, Any]:
    """Required after 403 `step_up_required`. The proof is valid only with the access token of this
    request. A code works once; several decisions may use one proof. Wrong codes count as in
    sign-in.
    """
    proof = token_step_up(actor=actor, code=body.code)
    return {"method": proof.method, "proved_at": proof.at, "fresh_until": proof.at + FRESH}


@routes.get("me", "Get your identity and roles", answer=MeAnswer)
def me(actor: Principal) -> Principal:
    return actor


@routes.list("sessions", "List your sessions; administrators see those of all people")
def list_session(actor: Principal) -> QuerySet[UserSession]:
    return sessions_visible_to(actor)


@routes.delete("sessions/<id:session_id>", "End a session at once")
def delete(actor: Principal, session_id: int) -> None:
    session_revoke(actor=actor, session_id=session_id)
