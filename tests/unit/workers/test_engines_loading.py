from __future__ import annotations

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("shard", ["/etc/planted.safetensors", "../planted.safetensors", "gone"])
def test_an_index_that_names_bytes_outside_of_the_version_is_refused(
    tmp_path: Path, shard: str
) -> None:
    from workers.engines.architectures import UnsupportedModel
    from workers.engines.loading import check_shards

    (tmp_path.parent / "planted.safetensors").write_bytes(b"weights")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"layer": shard}}))
    with pytest.raises(UnsupportedModel, match="not a file of the version"):
        check_shards(tmp_path)


def test_an_index_of_delivered_shards_is_loaded(tmp_path: Path) -> None:
    from workers.engines.loading import check_shards

    (tmp_path / "model-1.safetensors").write_bytes(b"weights")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"layer": "model-1.safetensors"}}))
    check_shards(tmp_path)
