"""The doctor on a store that replicas share: a real PostgreSQL."""

from __future__ import annotations

import re

import pytest

from tests.doors.store.postgres import postgres  # noqa: F401 - a fixture
from tests.doors.test_doctor import examine, of_daemon, options, simulate, target
from watcher.doctor.findings import Fault, Status
from watcher.store import open_shared


@pytest.fixture
def url(postgres):  # noqa: F811
    return postgres.database()


def name_of(url):
    return url.rpartition("/")[2]


async def examined(url, **store):
    async with simulate(options()) as sim:
        diagnosis = await examine(target(sim.url), {}, store={"url": url, **store})
    steps = ["store", *(f"store_{step}" for step in STEPS)]
    named = {finding.step for finding in diagnosis.daemon}
    return {step: of_daemon(diagnosis, step) for step in steps if step in named}


STEPS = ("rights", "schema", "settings", "clock", "latency")


async def test_an_empty_database_is_left_empty(url, postgres):  # noqa: F811
    found = await examined(url)
    assert {f.step for f in found.values() if f.status is not Status.OK} == {
        "store_settings"  # fsync is off in tests
    }
    assert "no tables yet" in found["store_schema"].text
    query = "SELECT count(*) FROM pg_namespace WHERE nspname = 'watcher'"
    assert postgres.sql(query, name_of(url)) == "0"


async def test_a_store_in_use(url):
    async with open_shared(url, None):
        found = await examined(url)
    assert found["store_schema"].text == "schema 1 is the present one"
    assert found["store_rights"].status is Status.OK


async def test_a_newer_schema(url, postgres):  # noqa: F811
    async with open_shared(url, None):
        postgres.sql("UPDATE watcher.version SET version = 9", name_of(url))
    found = (await examined(url))["store_schema"]
    assert (found.status, found.fault) == (Status.FAIL, Fault.SETTINGS)


async def test_a_user_without_rights(url, postgres):  # noqa: F811
    postgres.sql("DROP ROLE IF EXISTS nobody_much; CREATE ROLE nobody_much LOGIN")
    found = await examined(url.replace("postgres@", "nobody_much@"))
    assert found["store_rights"].status is Status.FAIL
    async with open_shared(url, None):
        found = await examined(url.replace("postgres@", "nobody_much@"))
        assert found["store_rights"].status is Status.FAIL
        grant = "GRANT USAGE ON SCHEMA watcher TO nobody_much;"
        grant += "GRANT SELECT ON ALL TABLES IN SCHEMA watcher TO nobody_much"
        postgres.sql(grant, name_of(url))
        found = await examined(url.replace("postgres@", "nobody_much@"))
    assert found["store_rights"].status is Status.FAIL, "it may only read"


async def test_a_database_that_takes_no_writes(url, postgres):  # noqa: F811
    name = name_of(url)
    postgres.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    assert "takes no writes" in (await examined(url))["store_rights"].text


async def test_no_database_there_and_no_password_shown(url):
    nowhere = re.sub(r":\d+/", ":1/", url)
    found = await examined(nowhere, password="s3cr3t-s3cr3t")
    assert list(found) == ["store"]
    assert found["store"].status is Status.FAIL
    assert "s3cr3t" not in repr(found)
