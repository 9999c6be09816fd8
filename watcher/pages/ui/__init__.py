"""The page for people: static files of our own, which ask the API for everything else.

Every address of it is answered with the same document; what it shows is in the address.
The runbooks are here too, so that an alert leads to them wherever the watcher runs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable

from watcher.ports import Page, Request, Response

CONTENT_TYPES: Mapping[str, str] = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "md": "text/plain; charset=utf-8",
}
ADDRESSES: Mapping[str, Collection[str]] = {
    "/": ("target", "phase", "q", "sort", "cursor"),
    "/jobs/{target}/{job_id}": ("status", "q"),
    "/watcher": (),
}
"""Where the document is served, and what of its state stands in the query."""
DOCUMENT = "index.html"
RUNBOOKS = "/runbooks"
"""Below it, the runbook of each alert, by the alert's name."""


class FilePage:
    """One file of the package, read once."""

    def __init__(
        self, path: str, file: Traversable, parameters: Collection[str] = ()
    ) -> None:
        """Make the page.

        Args:
            path: Where it is served.
            file: What is served.
            parameters: What may stand in the query.
        """
        self.path = path
        self.parameters = parameters
        self._content_type = CONTENT_TYPES[file.name.rpartition(".")[2]]
        self._body = file.read_bytes()

    async def respond(self, _: Request) -> Response:
        """Show the file."""
        return Response([self._body], self._content_type)


def ui_pages() -> Sequence[Page]:
    """Return the document at each of its addresses, what it is made of, the runbooks."""
    static, runbooks = (
        sorted(
            files(__package__).joinpath(folder).iterdir(), key=lambda each: each.name
        )
        for folder in ("static", "runbooks")
    )
    document = next(each for each in static if each.name == DOCUMENT)
    return [
        *(FilePage(path, document, some) for path, some in ADDRESSES.items()),
        *(FilePage(f"/ui/{each.name}", each) for each in static if each != document),
        *(
            FilePage(f"{RUNBOOKS}/{each.name.removesuffix('.md')}", each)
            for each in runbooks
        ),
    ]
