"""The store behind a real PgBouncer that lends a connection for one transaction."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time

import anyio
import pytest

from tests.doors.store.conftest import ids, step
from tests.doors.store.postgres import as_postgres
from watcher.store.postgres.store import PostgresStore

BOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH')}:/usr/sbin")


@pytest.fixture
def bounced(postgres):
    """Yield the URL of an empty database behind one server connection."""
    if BOUNCER is None:
        if os.environ.get("WATCHER_REQUIRE_REAL"):
            pytest.fail("PgBouncer is not installed: apt-get install pgbouncer")
        pytest.skip("PgBouncer is not installed")
    url = postgres.database()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (postgres.folder / "bouncer.ini").write_text(f"""
[databases]
* = host=127.0.0.1 port={postgres.port} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 1
ignore_startup_parameters = extra_float_digits
""")
    words = as_postgres(BOUNCER, "-q", str(postgres.folder / "bouncer.ini"))
    process = subprocess.Popen(words, cwd="/", stderr=subprocess.DEVNULL)
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.02)  # noqa: TID251 - another process
    yield re.sub(r":\d+/", f":{port}/", url)
    process.send_signal(signal.SIGINT)
    process.wait(20)


async def test_two_replicas_on_one_borrowed_connection(bounced):
    stores = [PostgresStore(bounced, sinks=["log"]) for _ in range(2)]
    try:
        for store in stores:
            await store.open()
        async with anyio.create_task_group() as tasks:
            for n in range(20):
                for number, store in enumerate(stores):
                    job = f"job-{number}"
                    tasks.start_soon(store.commit, [step(job, f"{number}/{n}")])
                    tasks.start_soon(store.leases.renew)
                    tasks.start_soon(store.leases.take, {job: [job]}, 1)
        events = await stores[0].read(0, 100)
        assert [event.seq for event in events] == list(range(1, 41))
        assert ids(await stores[1].undelivered("log", 100)) == ids(events)
        assert (await stores[0].leases.owners()).replicas == 2
    finally:
        for store in stores:
            await store.close()
