"""Signing in for programs, and who one is."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers, status
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from assay.accounts.adapters import UNKNOWN_ADDRESS
from assay.accounts.devices import device_words
from assay.accounts.factors import CODE_MAX
from assay.accounts.tokens import token_sign_in, token_step_up
from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import Line, Password, StrictSerializer
from assay.api.representations.common import PersonReference
from assay.api.representations.governance import MeAnswer, TokenAnswer
from governance.bounds import EMAIL_MAX
from governance.keys.services import access_token_create
from governance.people.proof import FRESH
from governance.people.sessions import session_revoke, sessions_visible_to


class SessionAnswer(serializers.Serializer[Any]):
    """A session of the portal; `address` is null when it is not known."""

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
    """The proof that the access token carries now."""

    method = serializers.CharField(help_text="`totp` or `recovery_codes`.")
    proved_at = serializers.DateTimeField()
    fresh_until = serializers.DateTimeField()


class SignInBody(StrictSerializer):
    """Credentials."""

    email = Line(max_length=EMAIL_MAX)
    password = Password()
    code = Line(
        max_length=CODE_MAX,
        required=False,
        help_text="Of the authenticator app, or a recovery code; required after 401 "
        "`second_factor_required`.",
    )


class TokenView(Endpoint):
    """A password for a personal access token."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    @operation(
        "Session",
        "Exchange e-mail and password for a personal access token",
        body=SignInBody,
        answer=TokenAnswer,
        status=201,
        auth=[],
    )
    def post(self, request: Request) -> Response:
        given = self.body(SignInBody)
        person, proof = token_sign_in(
            email=given["email"], password=given["password"], code=given.get("code", "")
        )
        key, token = access_token_create(
            person=person, name="Signed in through the API", proof=proof
        )
        answer: dict[str, Any] = {"token": token, "expires_at": key.expires_at}
        response = self.answer(answer, TokenAnswer, status=status.HTTP_201_CREATED)
        response.headers["Cache-Control"] = "no-store"
        return response


class StepUpBody(StrictSerializer):
    """A code."""

    code = Line(max_length=CODE_MAX, help_text="Of the authenticator app, or a recovery code.")


class StepUpView(Endpoint):
    """A fresh proof of who is behind an access token."""

    @operation(
        "Session",
        "Prove by a second factor who you are: decisions ask for that within ten minutes",
        body=StepUpBody,
        answer=StepUpAnswer,
        description="Required after 403 `step_up_required`. The proof is valid with the access "
        "token that made it. A code works once; several decisions may use one proof. Wrong codes "
        "are counted as at sign-in.",
    )
    def post(self, request: Request) -> Response:
        proof = token_step_up(actor=self.actor, code=self.body(StepUpBody)["code"])
        answer = {"method": proof.method, "proved_at": proof.at, "fresh_until": proof.at + FRESH}
        return self.answer(answer, StepUpAnswer)


class MeView(Endpoint):
    """The caller."""

    @operation("Session", "Who you are, and the roles you hold", answer=MeAnswer)
    def get(self, request: Request) -> Response:
        self.query()
        return self.answer(self.actor, MeAnswer)


class SessionsView(Endpoint):
    """Sessions of the portal."""

    @operation(
        "Session",
        "List where you are signed in; admins: everybody",
        answer=SessionAnswer,
        paged=True,
    )
    def get(self, request: Request) -> Response:
        self.query()
        return self.page(sessions_visible_to(self.actor), SessionAnswer)


class SessionView(Endpoint):
    """One session."""

    @operation("Session", "Sign a session out, at once", answer=None, status=204)
    def delete(self, request: Request, session_id: int) -> Response:
        session_revoke(actor=self.actor, session_id=session_id)
        return Response(status=204)
