"""The engine is part of a release: chosen, frozen in the dossier, and compared by the one rule."""

from __future__ import annotations

import pytest

from governance.errors import InvalidInput, WrongState
from registry.catalog.engines import EngineName
from registry.releases.carrying import dossier_changes, unchanged_items
from registry.releases.comparison.build import release_compare
from registry.releases.engines import Precision, engines_for, precisions_for
from registry.releases.exports.sections import dossier_sections
from registry.releases.models import Release
from registry.releases.renewal import release_renew
from registry.releases.selectors import release_review
from registry.releases.services import release_withdraw
from registry.releases.serving import release_servable
from registry.versions.models import ModelVersion
from registry.versions.weights import measuring_engine, quantization_of, weights_format
from tests.unit.registry.objects import gguf, model, stored, version
from tests.unit.registry.office import Office, proven

pytestmark = pytest.mark.django_db


def kept(office: Office) -> ModelVersion:
    """A base version whose weights are a GGUF."""
    files = stored({"model.gguf": gguf(), "config.json": b"{}"})
    chat = model(office.submitter, office.clinical, "chat", "text-generation")
    made = version(chat, office.submitter, parameters={"quantization": "Q4_K"})
    ModelVersion.objects.filter(pk=made.pk).update(manifest=files.to_json(), digest=files.digest)
    made.refresh_from_db()
    return made


def test_a_release_runs_on_our_own_engine_unless_it_names_another(office: Office) -> None:
    release = office.submit()
    assert (release.engine, release.precision) == ("own", "stored")
    serving = {"engine": "own", "precision": "stored", "quantization": ""}
    assert release.dossier["serving"] == serving
    (section,) = [each for each in dossier_sections(release.dossier) if each.code == "serving"]
    assert section.blocks[0].facts[:2] == (
        ("Engine", "Assay's own"),
        ("Precision", "As the weights are stored"),
    )


def test_the_precision_is_under_the_digest_and_a_renewal_keeps_it(office: Office) -> None:
    release = office.submit(precision="bfloat16")
    assert release.dossier["serving"]["precision"] == "bfloat16"
    release_withdraw(actor=proven(office.submitter), release_id=release.pk, reason="Again.")
    renewed = release_renew(actor=proven(office.submitter), release_id=release.pk)
    assert (renewed.engine, renewed.precision) == ("own", "bfloat16")


def test_what_the_row_names_must_be_what_the_dossier_names(office: Office) -> None:
    release = office.approve(office.submit())
    release_servable(release)
    for field, value in (("engine", "llama.cpp"), ("precision", "float16")):
        Release.objects.filter(pk=release.pk).update(**{field: value})
        with pytest.raises(WrongState, match=f"approved with other {field}"):
            release_servable(Release.objects.get(pk=release.pk))
        Release.objects.filter(pk=release.pk).update(engine="own", precision="stored")


def test_a_gguf_that_was_kept_is_served_by_llama_cpp_alone(office: Office) -> None:
    chat = kept(office)
    assert (weights_format(chat), measuring_engine(chat)) == ("gguf", "llama.cpp")
    assert quantization_of(chat) == "Q4_K"
    with pytest.raises(InvalidInput, match="Assay's own cannot serve") as refused:
        office.submit(version=chat, engine="own", tier="minimal")
    assert "engine" in refused.value.fields
    with pytest.raises(InvalidInput, match="as the GGUF stores them"):
        office.submit(version=chat, precision="float32", tier="minimal")


def test_a_comparison_names_the_engine_of_each_release(office: Office) -> None:
    release, live = office.submit(version=kept(office), tier="minimal"), office.submit()
    compared = release_compare(actor=proven(office.submitter), release=release, live=live)
    (engine,) = [row for row in compared.code.changed if row.name == "engine"]
    assert engine.new == "workers.engines.servers.llama_cpp:LlamaCppEngine"
    assert engine.old != engine.new


def test_a_form_offers_the_precisions_of_the_engines_that_can_serve_the_version() -> None:
    assert precisions_for([EngineName.LLAMA_CPP]) == ["stored"]
    assert precisions_for([EngineName.OWN, EngineName.VLLM]) == list(Precision)


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ({"engine": "llama.cpp"}, "llama.cpp cannot serve"),
        ({"engine": "x"}, "'x' is not an engine"),
        ({"precision": "int4"}, "'int4' is not a precision"),
    ],
)
def test_an_engine_that_cannot_serve_the_version_is_refused(
    office: Office, choice: dict[str, str], reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        office.submit(**choice)
    assert not Release.objects.exists()


def test_another_engine_is_a_change(office: Office) -> None:
    release = office.submit()
    office.attest(release)
    review = release_review(release)
    assert unchanged_items(release, review, release.dossier)
    other = {**release.dossier, "serving": {**release.dossier["serving"], "engine": "llama.cpp"}}
    assert [each.section for each in dossier_changes(release.dossier, other)] == ["serving"]
    assert not unchanged_items(release, review, other)


def test_vllm_serves_language_models_and_their_lora_and_no_soft_prompt(
    office: Office,
) -> None:
    chat = model(office.submitter, office.clinical, "chat", "text-generation")
    base = version(chat, office.submitter)
    lora = version(chat, office.submitter, "adapter", base, parameters={"r": 8})
    soft = version(chat, office.submitter, "adapter", base, parameters={"virtual_tokens": 8})
    prompt = version(chat, office.submitter, "prompt", soft)
    assert engines_for(base) == engines_for(lora) == ["own", "vllm"]
    assert engines_for(soft) == engines_for(prompt) == engines_for(office.tuned) == ["own"]


def test_results_of_another_engine_or_precision_are_left_to_a_reviewer(office: Office) -> None:
    same = office.checklist(office.submit())
    other = office.checklist(office.submit(deployment_name="other", precision="bfloat16"))
    for code in ("evaluated", "gates"):
        assert same[code][0] == "satisfied"
        state, note = other[code]
        assert state == "open"
        assert "Measured with Assay's own (as stored), serves with Assay's own (bfloat16)." in note
