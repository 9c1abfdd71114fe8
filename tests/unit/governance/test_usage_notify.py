from __future__ import annotations

from governance.notify import notify
from tests.waiting import PATIENCE_S


def test_a_message_reaches_whoever_listens(redis):
    listener = redis.pubsub(ignore_subscribe_messages=True)
    listener.subscribe("assay:snapshot")
    listener.get_message(timeout=PATIENCE_S)
    notify("assay:snapshot", "key 7")
    assert listener.get_message(timeout=PATIENCE_S)["data"] == b"key 7"
    listener.close()


def test_a_broker_that_is_away_is_logged_and_no_error(settings, caplog):
    settings.REDIS_URL = "unix:///nowhere/valkey.sock"
    notify("assay:snapshot")
    assert "Could not publish on assay:snapshot" in caplog.text
