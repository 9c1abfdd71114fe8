"""Values of ASSAY_SIEM_STREAMS, and the parts that may be shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from governance.audit.streaming.destinations import Destination, destinations_from

SOC = {"name": "soc", "url": "https://siem.example/in?key=hidden", "token": "hidden-too"}


def read(*listed: Any, production: bool = True) -> tuple[Destination, ...]:
    return destinations_from(json.dumps(listed), production=production)


def test_two_destinations_are_read_with_their_defaults() -> None:
    soc, backup = read(SOC, {"name": "backup", "url": "syslog+tls://log.example", "format": "cef"})
    assert (soc.format, soc.personal_data, soc.begin, soc.auth) == (
        "ocsf",
        False,
        "start",
        "bearer",
    )
    assert soc.address == "https://siem.example:443"
    assert backup.address == "syslog+tls://log.example:6514"
    assert destinations_from(" ", production=True) == ()


def test_nothing_that_may_be_secret_is_shown() -> None:
    (soc,) = read(SOC)
    assert "hidden" not in f"{soc!r} {soc} {soc.address}"


def test_a_renewed_token_is_read_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    (soc,) = read({"name": "soc", "url": "https://siem.example", "token_file": str(file)})
    with pytest.raises(OSError, match="token"):
        soc.secret()
    for token in ("first", "second"):
        file.write_text(f"{token}\n")
        assert soc.secret() == token


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": "So C"}, "destination 1 has no name"),
        ({"url": ""}, "'soc': it has no url"),
        ({"url": "ftp://siem.example"}, "must begin with one of https://"),
        ({"url": "https://"}, "names no host"),
        ({"url": "https://siem.example:99999"}, "malformed"),
        ({"url": "https://user:hidden@siem.example"}, "contains credentials"),
        ({"url": "https://siem.example/a\nb"}, "contains an invalid character"),
        ({"url": "http://siem.example"}, "over https, not http"),
        ({"url": "syslog+tls://log.example/x", "token": ""}, "without anything after it"),
        ({"url": "syslog+tls://log.example"}, "syslog has no token"),
        ({"url": "syslog+tcp://log.example", "token": "", "ca_file": "x"}, "ca_file"),
        ({"format": "leef"}, "format must be ocsf or cef"),
        ({"from": "yesterday"}, "from must be start or now"),
        ({"auth": "basic"}, "auth must be bearer or splunk"),
        ({"token": "hidden\n"}, "that headers do not allow"),
        ({"token_file": "x"}, "not both"),
        ({"personal_data": "no"}, "personal_data must be true or false"),
        ({"format": 1}, "format must be a text"),
        ({"tokn": "hidden"}, "'tokn' is an unknown key"),
    ],
)
def test_a_destination_that_cannot_be_used_is_named_without_its_secrets(
    changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match="destination") as refused:
        read({**SOC, **changed})
    assert said in str(refused.value)
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hidden", "not JSON"),
        ('{"name": "soc"}', "not a list"),
        ("[1]", "not a list"),
        (json.dumps([SOC, SOC]), "used twice"),
        (json.dumps([SOC] * 9), "the maximum is 8"),
    ],
)
def test_a_setting_that_is_no_list_of_destinations_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        destinations_from(text, production=False)
    assert "hidden" not in str(refused.value)


def test_plain_http_is_for_development() -> None:
    (soc,) = read({"name": "soc", "url": "http://127.0.0.1:8088"}, production=False)
    assert not soc.encrypted
