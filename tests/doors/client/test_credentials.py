"""Keys that are given: static, in the environment, in a file, by the chain."""

import json
import os

import pytest
from pydantic import SecretStr

from tests.doors.client.servers import KEY, cloud, shared
from watcher.client.credentials.chain import ChainCredentials, default_chain
from watcher.client.credentials.parsing import parse_expiry, parse_temporary_key
from watcher.client.credentials.profiles import ProfileCredentials
from watcher.client.credentials.static import (
    EnvironmentCredentials,
    NoCredentials,
    StaticCredentials,
)
from watcher.client.signing import Key
from watcher.core.errors import Refusal, Rejected, Unreachable

OTHER = Key("OTHER", SecretStr("other-secret"))
AK, SK = "HUAWEICLOUD_SDK_AK", "HUAWEICLOUD_SDK_SK"
TOKEN = "HUAWEICLOUD_SDK_SECURITY_TOKEN"
FILE = "HUAWEICLOUD_SDK_CREDENTIALS_FILE"


async def lack(credentials):
    with pytest.raises(Rejected) as caught:
        await credentials.current()
    assert caught.value.refusal is Refusal.CREDENTIALS
    assert caught.value.status_code is None
    return str(caught.value)


async def test_none_is_none():
    assert await NoCredentials().current() is None
    assert await NoCredentials().renew(KEY) is None


async def test_a_static_key_can_be_replaced():
    credentials = StaticCredentials(KEY)
    assert await credentials.current() is KEY
    credentials.replace(Key(KEY.access_key, KEY.secret_key))
    assert await credentials.current() is KEY
    credentials.replace(OTHER)
    assert await credentials.current() is OTHER
    assert await credentials.renew(KEY) is OTHER


async def test_the_environment_gives_a_key():
    environment = {AK: " AK\n", SK: "sk"}
    credentials = EnvironmentCredentials(environment)
    first = await credentials.current()
    assert first == Key("AK", SecretStr("sk"))
    assert await credentials.current() is first
    environment[TOKEN] = "temporary"
    second = await credentials.current()
    assert second == Key("AK", SecretStr("sk"), SecretStr("temporary"))
    assert await credentials.renew(first) is second


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, f"environment: {AK} is not set"),
        ({AK: "AK"}, f"environment: {SK} is not set"),
        ({AK: "AK", SK: "  "}, f"environment: {SK} is not set"),
        ({AK: "AK", SK: "se cret"}, "environment: the secret key is empty or holds"),
    ],
)
async def test_an_environment_that_lacks_a_key_says_so(environment, words):
    said = await lack(EnvironmentCredentials(environment))
    assert said.startswith(words)
    assert "cret-" not in said


def profile(path, text):
    """Write the file in place of the old one, as editors and mounts do."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)
    return ProfileCredentials({FILE: str(path)})


BASIC = "[basic]\nak = AKFILE\nsk = s%k=1\n"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (BASIC, Key("AKFILE", SecretStr("s%k=1"))),
        (
            BASIC + "security_token = t\nproject_id = p\n",
            Key("AKFILE", SecretStr("s%k=1"), SecretStr("t")),
        ),
        (BASIC.replace("basic", "global"), Key("AKFILE", SecretStr("s%k=1"))),
        (BASIC.replace("basic", "basiccredentials"), Key("AKFILE", SecretStr("s%k=1"))),
        ("[global]\nak = G\nsk = g\n" + BASIC, Key("AKFILE", SecretStr("s%k=1"))),
    ],
)
async def test_a_profile_gives_a_key(tmp_path, text, key):
    assert await profile(tmp_path / "credentials", text).current() == key


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no section [basic]"),
        ("[other]\nak=a\nsk=b\n", "has no section [basic]"),
        ("[basic]\nak=a\n", "the secret key is empty"),
        ("[basic]\nak=a\nsk=sesame open\n", "the secret key is empty or holds"),
        ("sk=sesame\n", "not an INI file"),
        ("[basic]\nsk=sesame\nsk=sesame\n", "not an INI file"),
    ],
)
async def test_a_profile_that_lacks_a_key_says_so(tmp_path, text, words):
    credentials = profile(tmp_path / "credentials", text)
    with pytest.raises(Rejected) as caught:
        await credentials.current()
    assert words in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    cause = caught.value.__cause__
    assert "sesame" not in str(caught.value) + repr(cause)


async def test_the_profile_is_at_home_by_default(tmp_path):
    (tmp_path / ".huaweicloud").mkdir()
    credentials = ProfileCredentials({"HOME": str(tmp_path)})
    assert "No such file" in await lack(credentials)
    (tmp_path / ".huaweicloud" / "credentials").write_text(BASIC)
    assert (await credentials.current()).access_key == "AKFILE"


async def test_a_profile_is_read_again_when_it_changed(tmp_path):
    path = tmp_path / "credentials"
    credentials = profile(path, BASIC)
    first = await credentials.current()
    assert await credentials.current() is first
    profile(path, BASIC.replace("AKFILE", "AKNEXT"))
    second = await credentials.current()
    assert second.access_key == "AKNEXT"
    assert await credentials.renew(first) is second


async def test_a_profile_that_breaks_leaves_the_last_key_in_force(tmp_path):
    path = tmp_path / "credentials"
    credentials = profile(path, BASIC)
    first = await credentials.current()
    profile(path, "[basic]\nak =")
    assert await credentials.current() is first
    path.unlink()
    assert await credentials.current() is first
    profile(path, BASIC.replace("AKFILE", "AKNEXT"))
    assert (await credentials.current()).access_key == "AKNEXT"


async def test_a_profile_of_another_user_is_told(tmp_path):
    (tmp_path / "credentials").mkdir()
    said = await lack(ProfileCredentials({FILE: str(tmp_path / "credentials")}))
    assert "Is a directory" in said


async def test_the_chain_takes_the_first_that_has_a_key(tmp_path):
    environment = {FILE: str(tmp_path / "credentials")}
    async with shared() as on, cloud() as gone:
        pass
    async with shared() as on:
        chain = default_chain(on, environment, gone.origin)
        said = await lack(chain)
        assert said.startswith(
            f"no credentials found: environment: {AK} is not set; "
            f"profile {tmp_path}/credentials: No such file or directory; "
            "metadata service: cannot connect to 127.0.0.1"
        )
        profile(tmp_path / "credentials", BASIC)
        first = await chain.current()
        assert first.access_key == "AKFILE"
        environment |= {AK: "AKENV", SK: "sk"}
        assert (await chain.current()).access_key == "AKENV"
        assert (await chain.renew(first)).access_key == "AKENV"


async def test_the_chain_does_not_pass_over_other_failures():
    class Down:
        async def current(self):
            raise Unreachable("down")

    with pytest.raises(Unreachable):
        await ChainCredentials((Down(), StaticCredentials(KEY))).current()


async def test_the_default_environment_is_the_processs(monkeypatch):
    monkeypatch.setitem(os.environ, AK, "AKOS")
    monkeypatch.setitem(os.environ, SK, "sk")
    assert (await EnvironmentCredentials().current()).access_key == "AKOS"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2019-02-13T06:52:13.855000Z", 1550040733.855),
        ("2019-02-13T06:52:13Z", 1550040733.0),
        ("2019-02-13T06:52:13", 1550040733.0),
        ("2019-02-13T07:52:13+01:00", 1550040733.0),
        ("", None),
    ],
)
def test_times_of_expiry(text, seconds):
    assert parse_expiry(text) == seconds


@pytest.mark.parametrize(
    "body",
    [
        {
            "credential": {
                "access": "A",
                "secret": "s",
                "securitytoken": "t",
                "expires_at": "2019-02-13T06:52:13Z",
            }
        },
        {
            "credentials": {
                "accessKeyId": "A",
                "secretAccessKey": "s",
                "securityToken": "t",
                "expiration": "2019-02-13T06:52:13Z",
            }
        },
        {
            "credentials": {
                "access_key_id": "A",
                "secret_access_key": "s",
                "security_token": "t",
                "expiration": "2019-02-13T06:52:13.000000Z",
            }
        },
    ],
)
def test_spellings_of_a_temporary_key(body):
    key = Key("A", SecretStr("s"), SecretStr("t"), 1550040733.0)
    assert parse_temporary_key(json.dumps(body).encode()) == key


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"credential":null}',
        b'{"credential":["sesame"]}',
        b'{"credential":{"access":"A"}}',
        b'{"credential":{"access":"A","secret":7}}',
        b'{"credential":{"access":"A","secret":"sesame","expires_at":"soon"}}',
        b'{"credential":{"access":"A","secret":"sesame","expires_at":5}}',
        b"[" * 60_000,
    ],
)
def test_what_is_no_temporary_key(body):
    with pytest.raises(ValueError) as caught:
        parse_temporary_key(body)
    assert "sesame" not in str(caught.value)
