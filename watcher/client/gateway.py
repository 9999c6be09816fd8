"""Asks the API gateway a question in someone's name, and reads what it says.

Here meet proof, breaker, signature, the server's time, masking and classification; what
is asked, and what the answer means, is the caller's affair.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import nullcontext
from dataclasses import dataclass, field
from http import HTTPStatus
from traceback import format_tb
from typing import Generic, TypeVar

import anyio
import anyio.to_thread
import structlog

from watcher.client.classify import classify, not_about_a_job, request_id_of
from watcher.client.clock import STEP
from watcher.client.credentials.base import Credentials, Proof, Token
from watcher.client.masking import Mask, of_request
from watcher.client.shared import OnRequest, RequestKind, SharedClient
from watcher.client.signing import Call, Key, Query, sign
from watcher.client.transport import LARGE, Answer, Route, exchange, in_time
from watcher.core.errors import (
    ApiError,
    JobNotFound,
    Malformed,
    Refusal,
    Rejected,
)

log = structlog.get_logger()

_Meaning = TypeVar("_Meaning")
_NOWHERE = nullcontext()


@dataclass(frozen=True, slots=True)
class Question(Generic[_Meaning]):
    """A GET, and how to read its answer.

    Attributes:
        decode: From a masked body to its meaning; may raise `Malformed`.
        recall: From a body as it came to the meaning that it is known to have, or None:
            then neither masked nor decoded again.
        project_id: Sent along, as sub-projects require.
    """

    kind: RequestKind
    route: Route
    path: str
    decode: Callable[[bytes], _Meaning]
    query: Query = ()
    project_id: str | None = None
    recall: Callable[[bytes], _Meaning | None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Cover:
    """What hides the secrets of a proof."""

    proof: Proof | None = field(repr=False)
    mask: Mask

    @classmethod
    def of(cls, proof: Proof | None) -> Cover:
        """Return the cover of a proof."""
        return cls(proof, Mask(() if proof is None else proof.secrets))


class Gateway:
    """Asks in the name of one target's credentials.

    Args:
        shared: What all targets share.
        credentials: The target's.
        on_request: Told of each request.
        target: What the operator calls it.
        most: Requests on their way at once with an accepted key, over all its targets.
    """

    def __init__(
        self,
        shared: SharedClient,
        credentials: Credentials,
        on_request: OnRequest,
        target: str,
        most: int,
    ) -> None:
        self._shared = shared
        self._credentials = credentials
        self._on_request = on_request
        self._target = target
        self._most = most
        self._surprises: set[tuple[str, type[Exception]]] = set()
        self._cover = Cover.of(None)
        self._account: str | None = None
        self._fingerprint: Hashable = None
        self._unsigned = False

    @property
    def account(self) -> str | None:
        """Whose key signs the requests; None: nobody's, or not known yet."""
        return self._account

    @property
    def key_limit(self) -> int | None:
        """How many requests the key lets be on their way at once; None: any number."""
        if self._account is None:
            return None if self._unsigned else 1
        return self._shared.breakers.of(self._account).limit(self._most)

    @property
    def locked(self) -> bool:
        """Whether requests are held back because the key was refused."""
        if self._account is None:
            return False
        return self._shared.breakers.of(self._account).locked

    async def ask(self, question: Question[_Meaning]) -> _Meaning:
        """Return the meaning of the answer, within the time of the route.

        A request that was refused is sent once more where that promises better: with
        the server's time, or with another proof.

        Raises:
            ApiError: No usable answer; the subclass says why.
        """
        try:
            return await in_time(question.route, self._ask(question))
        except ApiError:
            raise
        except Exception as exc:  # noqa: BLE001 - one request must not end the process
            failure = self._unexpected(question.kind, exc)
        raise failure

    def _unexpected(self, kind: RequestKind, exc: Exception) -> ApiError:
        """Return the failure that a fault of our own makes of one request.

        Its traceback is told once for each kind; not its text, which may hold a header.
        """
        fault = type(exc)
        if (kind, fault) not in self._surprises:
            self._surprises.add((kind, fault))
            log.error(
                "api.unexpected",
                target=self._target,
                request=kind,
                error=fault.__name__,
                exception="".join(format_tb(exc.__traceback__)),
            )
        return Malformed(f"an answer that was not expected ({fault.__name__})")

    async def _ask(self, question: Question[_Meaning]) -> _Meaning:
        proof = await self._credentials.current()
        offset = self._shared.clock.offset(question.route.host)
        try:
            return await self._attempt(question, proof)
        except Rejected as error:
            better = await self._better(question.route.host, proof, error, offset)
            if better is None:
                raise
        return await self._attempt(question, better)

    async def _better(
        self, host: str, proof: Proof | None, error: Rejected, offset: float
    ) -> Proof | None:
        """Return the proof with which asking again makes sense, None if there is none.

        Args:
            host: Who was asked.
            proof: The refused one.
            error: How it was refused.
            offset: Of the time that the refused request was dated with.
        """
        sent, clock = error.status_code is not None, self._shared.clock
        if proof is None or not sent or error.refusal is Refusal.LOCKED:
            return None
        expired = error.refusal is Refusal.EXPIRED
        if expired and abs(clock.offset(host) - offset) > STEP:
            return proof
        if error.refusal.concerns_key or error.refusal is Refusal.TOKEN:
            renewed = await self._credentials.renew(proof)
            if renewed != proof:
                return renewed
        return proof if expired and clock.doubt(host, offset) else None

    async def _attempt(
        self, question: Question[_Meaning], proof: Proof | None
    ) -> _Meaning:
        self._unsigned = proof is None
        if proof is None:
            return await self._send(question, proof)
        mine, before = proof.fingerprint, self._fingerprint
        changed = mine is not before and mine != before
        self._account, self._fingerprint = proof.account, mine
        breaker = self._shared.breakers.of(proof.account)
        async with breaker.attempt(mine, changed=changed, most=self._most):
            return await self._send(question, proof)

    async def _send(
        self, question: Question[_Meaning], proof: Proof | None
    ) -> _Meaning:
        clock, route = self._shared.clock, question.route
        call = self._call(question, proof)
        self._on_request(question.kind)
        sent = clock.machine_time()
        answer = await exchange(self._shared.session, route, call)
        async with answer.place or _NOWHERE:
            received = clock.machine_time()
            clock.note(route.host, answer.headers.get("Date", ""), sent, received)
            if answer.status == HTTPStatus.OK:
                meaning = question.recall(answer.body)
                if meaning is not None:
                    return meaning
            mask = self._mask(proof) | of_request(call.headers)
            if len(answer.body) <= LARGE:
                return _read(question, mask, answer, received)
            # Beside the loop, which goes on meanwhile.
            limiter = self._shared.decoding
            return await anyio.to_thread.run_sync(
                _read, question, mask, answer, received, limiter=limiter
            )

    def _mask(self, proof: Proof | None) -> Mask:
        if proof is not self._cover.proof:
            self._cover = Cover.of(proof)
        return self._cover.mask

    def _call(self, question: Question[_Meaning], proof: Proof | None) -> Call:
        host, clock = question.route.host, self._shared.clock
        headers = {"Host": host}
        if question.project_id is not None:
            headers["X-Project-Id"] = question.project_id
        call = Call("GET", host, question.path, question.query, headers)
        match proof:
            case Key():
                headers |= sign(proof, call, clock.machine_time() - clock.offset(host))
            case Token():
                headers["X-Auth-Token"] = proof.value.get_secret_value()
            case None:
                pass
        return call


def _read(
    question: Question[_Meaning], mask: Mask, answer: Answer, now: float
) -> _Meaning:
    body = mask.apply(answer.body)
    if answer.status != HTTPStatus.OK:
        headers = mask.headers(answer.headers)
        raise _failure(question.kind, classify(answer.status, headers, body, now))
    try:
        return question.decode(body)
    except Malformed as error:
        error.status_code = answer.status
        error.request_id = request_id_of(mask.headers(answer.headers))
        raise


def _failure(kind: RequestKind, error: ApiError) -> ApiError:
    if isinstance(error, JobNotFound) and kind != "detail":
        return not_about_a_job(error)
    return error
