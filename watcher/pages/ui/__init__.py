"""The page for people: static files of our own, which ask the API for everything else.

Every address of it is answered with the same document; what it shows is in the address.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib.resources import files

from watcher.ports import Page, Request, Response

CONTENT_TYPES: Mapping[str, str] = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
ADDRESSES: Mapping[str, Collection[str]] = {
    "/": ("target", "phase", "q", "sort", "cursor"),
    "/jobs/{target}/{job_id}": ("status", "q"),
    "/watcher": (),
}
"""Where the document is served, and what of its state stands in the query."""
DOCUMENT = "index.html"


class FilePage:
    """One file of the package, read once."""

    def __init__(self, path: str, name: str, parameters: Collection[str] = ()) -> None:
        """Make the page.

        Args:
            path: Where it is served.
            name: The file.
            parameters: What may stand in the query.
        """
        self.path = path
        self.parameters = parameters
        self._content_type = CONTENT_TYPES[name.rpartition(".")[2]]
        self._body = files(__package__).joinpath("static", name).read_bytes()

    async def respond(self, _: Request) -> Response:
        """Show the file."""
        return Response([self._body], self._content_type)


def ui_pages() -> Sequence[Page]:
    """Return the document at each of its addresses, and what it is made of."""
    names = sorted(one.name for one in files(__package__).joinpath("static").iterdir())
    return [
        *(FilePage(path, DOCUMENT, some) for path, some in ADDRESSES.items()),
        *(FilePage(f"/ui/{name}", name) for name in names if name != DOCUMENT),
    ]
