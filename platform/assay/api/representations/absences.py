"""Absences of reviewers."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers


class AbsenceAnswer(serializers.Serializer[Any]):
    """`deputy` may review for `speciality` in the place of `person` from `starts_at` to `ends_at`,
    or to `ended_at` when it was ended early."""

    id = serializers.IntegerField()
    person = serializers.IntegerField(source="person_id")
    person_name = serializers.CharField(source="person.name")
    deputy = serializers.IntegerField(source="deputy_id")
    deputy_name = serializers.CharField(source="deputy.name")
    speciality = serializers.CharField()
    starts_at = serializers.DateTimeField()
    ends_at = serializers.DateTimeField()
    ended_at = serializers.DateTimeField(allow_null=True)
    set_by = serializers.IntegerField(source="set_by_id")
    created_at = serializers.DateTimeField()
