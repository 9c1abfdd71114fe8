"""Comparison of a release with the live one under its name, and of two versions."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.representations.recalls import TrafficAnswer
from assay.api.representations.registry import DatasetVersionReference, VersionReference
from assay.api.routes import Routes
from governance.principals import Principal
from governance.schemas import Filter, Id
from registry.releases.comparison.build import version_compare
from registry.releases.selectors import release_get
from registry.versions.selectors import version_get
from workers.deployments.comparison import LiveComparison, release_compare_live


class IntervalAnswer(serializers.Serializer[Any]):
    """95% confidence interval of the true value, from `n` rows."""

    low = serializers.FloatField()
    high = serializers.FloatField()
    n = serializers.IntegerField()
    method = serializers.CharField()


class ChangeAnswer(serializers.Serializer[Any]):
    """A difference. `size` is new minus old, with the 95% confidence interval `low` to `high`.
    `verdict` is `better`, `worse`, `within_noise` (the interval contains 0), `unsure` (one value
    has no interval, or the better direction is unknown) or `alone` (there is nothing to compare
    with). `paired`: the interval is computed from both answers to each row."""

    old = serializers.FloatField(allow_null=True)
    old_interval = IntervalAnswer(allow_null=True)
    size = serializers.FloatField(allow_null=True)
    low = serializers.FloatField(allow_null=True)
    high = serializers.FloatField(allow_null=True)
    verdict = serializers.CharField()
    paired = serializers.BooleanField()


class GateCheckAnswer(serializers.Serializer[Any]):
    """A gate at the time of the evaluation. `clear`: the whole interval is on the same side of the
    threshold as the value."""

    comparator = serializers.CharField()
    threshold = serializers.FloatField()
    value = serializers.FloatField(allow_null=True)
    passed = serializers.BooleanField()
    clear = serializers.BooleanField(allow_null=True)
    why = serializers.CharField()


class MetricChangeAnswer(serializers.Serializer[Any]):
    """One metric."""

    name = serializers.CharField()
    title = serializers.CharField()
    value = serializers.FloatField()
    n = serializers.IntegerField()
    interval = IntervalAnswer(allow_null=True)
    change = ChangeAnswer()
    gates = GateCheckAnswer(many=True)


class SliceChangeAnswer(serializers.Serializer[Any]):
    """One metric on one slice of the data."""

    by = serializers.CharField()
    name = serializers.CharField()
    metric = serializers.CharField(source="title")
    value = serializers.FloatField()
    n = serializers.IntegerField()
    interval = IntervalAnswer(allow_null=True)
    change = ChangeAnswer()


class BaselineAnswer(serializers.Serializer[Any]):
    """The accuracy of a simple model on the same rows; `change` is the version's difference."""

    name = serializers.CharField()
    value = serializers.FloatField()
    interval = IntervalAnswer()
    trained_on = serializers.IntegerField()
    change = ChangeAnswer()


class SamplePartAnswer(serializers.Serializer[Any]):
    """A text, the thumbnail of an image as a PNG in a data URL, and the SHA-256 of a recording,
    which the review page plays. Each is empty if there is none."""

    text = serializers.CharField()
    image = serializers.CharField()
    audio = serializers.CharField()


class SamplePairAnswer(serializers.Serializer[Any]):
    """One prompt and both answers; `old` is null if the other version has no answer to it."""

    asked = SamplePartAnswer(source="prompt")
    expected = SamplePartAnswer(allow_null=True)
    new = SamplePartAnswer()
    old = SamplePartAnswer(allow_null=True)


class ComparedEvaluationAnswer(serializers.Serializer[Any]):
    """One evaluation, compared with the live version's on the same data (`against` is `live`), or
    else with its own baseline (`baseline`), or not at all (`nothing`). `missing` explains how to
    fix that. `on_training_data` and `live_on_training_data`: the version was trained on this data,
    so the result says nothing about new data."""

    evaluation = serializers.IntegerField(source="evaluation.pk")
    digest = serializers.CharField(source="evaluation.digest")
    on_training_data = serializers.BooleanField(source="evaluation.on_training_data")
    rows_cut = serializers.IntegerField(source="evaluation.rows_cut")
    dataset_version = DatasetVersionReference(source="evaluation.dataset_version")
    against = serializers.CharField()
    against_name = serializers.CharField()
    live_evaluation = serializers.IntegerField(source="live.pk", default=None, allow_null=True)
    live_on_training_data = serializers.BooleanField(
        source="live.on_training_data", default=None, allow_null=True
    )
    live_rows_cut = serializers.IntegerField(source="live.rows_cut", default=None, allow_null=True)
    missing = serializers.CharField()
    metrics = MetricChangeAnswer(many=True)
    gates_not_measured = GateCheckAnswer(many=True)
    slices = SliceChangeAnswer(many=True)
    baselines = BaselineAnswer(many=True)
    samples = SamplePairAnswer(many=True)


class RowChangesAnswer(serializers.Serializer[Any]):
    """Numbers of added, removed and unchanged rows, by their digests."""

    added = serializers.IntegerField()
    removed = serializers.IntegerField()
    kept = serializers.IntegerField()


class DataFactsAnswer(serializers.Serializer[Any]):
    """One dataset version. `personal` is null if it was not searched for personal data."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    digest = serializers.CharField()
    rows = serializers.IntegerField()
    license = serializers.CharField()
    classification = serializers.CharField()
    columns = serializers.ListField(child=serializers.CharField())
    duplicates = serializers.IntegerField(allow_null=True)
    near_duplicates = serializers.IntegerField(allow_null=True)
    labels = serializers.DictField(child=serializers.IntegerField())
    personal = serializers.JSONField(allow_null=True)


class DataChangeAnswer(serializers.Serializer[Any]):
    """Changes of the training data. `hidden`: the caller may not see all of it."""

    new = DataFactsAnswer(allow_null=True)
    old = DataFactsAnswer(allow_null=True)
    hidden = serializers.BooleanField()
    same = serializers.BooleanField()
    delta = RowChangesAnswer(allow_null=True)
    why_not = serializers.CharField()
    columns_added = serializers.ListField(child=serializers.CharField())
    columns_removed = serializers.ListField(child=serializers.CharField())


class FieldChangeAnswer(serializers.Serializer[Any]):
    """One field: `same`, `changed`, `added`, `removed`, or `new` without anything to compare."""

    name = serializers.CharField()
    change = serializers.CharField()
    old = serializers.JSONField(allow_null=True)
    new = serializers.JSONField(allow_null=True)


class FieldsAnswer(serializers.Serializer[Any]):
    """Fields, changed ones first; `left_out` is the number of omitted ones."""

    rows = FieldChangeAnswer(many=True)
    left_out = serializers.IntegerField()


class SectionChangeAnswer(serializers.Serializer[Any]):
    """One section of the model card: a diff with one line of context around each change."""

    title = serializers.CharField()
    slug = serializers.CharField()
    change = serializers.CharField()
    lines = serializers.SerializerMethodField()
    left_out = serializers.IntegerField()

    def get_lines(self, section: Any) -> list[str]:
        return [line for _, line in section.lines]


class CardChangeAnswer(serializers.Serializer[Any]):
    """Changed sections; `same` is the number of the others."""

    sections = SectionChangeAnswer(many=True)
    same = serializers.IntegerField()
    left_out = serializers.IntegerField()


class FileChangeAnswer(serializers.Serializer[Any]):
    """One file; `before` is its digest in the live version."""

    path = serializers.CharField()
    size = serializers.IntegerField()
    sha256 = serializers.CharField()
    before = serializers.CharField()
    change = serializers.CharField()


class FilesAnswer(serializers.Serializer[Any]):
    """Files, changed ones first; `changed` is the number of all changed ones."""

    rows = FileChangeAnswer(many=True)
    changed = serializers.IntegerField()
    left_out = serializers.IntegerField()


class PackagesAnswer(serializers.Serializer[Any]):
    """Versions and files of the task's packages; `unlisted` names changed or new packages with too
    many files to list."""

    versions = FieldsAnswer()
    files = FilesAnswer()
    unlisted = serializers.ListField(child=serializers.CharField())


class ReachedDepartmentAnswer(serializers.Serializer[Any]):
    """A department's right to use the release and the live one, and its recent requests."""

    department = serializers.CharField()
    may_use = serializers.BooleanField()
    may_now = serializers.BooleanField()
    traffic = TrafficAnswer(allow_null=True)


class ReachAnswer(serializers.Serializer[Any]):
    """Affected departments. `whole`: the requests of all departments in the last 30 days are
    counted.
    """

    departments = ReachedDepartmentAnswer(many=True)
    whole = serializers.BooleanField()
    requests = serializers.IntegerField()
    tokens = serializers.IntegerField()
    left_out = serializers.IntegerField()


class LiveAnswer(serializers.Serializer[Any]):
    """The deployment that serves under the release's name now."""

    deployment = serializers.IntegerField(source="pk")
    release = serializers.IntegerField(source="release_id")
    version = VersionReference(source="release.version")


class VersionComparisonAnswer(serializers.Serializer[Any]):
    """A version compared with another. `against` of an evaluation is `version` instead of `live`,
    otherwise as in the comparison of a release."""

    version = VersionReference()
    against = VersionReference(source="replaced")
    measured = ComparedEvaluationAnswer(many=True, source="comparison.measured")
    data = DataChangeAnswer(source="comparison.data")  # type: ignore[assignment]  # DRF takes it out
    settings = FieldsAnswer(source="comparison.settings")
    code = FieldsAnswer(source="comparison.code")
    card = CardChangeAnswer(source="comparison.card")
    prompt = CardChangeAnswer(source="comparison.prompt")
    files = FilesAnswer(source="comparison.files")


class ComparisonAnswer(serializers.Serializer[Any]):
    """A release compared with the live one; everything is new if `live` is null."""

    release = serializers.IntegerField(source="comparison.release.pk")
    version = VersionReference(source="comparison.release.version")
    live = LiveAnswer(allow_null=True)
    measured = ComparedEvaluationAnswer(many=True, source="comparison.measured")
    data = DataChangeAnswer(source="comparison.data")  # type: ignore[assignment]  # DRF takes it out
    settings = FieldsAnswer(source="comparison.settings")
    code = FieldsAnswer(source="comparison.code")
    asked = FieldsAnswer(source="comparison.request")
    answers = FieldsAnswer(source="comparison.answers")
    dossier = FieldsAnswer(source="comparison.dossier")
    card = CardChangeAnswer(source="comparison.card")
    prompt = CardChangeAnswer(source="comparison.prompt")
    files = FilesAnswer(source="comparison.files")
    packages = PackagesAnswer(source="comparison.packages")
    reach = ReachAnswer()


routes = Routes("Releases", ComparisonAnswer)


@routes.get(
    "releases/<id:release_id>/comparison",
    "Compare a release with the live one under its name: metrics with their intervals, "
    "data, settings, card, answers, files, packages of the task, and affected departments",
    name="comparison_get",
)
def show(actor: Principal, release_id: int) -> LiveComparison:
    return release_compare_live(actor=actor, release=release_get(actor=actor, id=release_id))


class AgainstQuery(Filter):
    """The version to compare with, of the same task."""

    against: Id


class VersionComparisonView(Endpoint):
    """Compare a version with another."""

    @operation(
        "Models",
        "Compare two versions: metrics with their intervals, data, settings, card and files",
        query=AgainstQuery,
        answer=VersionComparisonAnswer,
        judged=True,
    )
    def get(self, request: Request, version_id: int) -> Response:
        # First, so that callers who may not see the version get 404 regardless of parameters.
        version = version_get(actor=self.actor, id=version_id)
        other = version_get(actor=self.actor, id=self.query_as(AgainstQuery).against)
        comparison = version_compare(actor=self.actor, version=version, other=other)
        answer = {"version": version, "replaced": other, "comparison": comparison}
        return self.answer(answer, VersionComparisonAnswer)
