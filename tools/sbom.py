"""Write the bill of materials of a wheel: CycloneDX 1.6, next to the wheel.

    .venv/bin/python tools/sbom.py dist/assay-0.1.0-py3-none-any.whl

The components are the wheel with its SHA-256, every package that its locks pin, with the hashes of
the package's archives, and the libraries in the wheel. Packages of the extras `worker` and `local`
are optional.
"""

from __future__ import annotations

import hashlib
import re
import sys
import zipfile
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path

from cyclonedx.model import (
    ExternalReference,
    ExternalReferenceType,
    HashAlgorithm,
    HashType,
    Property,
    XsUri,
)
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

# Lock files by the extra of Assay that needs them; "" is for every installation.
LOCKS = {"control": "", "worker": "worker", "torch": "worker", "local": "local"}
VENDORED = "assay/portal/static/vendor/"


def bill(wheel: Path) -> str:
    """Return the bill of materials of a wheel.

    Raises:
        ValueError: the bill is not valid CycloneDX.
    """
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
        about = HeaderParser().parsestr(archive.read(metadata).decode())
        bom = Bom()
        bom.metadata.component = Component(
            type=ComponentType.APPLICATION,
            name=about["Name"],
            version=about["Version"],
            description=about["Summary"],
            licenses=[LicenseExpression(about["License-Expression"])],
            purl=PackageURL("pypi", name=about["Name"], version=about["Version"]),
            hashes=[_sha256(hashlib.sha256(wheel.read_bytes()).hexdigest())],
        )
        bom.components = [*_pinned(archive), *_vendored(archive)]
    bom.register_dependency(bom.metadata.component, bom.components)
    text = str(JsonV1Dot6(bom).output_as_string(indent=2))
    if wrong := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise ValueError(f"The bill of materials is not valid CycloneDX: {wrong}")
    return text


def _pinned(archive: zipfile.ZipFile) -> Iterator[Component]:
    files = {name.rpartition("/share/assay/locks/")[2]: name for name in archive.namelist()}
    for lock, extra in LOCKS.items():
        text = archive.read(files[f"{lock}.txt"]).decode()
        for entry in re.split(r"\n(?=\S)", text):
            pin = re.match(r"([\w.-]+)(?:\[[^]]*\])?==([^ ;]+)", entry)
            if pin is None:
                continue
            yield Component(
                name=pin[1],
                version=pin[2],
                purl=PackageURL("pypi", name=pin[1], version=pin[2]),
                scope=ComponentScope.OPTIONAL if extra else ComponentScope.REQUIRED,
                external_references=[
                    ExternalReference(
                        type=ExternalReferenceType.DISTRIBUTION,
                        url=XsUri(f"https://pypi.org/project/{pin[1]}/{pin[2]}/"),
                        hashes=map(_sha256, re.findall(r"sha256:([0-9a-f]{64})", entry)),
                    )
                ],
                properties=[Property(name="assay:extra", value=extra)] if extra else [],
            )


def _vendored(archive: zipfile.ZipFile) -> Iterator[Component]:
    """Yield the libraries of the portal, one for each folder, with the hashes of their files."""
    names = [name for name in archive.namelist() if name.startswith(VENDORED)]
    for folder in sorted({name.removeprefix(VENDORED).partition("/")[0] for name in names}):
        yield Component(
            name=folder,
            scope=ComponentScope.REQUIRED,
            components=[
                Component(
                    type=ComponentType.FILE,
                    name=name,
                    hashes=[_sha256(hashlib.sha256(archive.read(name)).hexdigest())],
                )
                for name in names
                if name.startswith(f"{VENDORED}{folder}/") and not name.endswith("/")
            ],
        )


def _sha256(digest: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=digest)


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        target = path.with_suffix(".cdx.json")
        target.write_text(bill(path) + "\n", encoding="utf-8")
        sys.stdout.write(f"{target}\n")
