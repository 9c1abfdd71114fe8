"""The steps that showcases share; each reuses results of earlier runs and adds missing ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay_demo.client import Api
from assay_demo.stage import Stage
from assay_demo.story.intake import MODELS, sign_off, version_of
from assay_demo.story.release import approve, attest, ensure_deployed, submit


@dataclass(frozen=True, slots=True)
class Base:
    """A base model for intake: its files and their description."""

    name: str
    task: str
    description: str
    source: str
    license: str
    files: Callable[[Stage], Path]

    @classmethod
    def of_chapter_1(cls, name: str) -> Base:
        """Return a base of chapter 1; its intake happens once."""
        about = MODELS[name]

        def files(stage: Stage) -> Path:
            material = stage.materials[about["material"]]
            return material.parent if material.is_file() else material

        described = {each: text for each, text in about.items() if each != "material"}
        return cls(name=name, files=files, **described)


def built(name: str, build: Callable[[Path], object]) -> Callable[[Stage], Path]:
    """Return a function that writes a base with `build` into a folder of the demo."""

    def files(stage: Stage) -> Path:
        folder = stage.folder / "bases" / name
        folder.mkdir(parents=True, exist_ok=True)
        build(folder)
        return folder

    return files


@dataclass(frozen=True, slots=True)
class Data:
    """A dataset: the content of the file to upload, a zip archive or JSON lines."""

    name: str
    license: str
    content: Callable[[Stage], bytes]
    suffix: str = ".zip"


def delivered(stage: Stage, base: Base) -> dict[str, Any]:
    """Return the trusted version of the base; upload and sign it off first if missing."""
    enzo = stage["enzo"]
    model_made(enzo, base.name, base.task, base.description, shared=True)
    if version_of(stage, base.name) is None:
        folder = base.files(stage)
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        uploads = [
            enzo.send("intake", base.name, file.relative_to(folder).as_posix(), file)
            for file in files
        ]
        intake = enzo.post(
            "intakes", model=base.name, source=base.source, license=base.license, uploads=uploads
        )
        stage.watch(enzo, {"id": intake["job"]}, f"checking {base.name}")
        sign_off(stage, base.name, intake)
        stage.say(
            f"{base.name} ({base.task}, {len(files)} files) passes intake; Omar signs it off."
        )
    return stage.require(version_of(stage, base.name), f"{base.name} has a base version")


def model_made(api: Api, name: str, task: str, description: str, *, shared: bool = False) -> None:
    """Register the model for Engineering unless one has that name."""
    if api.find("models", name=name) is None:
        api.post(
            "models",
            name=name,
            department="engineering",
            task=task,
            description=description,
            shared=shared,
        )


def dataset_made(stage: Stage, data: Data, task: str) -> dict[str, Any]:
    """Return the version of the dataset; upload it first if missing."""
    enzo = stage["enzo"]
    if enzo.find("datasets", name=data.name) is None:
        enzo.post(
            "datasets",
            name=data.name,
            department="engineering",
            task=task,
            classification="public",
            license=data.license,
        )
    path = f"datasets/{data.name}/versions"
    if not list(enzo.all(path)):
        folder = stage.folder / "uploads"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{data.name}{data.suffix}"
        file.write_bytes(data.content(stage))
        enzo.upload(path, fields={}, files=[("file", file)])
    version: dict[str, Any] = next(iter(enzo.all(path)))
    stage.facts[data.name] = version
    stage.say(f"Dataset {data.name}: {version['rows']:,} rows.")
    return version


def queue_prompt(
    stage: Stage,
    model: str,
    base: dict[str, Any],
    document: Mapping[str, Any] | None,
    description: str,
) -> dict[str, Any]:
    """Return the job that registers a prompt on the base; queue it at most once."""
    job: dict[str, Any] = stage["enzo"].queue(
        "prompt-versions",
        key=f"demo-{model}-{base['digest'][:16]}",
        model=model,
        base_version=base["id"],
        document=document,
        note=description,
    )
    return job


def made_by_prompt(
    stage: Stage,
    model: str,
    base: dict[str, Any],
    document: Mapping[str, Any],
    description: str,
) -> dict[str, Any]:
    """Return the version of `model` that is the base with a prompt; create both if missing."""
    model_made(stage["enzo"], model, "text-generation", description)
    if not list(stage["enzo"].all(f"models/{model}/versions")):
        job = queue_prompt(stage, model, base, document, description)
        stage.watch(stage["enzo"], job, f"making {model}")
    return newest_version(stage, model)


def newest_version(stage: Stage, model: str) -> dict[str, Any]:
    """Return the newest version of the model; raises StepFailed if it has none."""
    newest = next(iter(stage["enzo"].all(f"models/{model}/versions")), None)
    newest = stage.require(newest, f"{model} has a version")
    version: dict[str, Any] = stage["enzo"].get(f"versions/{newest['id']}")
    return version


def release_and_deploy(stage: Stage, version: dict[str, Any], name: str, **fields: Any) -> None:
    """Get a version approved for Engineering as `name`, and deploy it; skip completed steps."""
    release = submit(
        stage,
        "devi",
        version,
        name,
        departments=["engineering"],
        visibility="organization",
        **fields,
    )
    if release["state"] != "approved":
        attest(stage, "carla", release)
        for reviewer, specialty in (("carla", "compliance"), ("milo", "model-risk")):
            if release["state"] != "approved":
                release = approve(stage, reviewer, specialty, release)
    stage.expect(release["state"] == "approved", f"{name} is approved")
    ensure_deployed(stage, "enzo", release)
