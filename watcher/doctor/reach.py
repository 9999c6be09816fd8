"""Whether the first machine on the way to the API can be reached, and is what it claims.

The daemon's own client says all this in one word, `unreachable`; here each part is tried
by itself, to tell them apart.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

import anyio
from anyio.streams.tls import TLSAttribute, TLSStream

from watcher.client.transport import Route, system_trust
from watcher.doctor.findings import Fault, Finding, fail, ok

_PORTS = {"http": 80, "https": 443}
_MOST_SHOWN = 3
_TIME_CODES = frozenset({9, 10})  # X509_V_ERR_CERT_NOT_YET_VALID, _HAS_EXPIRED
_NAME_CODES = frozenset({62, 64})  # X509_V_ERR_HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH


@dataclass(frozen=True, slots=True)
class Hop:
    """The machine that is connected to first: the API's, or a proxy.

    Attributes:
        tls: What is trusted, where TLS is spoken with this machine.
        setting: What names it.
        ca_setting: What names other authorities to trust.
    """

    host: str
    port: int
    tls: ssl.SSLContext | None
    setting: str
    ca_setting: str

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def first_hop(route: Route, where: str) -> Hop:
    """Return the first machine on a route.

    Args:
        route: The route.
        where: Path of the target's settings, such as `targets.prod`.
    """
    parts = urlsplit(route.proxy or route.origin)
    tls = route.tls.context() if route.tls else system_trust()
    named = f"{where}.region and {where}.endpoint"
    return Hop(
        host=parts.hostname or "",
        port=parts.port or _PORTS[parts.scheme],
        tls=None if parts.scheme == "http" else tls,
        setting="HTTPS_PROXY" if route.proxy else named,
        ca_setting=f"{where}.ca_file",
    )


async def resolve(hop: Hop) -> Finding:
    """Look the machine's name up."""
    try:
        ip_address(hop.host)
    except ValueError:
        pass
    else:
        return ok("dns", f"{hop.host} is an address, so there is no name to resolve")
    try:
        found = await anyio.getaddrinfo(hop.host, hop.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        return unresolved(hop, _words(exc))
    addresses = [str(address[0]) for *_, address in found]
    more = ", …" if len(addresses) > _MOST_SHOWN else ""
    return ok("dns", f"{hop.host} is {', '.join(addresses[:_MOST_SHOWN])}{more}")


def unresolved(hop: Hop, why: str) -> Finding:
    """Return the finding of a name that was not resolved."""
    return fail(
        "dns",
        f"the name {hop.host} cannot be resolved: {why}",
        f"check {hop.setting}, and the name servers of this machine "
        "(/etc/resolv.conf); where only a proxy leads outside, set HTTPS_PROXY",
        Fault.UNREACHABLE,
    )


async def connect(hop: Hop) -> Finding:
    """Connect to the machine, with TLS where it is spoken with this one."""
    try:
        async with await anyio.connect_tcp(hop.host, hop.port) as stream:
            if hop.tls is None:
                return ok("connection", f"TCP to {hop.address}")
            secured = await TLSStream.wrap(
                stream,
                hostname=hop.host,
                ssl_context=hop.tls,
                standard_compatible=False,
            )
            connection = secured.extra_attributes[TLSAttribute.ssl_object]()
            return ok("connection", f"TCP and {connection.version()} to {hop.address}")
    except ssl.SSLCertVerificationError as exc:
        return _untrusted(hop, exc)
    except (ssl.SSLError, anyio.EndOfStream, anyio.BrokenResourceError) as exc:
        return unconnected(
            f"the TLS handshake with {hop.address} failed: {_words(exc)}",
            f"check that {hop.setting} lead to a port that speaks TLS, and that no "
            "firewall cuts the connection",
        )
    except OSError as exc:
        return _unconnected(hop, exc)


def unconnected(text: str, hint: str) -> Finding:
    """Return the finding of a machine that could not be connected to."""
    return fail("connection", text, hint, Fault.UNREACHABLE)


def silent(hop: Hop, seconds: float) -> Finding:
    """Return the finding of a machine that says nothing."""
    return unconnected(
        f"no connection with {hop.address} within {seconds:g} s",
        f"a firewall may drop what is sent there; check {hop.setting}, or set "
        "HTTPS_PROXY where only a proxy leads outside",
    )


def _untrusted(hop: Hop, exc: ssl.SSLCertVerificationError) -> Finding:
    hint = (
        f"name the PEM file of the authority that signed it in {hop.ca_setting}; a "
        "company's proxy that opens TLS has an authority of its own"
    )
    if exc.verify_code in _TIME_CODES:
        hint = "set this machine's clock; if it is right, the server's owner must act"
    if exc.verify_code in _NAME_CODES:
        hint = f"another server answers in this name: check {hop.setting}, and DNS"
    why = exc.verify_message
    text = f"the TLS certificate of {hop.address} is not trusted: {why}"
    return unconnected(text, hint)


def _unconnected(hop: Hop, exc: OSError) -> Finding:
    causes = list(_causes(exc))
    cause = next((each for each in causes if each.errno), exc)
    hint = f"check {hop.setting}, and the firewalls on the way"
    if any(each.errno == errno.ECONNREFUSED for each in causes):
        hint = f"nothing listens there, or a firewall says so: check {hop.setting}"
    if cause.errno in {errno.ENETUNREACH, errno.EHOSTUNREACH}:
        hint = (
            "this machine has no way there: check its network, or set HTTPS_PROXY "
            "where only a proxy leads outside"
        )
    return unconnected(f"cannot connect to {hop.address}: {_words(cause)}", hint)


def _causes(exc: BaseException | None) -> Iterator[OSError]:
    """Yield all that went wrong: each address of a name is tried."""
    if isinstance(exc, BaseExceptionGroup):
        for each in exc.exceptions:
            yield from _causes(each)
    elif isinstance(exc, OSError):
        yield exc
        yield from _causes(exc.__cause__)


def _words(exc: BaseException) -> str:
    match exc:
        case socket.gaierror(strerror=str() as text):
            return text
        case ssl.SSLError(reason=str() as text):
            return text.replace("_", " ").lower()
        case OSError(errno=int() as number):
            return os.strerror(number)
        case _:
            return str(exc) or "the other side closed the connection"
