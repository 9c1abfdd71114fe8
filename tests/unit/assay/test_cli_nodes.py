"""`assay node`: inviting a machine, joining on it, and taking it out of use."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.unit.assay.test_cli import Run, ada, run, signed_in
from tests.waiting import PATIENCE_S
from workers.nodes.models import Node, NodeState

__all__ = ["ada", "run", "signed_in"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sweep]


def test_a_machine_joins_with_its_token_and_leaves(
    signed_in: Run, live_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out, err = signed_in("node", "list", code=0)
    assert "No machine has joined" in out
    _, out, err = signed_in("node", "enroll", "gpu-1", code=0)
    token = out.strip()
    assert token.startswith("assay_")
    assert "Node gpu-1 is invited" in err

    key = tmp_path / "key"
    join = ("node", "join", live_server.url, "--key-file", str(key))
    monkeypatch.setenv("ASSAY_NODE_TOKEN", "assay_wrong")
    _, _, err = signed_in(*join, code=1)
    assert "is not valid; no node joined" in err
    assert not key.exists()
    monkeypatch.setenv("ASSAY_NODE_TOKEN", token)
    _, out, _ = signed_in(*join, code=0)
    assert "This machine is now node gpu-1" in out
    assert Node.objects.get().facts["cpus"] >= 1
    _, _, err = signed_in(*join, code=1)
    assert "this machine is already a node" in err

    for verb, state in (
        ("cordon", NodeState.CORDONED),
        ("drain", NodeState.DRAINING),
        ("uncordon", NodeState.ENROLLED),
        ("revoke", NodeState.REVOKED),
    ):
        _, out, _ = signed_in("node", verb, "gpu-1", "--reason", "Memory", code=0)
        assert f"gpu-1 is {state}" in out
    _, out, _ = signed_in("node", "list", code=0)
    assert "revoked" in out
    _, _, err = signed_in("node", "cordon", "gpu-1", code=4)
    assert "it cannot become cordoned" in err


def test_a_lost_answer_to_joining_says_that_the_token_may_be_used_up(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSAY_NODE_TOKEN", "assay_some")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def hang_up() -> None:
            with server.accept()[0] as caller:
                caller.recv(65_536)

        thread = threading.Thread(target=hang_up)
        thread.start()
        join = ("node", "join", f"http://127.0.0.1:{port}", "--key-file", str(tmp_path / "key"))
        _, _, err = run(*join, code=1)
        thread.join(PATIENCE_S)
    assert "The token may be used up." in " ".join(err.split())
    assert not (tmp_path / "key").exists()
    _, _, err = run(*join, code=1)
    assert "Check the address." in err


def test_joining_sends_no_token_over_a_network_unencrypted(run: Run, tmp_path: Path) -> None:
    for url, said in (("http://assay.example", "unencrypted"), ("nonsense", "is not the address")):
        _, _, err = run("node", "join", url, "--key-file", str(tmp_path / "key"), code=1)
        assert said in err
    assert not (tmp_path / "key").exists()
