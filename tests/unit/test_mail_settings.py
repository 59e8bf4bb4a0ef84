"""What LOYALTY_MAIL_URL, _FROM and _PER_MINUTE say; what is wrong is said without showing it."""

import traceback
from pathlib import Path

import pytest

from loyalty_pipelines.domain.mail_settings import (
    DEFAULT_PER_MINUTE,
    MailNotConfiguredError,
    MailSettings,
    MailSettingsError,
    Transport,
    mail_settings,
)

SECRET = "s3cret-word"


def settings(url: str, sender: str = "loyalty@example.com", **more: str) -> MailSettings:
    return mail_settings({"LOYALTY_MAIL_URL": url, "LOYALTY_MAIL_FROM": sender, **more})


def test_a_server_with_starttls_and_a_login() -> None:
    found = settings(f"smtp://ann%40example.com:{SECRET}%2F%23@mail.example.com")
    assert (found.transport, found.host, found.port, found.is_encrypted) == (
        Transport.SMTP,
        "mail.example.com",
        587,
        True,
    )
    assert (found.user, found.password) == ("ann@example.com", f"{SECRET}/#")
    assert found.per_minute == DEFAULT_PER_MINUTE


def test_a_server_with_tls_from_the_start() -> None:
    found = settings("smtps://mail.example.com")
    assert (found.transport, found.port, found.is_encrypted, found.user) == (Transport.SMTPS, 465, True, None)


def test_only_tls_none_takes_the_encryption_away() -> None:
    assert not settings("smtp://localhost:25?tls=none").is_encrypted


def test_a_folder_and_the_console_need_no_sender_and_keep_no_rate() -> None:
    folder = settings("folder:///var/spool/two%20words", "")
    assert (folder.folder, folder.sender, folder.per_minute) == (
        Path("/var/spool/two words"),
        "loyalty@localhost",
        None,
    )
    assert settings("console:", "").transport is Transport.CONSOLE
    assert settings("console://").place == "the console"


@pytest.mark.parametrize(
    ("text", "name", "address"),
    [
        ("loyalty@example.com", "", "loyalty@example.com"),
        ("Example Shops <loyalty@example.com>", "Example Shops", "loyalty@example.com"),
        ('"Shops, all" <loyalty@intranet>', "Shops, all", "loyalty@intranet"),
    ],
)
def test_the_sender_may_have_a_name(text: str, name: str, address: str) -> None:
    found = settings("console:", text)
    assert (found.sender_name, found.sender) == (name, address)


def test_the_rate_is_what_it_says() -> None:
    assert settings("smtps://localhost", LOYALTY_MAIL_PER_MINUTE="60").per_minute == 60
    assert settings("console:", LOYALTY_MAIL_PER_MINUTE="60").per_minute == 60


@pytest.mark.parametrize("rate", ["0", "-1", "many", "1.5", "99999999999", "١"])
def test_a_rate_that_is_no_number_is_refused(rate: str) -> None:
    with pytest.raises(MailSettingsError, match="LOYALTY_MAIL_PER_MINUTE is no whole number from 1 to 1000000"):
        settings("console:", LOYALTY_MAIL_PER_MINUTE=rate)


@pytest.mark.parametrize("url", ["", "  "])
def test_without_a_url_it_says_what_to_set(url: str) -> None:
    with pytest.raises(MailNotConfiguredError, match="LOYALTY_MAIL_URL is not set, so mails wait: set it to"):
        settings(url)


@pytest.mark.parametrize(
    "url",
    [
        f"http://u:{SECRET}@h",
        f"mail.example.com:{SECRET}",
        f"smtp://u:{SECRET}@",
        f"smtp://u:{SECRET}/x@h:587",
        f"smtp://u:{SECRET}#x@h:587",
        f"smtp://u:{SECRET}?x@h:587",
        f"smtp://u:{SECRET}@h:port",
        f"smtp://u:{SECRET}@h:0",
        f"smtp://u:{SECRET}@h:99999",
        f"smtp://u:{SECRET}@h/path",
        f"smtp://u:{SECRET}@h?tls=maybe",
        f"smtps://u:{SECRET}@h?tls=none",
        f"smtp://{SECRET}@h",
        f"smtp://:{SECRET}@h",
        f"smtp://u:{SECRET}@[h",
        f"folder://relative/{SECRET}",
        f"folder:relative/{SECRET}",
        "folder:///a%00b",
        "folder://",
        f"console:{SECRET}",
        f"{SECRET}",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(MailSettingsError) as refused:
        settings(url)
    assert "LOYALTY_MAIL_URL" in str(refused.value)
    assert SECRET not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize(
    "sender",
    [
        "",
        "nobody",
        "a@b@c",
        "ann@example.com\r\nBcc: eve@example.com",
        "Ann <ann@example.com>, eve@example.com",
        "é@x.org",
    ],
)
def test_a_sender_that_is_no_address_is_refused(sender: str) -> None:
    with pytest.raises(MailSettingsError, match="LOYALTY_MAIL_FROM is"):
        settings("smtps://localhost", sender)


def test_the_password_is_in_no_text_of_the_settings() -> None:
    found = settings(f"smtp://u:{SECRET}@h")
    assert SECRET not in repr(found) + str(found) + found.place
