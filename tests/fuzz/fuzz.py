"""Any bytes from outside are a value or a failure with a name, and steer no terminal.

    python -m tests.fuzz.fuzz NAME -max_total_time=20 FOLDER_FOR_FINDS tests/fuzz/corpus/NAME

The corpus is replayed by the ordinary tests too, without the fuzzer.
"""

import sys
import tempfile
from contextlib import nullcontext, suppress
from pathlib import Path

from tests.fuzz import fuzz_wire

try:
    import atheris
except ImportError:  # the ordinary tests do without it
    atheris = None

with atheris.instrument_imports(include=["watcher"]) if atheris else nullcontext():
    from pydantic import SecretStr

    from watcher.client.breaker import Breakers
    from watcher.client.clock import ServerClock
    from watcher.client.credentials.iam import Login, TokenCredentials
    from watcher.client.credentials.parsing import parse_temporary_key
    from watcher.client.shared import SharedClient
    from watcher.client.signing import is_visible
    from watcher.client.transport import Answer
    from watcher.core.errors import ApiError, Malformed, SettingsError
    from watcher.core.listing import Listing, Mode
    from watcher.core.model import Job, check_job_id
    from watcher.core.wire import MOST_ROWS, decode_page
    from watcher.polling.sources import JobFiles
    from watcher.settings.loading import Origin
    from watcher.web.web_config import WebConfig

NOW = 1_750_000_000.0
PASSWORD = "a-password-that-is-secret"
STATUSES = (201, 401, 400, 403, 404, 429, 500, 302)


def check_list(data):
    """Check an answer of the list call, and what is made of it."""
    try:
        page = decode_page(data)
    except Malformed:
        return
    assert len(page.rows) <= MOST_ROWS
    listing = Listing(Mode.LIST, interval=10.0, task_interval=30.0, discover={})
    for now in (0.0, 10.0, 20.0):
        running = {"a": Job("a", "PROCESSING"), "b": None}
        assert set(listing.take(page, running, now)) <= set(running)


def check_iam(data):
    """Check an answer to a login: its kind, its token, and its body."""
    kind, _, rest = data.partition(b"\n")
    status = STATUSES[kind[0] % len(STATUSES)] if kind else 201
    token = kind[1:].decode("latin-1")
    shared = SharedClient(None, ServerClock(lambda: NOW), Breakers())
    login = Login("robot", SecretStr(PASSWORD), "company", project_id="p")
    source = TokenCredentials(shared, login, "http://127.0.0.1:9")
    answer = Answer(status, {"X-Subject-Token": token, "Retry-After": token}, rest)
    try:
        given = source._read(login, answer)
    except ApiError as error:
        _check_unquoted(error.message + str(error.error_code or error.request_id))
    else:
        assert is_visible(given.value.get_secret_value())


def check_metadata(data):
    """Check what the metadata service gives as a key."""
    try:
        key = parse_temporary_key(data)
    except ValueError as error:
        _check_unquoted(str(error))
    else:
        assert is_visible(key.access_key)


def _check_unquoted(said):
    assert said.isprintable()
    assert len(said) < 100, "no word of the answer"


def check_job_file(data):
    """Check a file of ids."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ids.txt"
        file.write_bytes(data)
        source = JobFiles("prod", [str(Path(folder) / "*.txt")])
        for _ in range(2):
            reading = source.look()
            for key in reading.keys:
                check_job_id(key.job_id)
            assert all(map(str.isprintable, reading.problems))


def check_web_config(data):
    """Check a web configuration file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "web.yaml"
        file.write_bytes(data)
        try:
            WebConfig(file)
        except SettingsError as error:
            _check_findings(error)


def check_settings(data):
    """Check a configuration file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "watcher.yaml"
        file.write_bytes(data)
        try:
            Origin(file, environ={}).load()
        except SettingsError as error:
            _check_findings(error)


def _check_findings(error):
    assert error.findings
    assert not any("\n" in finding for finding in error.findings)


CHECKS = {
    "wire": fuzz_wire.check,
    "list": check_list,
    "iam": check_iam,
    "metadata": check_metadata,
    "job_file": check_job_file,
    "web_config": check_web_config,
    "settings": check_settings,
}


def main():
    """Run the fuzzer on one target, with libFuzzer's own arguments."""
    check = CHECKS[sys.argv.pop(1)]
    with suppress(KeyboardInterrupt):
        atheris.Setup(sys.argv, check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
