"""The pages that say what may be set, written from the schema; `make pages` renews them."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from watcher.settings.schema import Settings, Target
from watcher.settings.showing import default_of, described, in_line, section_of

EXAMPLE = Path("config/watcher.yaml")
REFERENCE = Path("docs/reference/settings.md")
GIVEN = {"region", "project_id", "jobs"}
"""Settings of a target that the example gives; the others wait behind a #."""

_HEAD = """\
# Everything that can be set, with its default or an example behind a #. What stands here
# can also come from the environment (WATCHER_POLL__INTERVAL=5s), from a secrets folder, or
# from a flag (--poll.interval=5s); flags win over the environment, and that over this file.
"""
_TABLE = re.compile(r"\| setting \| default \| meaning \|\n(?:\|.*\n)+")


def example() -> str:
    """Return a configuration file that is valid as it is, and with every # removed."""
    return "\n".join([_HEAD, *_lines(Settings, 0)]) + "\n"


def _lines(model: type[BaseModel], depth: int) -> Iterator[str]:
    for name, each in model.model_fields.items():
        section = section_of(each)
        if name == "targets":
            yield "targets:\n  # any name of a-z, 0-9 and -: the `target` label everywhere"
            yield "  prod:"
            yield from _lines(Target, 2)
            continue
        if depth == 0:
            yield ""
        indent = "  " * depth
        said = each.description or (section and section.__doc__) or ""
        yield from textwrap.wrap(
            said, 88, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
        )
        mark = "" if model is Target and name in GIVEN else "#"
        value = "" if section else f" {_value(each)}"
        yield f"{mark}{indent}{name}:{value}"
        yield from _lines(section, depth + 1) if section else ()


def _value(field: FieldInfo) -> str:
    return default_of(field) or in_line((field.examples or [None])[0])


def reference(page: str) -> str:
    """Return the reference page with its table of settings written anew."""
    rows = [
        f"| `{path}` | {default} | {what} |\n" for path, default, what in described()
    ]
    head = "| setting | default | meaning |\n|---|---|---|\n"
    return _TABLE.sub(lambda _: "".join([head, *rows]), page, count=1)


if __name__ == "__main__":
    EXAMPLE.write_text(example())
    REFERENCE.write_text(reference(REFERENCE.read_text()))
