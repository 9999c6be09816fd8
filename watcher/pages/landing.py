"""`/`: what this process is and where its other pages are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from html import escape

from watcher import __version__
from watcher.core.model import Phase
from watcher.ports import Board, Request, Response

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>devserver-watcher</title>
<meta name="viewport" content="width=device-width">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 3rem auto; max-width: 44rem;
  padding: 0 1rem; color: #1b1f24; background: #fff }}
table {{ border-collapse: collapse; margin: 1.5rem 0 }}
th, td {{ padding: .35rem 1rem .35rem 0; text-align: right }}
th:first-child, td:first-child {{ text-align: left }}
thead th {{ border-bottom: 1px solid #888; font-weight: 600 }}
a {{ color: #0550ae }}
@media (prefers-color-scheme: dark) {{ body {{ color: #e6edf3; background: #0d1117 }}
  a {{ color: #58a6ff }} }}
</style>
<h1>devserver-watcher</h1>
<p>Version {version}, watching {jobs}.</p>
<table><thead><tr><th scope="col">target</th>{heads}</tr></thead>
<tbody>{rows}</tbody></table>
<p><a href="/metrics">/metrics</a> · <a href="/healthz">/healthz</a> ·
<a href="/readyz">/readyz</a></p>
</html>
"""


class LandingPage:
    """Jobs per target and phase, and links."""

    path = "/"
    parameters: Collection[str] = ()

    def __init__(self, board: Board) -> None:
        """Make the page of a board."""
        self._board = board

    async def respond(self, _: Request) -> Response:
        """Render the counts as they are now."""
        records = self._board.records
        counts = Counter((key.target, each.phase) for key, each in records.items())
        targets = sorted({target for target, _ in counts})
        rows = "".join(
            f"<tr><td>{escape(target)}</td>"
            + "".join(f"<td>{counts[target, phase]}</td>" for phase in Phase)
            + "</tr>"
            for target in targets
        )
        text = _PAGE.format(
            version=__version__,
            jobs=f"{len(records)} job{'' if len(records) == 1 else 's'}",
            heads="".join(f'<th scope="col">{phase}</th>' for phase in Phase),
            rows=rows,
        )
        return Response([text.encode()], "text/html; charset=utf-8")
