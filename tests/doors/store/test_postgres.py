"""What only a store on PostgreSQL does: a real server, and what can befall it."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.abc import SocketAttribute

from tests.doors.store.conftest import ids, step, transition
from tests.doors.store.postgres import made
from watcher.core.errors import LeaseLost, StoreError
from watcher.core.model import JobKey, JobRecord, Step
from watcher.ports import Fence, Retention
from watcher.store.postgres import line, schema
from watcher.store.postgres import store as module
from watcher.store.postgres.line import connection_string
from watcher.store.postgres.store import PostgresStore

UNITS = {"one": ["prod"]}


@asynccontextmanager
async def opened(url, **options):
    store = PostgresStore(url, **{"sinks": ["log"], **options})
    try:
        await store.open()
        yield store
    finally:
        await store.close()


@pytest.fixture
def url(postgres):
    return postgres.database()


def name_of(url):
    return url.rpartition("/")[2]


def many(first, count, job="a", size=0):
    made_up = [
        transition(f"{job}{n}", job, "prod") for n in range(first, first + count)
    ]
    for one in made_up if size else []:
        one.fields["message"] = "x" * size
    return Step(JobRecord(JobKey("prod", job)), tuple(made_up))


async def test_numbers_have_no_gap_for_who_reads_while_many_write(url):
    """Each reader sees every number below the highest that it saw."""
    seen = []

    async def write(store, job):
        for n in range(25):
            await store.commit([many(n * 3, 3, job)])

    async def read(store, done):
        while not done.is_set():
            events = await store.read(len(seen), 1000)
            seen.extend(event.seq for event in events)
        seen.extend(event.seq for event in await store.read(len(seen), 1000))

    async with opened(url) as first, opened(url) as second, opened(url) as reader:
        done = anyio.Event()
        async with anyio.create_task_group() as reading:
            reading.start_soon(read, reader, done)
            async with anyio.create_task_group() as writing:
                for n, store in enumerate([first, second] * 2):
                    writing.start_soon(write, store, f"job-{n}")
            done.set()
    assert seen == list(range(1, 4 * 75 + 1))


async def test_one_event_committed_by_two_at_once_is_there_once(url):
    async with opened(url) as first, opened(url) as second:
        for n in range(20):
            told = []

            async def commit(store, n=n, told=told):
                told.extend(await store.commit([many(n * 10, 10)]))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(commit, first)
                tasks.start_soon(commit, second)
            assert len(told) == 10
        assert len(await first.read(0, 1000)) == 200
        assert await first.backlog("log") == 200


async def test_ten_thousand_events_in_one_commit(url):
    async with opened(url) as store:
        with anyio.fail_after(20):
            events = await store.commit([many(0, 10_000, size=300)])
            assert [event.seq for event in events] == list(range(1, 10_001))
            again = await store.commit([many(0, 10_001, size=300)])
        assert [event.seq for event in again] == [10_001]


async def test_ten_thousand_jobs_are_saved_and_loaded(url):
    keys = [JobKey("prod", f"job-{n}") for n in range(10_001)]
    async with opened(url) as store:
        await store.commit([Step(JobRecord(key), ()) for key in keys])
        assert (await store.load(keys)).keys() == set(keys)
        await store.forget(keys)
        assert await store.known() == frozenset()


async def test_text_of_the_api_that_a_database_dislikes(url):
    odd = transition("1")
    odd.fields["message"] = "\x00 \x01 \u2028 \ufffd \ufeff '\"\\ %s %(x)s \U0001f600"
    async with opened(url) as store:
        await store.commit([Step(JobRecord(JobKey("prod", "a")), (odd,))])
        (event,) = await store.read(0, 10)
        assert event.transition == odd


async def test_what_no_text_can_be_is_refused_and_goes_on(url):
    odd = transition("1")
    odd.fields["message"] = "\ud800"
    async with opened(url) as store:
        with pytest.raises((StoreError, UnicodeEncodeError)):
            await store.commit([Step(JobRecord(JobKey("prod", "a")), (odd,))])
        with pytest.raises(StoreError):
            await store.note("name", "a\x00b")
        with pytest.raises(StoreError):
            await store.note("name", "\ud800")
        assert ids(await store.commit([step("a", "1")])) == ["1"]


async def test_what_another_replica_may_have_told_is_marked(url):
    async with opened(url) as first, opened(url) as second:
        await first.commit([step("a", "1", "2")])
        assert [e.replayed for e in await first.undelivered("log", 1)] == [False]
        assert [e.replayed for e in await first.undelivered("log", 1)] == [False]
        assert [e.replayed for e in await second.undelivered("log", 9)] == [True, False]
        assert [e.replayed for e in await second.undelivered("log", 9)] == [True, False]
        assert [e.replayed for e in await first.undelivered("log", 9)] == [True, True]


async def test_growth_by_another_replica_is_seen_within_a_second_by_one_look(url):
    async with opened(url) as first, opened(url) as second:
        found = []

        async def wait():
            found.append(await first.grown(0))

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(wait)
                await anyio.wait_all_tasks_blocked()
                await second.commit([step("a", "1")])
        assert found == [1] * 20


@pytest.mark.parametrize("after", [-1, 2])
async def test_what_another_replica_committed_is_no_other_journal(url, after):
    async with opened(url) as first, opened(url) as second:
        await second.commit([step("a", "1", "2", "3")])
        assert len(await first.read(0, 2)) == 2
        with anyio.fail_after(5):
            assert await first.grown(after) == 3


async def test_what_is_past_goes_in_small_deletes(url, monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", 7)
    at = [1_700_000_000.0]
    keep = Retention(100.0, 5)
    async with opened(url, now=lambda: at[0], retention=keep) as store:
        await store.commit([many(0, 30)])
        at[0] += 101
        await store.commit([many(30, 20, "b")])
        pruned = await store.prune(at[0])
        assert (pruned.events, pruned.dead_letters) == (30, {"log": 30})
        await store.delivered("log", range(31, 51))
        assert (await store.prune(at[0])).events == 15
        assert len(await store.read(0, 100)) == 5


class TestSchema:
    async def test_many_replicas_make_it_at_once(self, url):
        async with anyio.create_task_group() as tasks:

            async def start(n):
                async with opened(url) as store:
                    await store.commit([step("a", f"{n}")])

            for n in range(6):
                tasks.start_soon(start, n)
        async with opened(url) as store:
            assert len(await store.read(0, 100)) == 6

    async def test_one_that_is_interrupted_leaves_none(
        self, url, postgres, monkeypatch
    ):
        broken = (*schema.STEPS[0], "SELECT 1/0")
        monkeypatch.setattr(schema.bring_forward, "__defaults__", ((broken,),))
        with pytest.raises(StoreError, match="division by zero"):
            async with opened(url):
                pass
        query = (
            "SELECT count(*) FROM pg_class WHERE relnamespace = 'watcher'::regnamespace"
        )
        with pytest.raises(AssertionError, match="does not exist"):
            postgres.sql(query, name_of(url))
        monkeypatch.undo()
        async with opened(url) as store:
            assert await store.known() == frozenset()

    async def test_a_newer_one_is_refused_in_a_clear_line(self, url, postgres):
        async with opened(url):
            postgres.sql("UPDATE watcher.version SET version = 99", name_of(url))
        with pytest.raises(StoreError, match=r"newer watcher: its schema is 99, this"):
            async with opened(url):
                pass

    async def test_who_only_reads_changes_nothing(self, url, postgres):
        with pytest.raises(StoreError, match="no daemon has made its tables"):
            async with opened(url, reads_only=True):
                pass
        async with opened(url) as store, opened(url, reads_only=True) as reader:
            await store.commit([step("a", "1")])
            assert ids(await reader.read(0, 10)) == ["1"]
            postgres.sql("UPDATE watcher.version SET version = 0", name_of(url))
            with pytest.raises(StoreError, match="its tables; this watcher reads"):
                async with opened(url, reads_only=True):
                    pass

    async def test_an_older_one_is_brought_forward(self, url, monkeypatch):
        async with opened(url) as store:
            await store.commit([step("a", "1")])
        steps = (*schema.STEPS, ("ALTER TABLE watcher.notes ADD COLUMN more text",))
        monkeypatch.setattr(schema.bring_forward, "__defaults__", (steps,))
        async with opened(url) as store:
            assert ids(await store.read(0, 10)) == ["1"]
            await store.note("a", "b")

    async def test_saving_again_and_again_stays_in_its_page(self, url, postgres):
        async with opened(url) as store:
            for n in range(100):
                await store.commit(
                    [step("a", polls=float(n)), step("b", polls=1.0 * n)]
                )
                await store.leases.renew()
            query = (
                "SELECT relname, n_tup_upd - n_tup_hot_upd FROM pg_stat_user_tables"
                " WHERE n_tup_upd > 50 ORDER BY 1"
            )
        cold = dict(row.split("|") for row in postgres.sql(query, name_of(url)).split())
        assert {"records", "replicas"} <= cold.keys()
        assert all(int(count) < 20 for count in cold.values()), cold


class TestTrouble:
    async def test_a_commit_whose_answer_is_lost_is_made_once(self, url):
        async with proxied_to(url) as proxied, opened(proxied.url) as store:
            proxied.deaf = True
            with pytest.raises(StoreError):
                await store.commit([step("a", "1", "2")])
            proxied.deaf = False
            assert ids(await store.commit([step("a", "1", "2", "3")])) == ["3"]
            assert ids(await store.undelivered("log", 9)) == ["1", "2", "3"]

    async def test_a_server_that_never_answers_is_given_up(self, url, monkeypatch):
        monkeypatch.setattr(line, "ANSWER", 0.5)
        async with proxied_to(url) as proxied, opened(proxied.url) as store:
            proxied.silent = True
            with anyio.fail_after(5), pytest.raises(StoreError):
                await store.commit([step("a", "1")])
            proxied.silent = False
            assert len(await store.commit([step("a", "1")])) <= 1
            assert ids(await store.read(0, 9)) == ["1"]

    async def test_one_that_takes_the_connection_and_says_nothing(self):
        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as silent:
            port = silent.extra(SocketAttribute.local_port)
            with anyio.fail_after(20), pytest.raises(StoreError):
                async with opened(
                    f"postgresql://u@127.0.0.1:{port}/d?connect_timeout=2"
                ):
                    pass

    async def test_a_statement_that_lasts_too_long_is_ended(self, url):
        async with opened(url) as store:
            with anyio.fail_after(20), pytest.raises(StoreError, match="57014"):
                await store._line.ask("SELECT pg_sleep(60)", {})
            assert await store.known() == frozenset()

    async def test_somebody_elses_lock_is_not_waited_for_long(self, url):
        async with opened(url) as store, opened(url) as other:

            async def hold(connection):
                async with connection.transaction():
                    await connection.execute("LOCK TABLE watcher.records")
                    with anyio.fail_after(20), pytest.raises(StoreError, match="55P03"):
                        await store.commit([step("a", "1")])

            await other._line.use(hold)
            assert len(await store.commit([step("a", "1")])) == 1

    async def test_nothing_is_left_set_or_prepared_in_the_session(self, url):
        query = "SELECT name, setting FROM pg_settings WHERE source = 'session'"
        async with opened(url) as store:
            for n in range(10):
                await store.commit([step("a", f"{n}")])

            async def ask(connection):
                cursor = await connection.execute(query)
                prepared = await connection.execute(
                    "SELECT * FROM pg_prepared_statements"
                )
                return await cursor.fetchall(), await prepared.fetchall()

            settings, prepared = await store._line.use(ask)
        assert [name for name, _ in settings if name.endswith("timeout")] == []
        assert prepared == []

    async def test_who_asks_may_be_cancelled(self, url):
        async with opened(url) as store:
            with anyio.move_on_after(0.0001):
                await store.commit([many(0, 2000)])
            assert len(await store.read(0, 9999)) in {0, 2000}
            assert len(await store.commit([step("b", "1")])) == 1

    async def test_kill_9_of_the_database_loses_nothing_that_was_told(self):
        server = made()  # with fsync
        try:
            url = server.database()
            told = []
            async with opened(url) as store:
                for n in range(10):
                    told += ids(await store.commit([step("a", f"{n}")]))
                server.kill()
                with pytest.raises(StoreError):
                    await store.commit([step("a", "10")])
                server.start()
                told += ids(await store.commit([step("a", "10", "11")]))
                assert ids(await store.read(0, 100)) == told
        finally:
            server.stop()


class TestCommitAndLease:
    async def test_a_renewal_does_not_wait_for_a_commit_nor_a_take(self, url):
        async with opened(url) as mine, opened(url) as other:
            await mine.leases.take(UNITS, 1)

            async def commit_slowly(connection):
                async with connection.transaction():
                    await connection.execute("SELECT FROM watcher.leases FOR KEY SHARE")
                    with anyio.fail_after(1):
                        assert await mine.leases.renew() == {"one": 1}
                        await mine.leases.release(["one"])
                        assert await other.leases.take(UNITS, 1) == {}, "not yet"

            await mine._line.use(commit_slowly)
            assert await other.leases.take(UNITS, 1) == {"one": 2}

    async def test_a_commit_holds_its_lease_to_its_end(self, url):
        """The statement itself locks it: what would come after it waits or passes over."""
        async with opened(url) as mine, opened(url) as other:
            fence = Fence(
                mine.leases.owner, await mine.leases.take(UNITS, 1), {"prod": "one"}
            )

            async def hold_up(connection):
                async with connection.transaction(), anyio.create_task_group() as tasks:
                    await connection.execute("SELECT FROM watcher.state FOR UPDATE")
                    tasks.start_soon(mine.commit, [step("a", "1")], fence)
                    await until_waiting(connection)
                    await mine.leases.release(["one"])
                    assert await other.leases.take(UNITS, 1) == {}
                    await connection.execute("ROLLBACK; BEGIN")

            await other._line.use(hold_up)
            assert await other.leases.take(UNITS, 1) == {"one": 2}
            with pytest.raises(LeaseLost):
                await mine.commit([step("a", "2")], fence)
            assert ids(await mine.read(0, 9)) == ["1"]

    async def test_a_slow_line_does_not_hold_up_a_renewal(self, url):
        async with opened(url) as store, anyio.create_task_group() as tasks:
            tasks.start_soon(store._line.ask, "SELECT pg_sleep(2)", {})
            while not store._line._turn.locked():
                await anyio.lowlevel.checkpoint()
            with anyio.fail_after(1):
                await store.leases.renew()

    async def test_two_replicas_never_take_one_target_by_two_names(self, url):
        async with opened(url) as first, opened(url) as second:
            for n in range(20):
                taken = []

                async def take(store, unit, taken=taken):
                    taken.extend(await store.leases.take({unit: ["prod"]}, 1))

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(take, first, f"old{n}")
                    tasks.start_soon(take, second, f"new{n}")
                assert len(taken) == 1
                await first.leases.leave()
                await second.leases.leave()

    async def test_at_most_two_connections(self, url, postgres):
        async with opened(url) as store, anyio.create_task_group() as tasks:
            for n in range(20):
                tasks.start_soon(store.commit, [step("a", f"{n}")])
                tasks.start_soon(store.leases.renew)
                tasks.start_soon(store.read, 0, 10)
            await anyio.sleep(0.05)
            query = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name_of(url)}'"
            assert int(postgres.sql(query)) <= 2


async def until_waiting(connection):
    query = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with anyio.fail_after(5):
        # Another process waits: there is no event to wait for.
        while not (await (await connection.execute(query)).fetchall()):  # noqa: ASYNC110
            await anyio.sleep(0.01)


class TestConnection:
    @pytest.mark.parametrize(
        ("url", "wanted"),
        [
            ("postgresql://u@db.example.org/w", "sslmode=verify-full"),
            ("postgresql://u@db.example.org/w", "sslrootcert=system"),
            ("postgresql://u@10.0.0.5/w", "sslmode=verify-full"),
            ("postgresql://u@127.0.0.1,db.example.org/w", "sslmode=verify-full"),
            ("postgresql://u@db.example.org/w?sslmode=disable", "sslmode=disable"),
            ("postgresql://u@db/w?sslrootcert=/etc/ca.pem", "sslrootcert=/etc/ca.pem"),
            ("postgresql://u@localhost/w", "sslmode=prefer"),
            ("postgresql://u@127.0.0.1/w", "sslmode=prefer"),
            ("postgresql:///w?host=/run/postgresql", "sslmode=prefer"),
        ],
    )
    def test_who_must_show_a_certificate(self, url, wanted):
        assert wanted in connection_string(url, None).split()

    def test_no_root_certificates_of_the_system_with_less_than_full_verification(self):
        text = connection_string("postgresql://u@db/w?sslmode=require", None)
        assert "sslrootcert" not in text

    async def test_a_password_is_shown_in_no_error(self, url):
        for wrong in ("postgresql://u@127.0.0.1:1/w", f"{url}?nonsense=1"):
            with pytest.raises(StoreError) as error:
                async with opened(wrong, password="s3cr3t"):
                    pass
            assert "s3cr3t" not in f"{error.value!r} {error.value.__cause__!r}"

    def test_the_driver_is_imported_only_where_it_is_asked_for(self):
        code = (
            "import sys, watcher.store, watcher.daemon.app, watcher.commands.cli,"
            " watcher.settings.schema; print([m for m in sys.modules if 'psycopg' in m"
            " or m.startswith('watcher.store.postgres')])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "[]"


class Proxy:
    """Stands between a store and its database, and misbehaves as told."""

    def __init__(self, url):
        host, port = re.search(r"@([^:]+):(\d+)/", url).groups()
        self.server = (host, int(port))
        self.deaf = self.silent = False

    async def handle(self, client):
        try:
            async with (
                client,
                await anyio.connect_tcp(*self.server) as server,
                anyio.create_task_group() as tasks,
            ):
                tasks.start_soon(self.pump, client, server, False)
                await self.pump(server, client, True)
                tasks.cancel_scope.cancel()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            pass

    async def pump(self, source, sink, back):
        try:
            async for chunk in source:
                if back and self.deaf:  # it happened, but nobody is told
                    return
                if back and self.silent:
                    await anyio.sleep_forever()
                await sink.send(chunk)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return


@asynccontextmanager
async def proxied_to(url):
    proxy = Proxy(url)
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(SocketAttribute.local_port)
        proxy.url = re.sub(r"@[^/]+/", f"@127.0.0.1:{port}/", url)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, proxy.handle)
            yield proxy
            tasks.cancel_scope.cancel()
