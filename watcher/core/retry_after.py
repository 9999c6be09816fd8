"""What a server asks of who comes too often: its Retry-After, read the same everywhere.

Source: RFC 9110, 5.6.7 and 10.2.3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

LONGEST_RETRY_AFTER = 3600.0
_SECONDS = re.compile(r"[0-9]{1,18}")


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds that an answer asks to wait.

    Args:
        headers: By name, in any case.
        now: Unix seconds, to read a date where the answer has no Date.

    Returns:
        At most an hour; None where nothing sensible is asked for.
    """
    fields = {name.lower(): value for name, value in headers.items()}
    text = fields.get("retry-after", "").strip()
    if _SECONDS.fullmatch(text):
        return min(float(text), LONGEST_RETRY_AFTER)
    until = http_date(text)
    if until is None:
        return None
    # Against the server's own clock where it shows it: ours may be off by minutes.
    shown = http_date(fields.get("date", ""))
    seconds = until - (now if shown is None else shown)
    return min(seconds, LONGEST_RETRY_AFTER) if seconds >= 0 else None


def http_date(text: str) -> float | None:
    """Return the Unix seconds of an HTTP date; None where it is none."""
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
