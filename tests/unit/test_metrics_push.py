"""Where metrics are pushed: what LOYALTY_METRICS_PUSH_URL may be."""

import pytest

from loyalty_pipelines.domain.metrics_push import (
    PushNotConfiguredError,
    PushSettings,
    PushSettingsError,
    is_push_wanted,
    push_settings,
)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://gate:9091", PushSettings(url="http://gate:9091")),
        (" https://gate/ ", PushSettings(url="https://gate")),
        ("http://[::1]:9091/a/b/", PushSettings(url="http://[::1]:9091/a/b")),
        ("https://u:p@gate", PushSettings(url="https://gate", user="u", password="p")),
        ("https://u@gate", PushSettings(url="https://gate", user="u")),
        ("https://u%40x:%3A%2F%C3%A9@gate:1", PushSettings(url="https://gate:1", user="u@x", password=":/é")),
    ],
)
def test_an_address_is_taken_apart(url: str, found: PushSettings) -> None:
    assert push_settings({"LOYALTY_METRICS_PUSH_URL": url}) == found
    assert is_push_wanted({"LOYALTY_METRICS_PUSH_URL": url})


@pytest.mark.parametrize(
    "url",
    [
        "gate:9091",
        "ftp://u:secret@gate",
        "http://",
        "http://u:secret@",
        "http://u:secret@gate:port",
        "http://u:secret@gate:99999",
        "http://u:secret@[gate",
        "http://u:secret@gate?x=1",
        "http://u:secret@gate#x",
        "http://u:secret@ga te",
        "http://u:sec\nret@gate",
        "http://u:secret#1@gate",
    ],
)
def test_a_wrong_address_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(PushSettingsError) as caught:
        push_settings({"LOYALTY_METRICS_PUSH_URL": url})
    assert "expected the address of a Pushgateway" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_no_address_or_an_empty_one_is_none() -> None:
    for environment in ({}, {"LOYALTY_METRICS_PUSH_URL": "  "}):
        assert not is_push_wanted(environment)
        with pytest.raises(PushNotConfiguredError):
            push_settings(environment)


def test_the_password_is_not_shown_with_the_settings() -> None:
    assert "secret" not in repr(push_settings({"LOYALTY_METRICS_PUSH_URL": "http://u:secret@gate"}))
