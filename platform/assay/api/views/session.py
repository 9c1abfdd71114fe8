"""Signing in for programs, and who one is."""

from __future__ import annotations

from typing import Any

from rest_framework import status
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import Line, Password, StrictSerializer
from assay.api.representations.governance import MeAnswer, TokenAnswer
from governance.keys.services import access_token_create
from governance.people.signing_in import password_check, sign_in_record


class SignInBody(StrictSerializer):
    """Credentials."""

    email = Line(max_length=254)
    password = Password()


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
        person = password_check(email=given["email"], password=given["password"])
        sign_in_record(person=person, methods=["password"])
        key, token = access_token_create(person=person, name="Signed in through the API")
        answer: dict[str, Any] = {"token": token, "expires_at": key.expires_at}
        response = self.answer(answer, TokenAnswer, status=status.HTTP_201_CREATED)
        response.headers["Cache-Control"] = "no-store"
        return response


class MeView(Endpoint):
    """The caller."""

    @operation("Session", "Who you are, and the roles you hold", answer=MeAnswer)
    def get(self, request: Request) -> Response:
        self.query()
        return self.answer(self.actor, MeAnswer)
