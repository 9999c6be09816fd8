"""What is in force, for `watcher check --diff`."""

from __future__ import annotations

from collections.abc import Callable

from watcher.ports import Request, Response


class ShowConfig:
    """The settings in force as YAML, secrets masked; for who has the token only."""

    method = "GET"
    path = "/api/v1/config"

    def __init__(self, text: Callable[[], str]) -> None:
        """Make the action; `text` writes the settings in force."""
        self._text = text

    async def respond(self, _: Request) -> Response:
        """Show them as they are now."""
        return Response([self._text().encode()], "application/yaml; charset=utf-8")
