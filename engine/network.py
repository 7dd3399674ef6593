"""Connections that a list of URLs can't turn against us: to public addresses alone, and none outlasts its time.

The address that was checked is the one connected to, for every hop of a redirect: a name that resolves to another one
the second time (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

import httpcore

from engine.errors import ImageError

GLOBAL_UNICAST = IPv6Network("2000::/3")  # all that is given out of IPv6
NAT64 = IPv6Network("64:ff9b::/96")  # leads to the IPv4 address in its last 32 bits
# Clouds tell their machines secrets at link-local addresses, which are no public ones, and Azure and Oracle also here.
METADATA = (IPv4Network("168.63.129.16/32"), IPv4Network("192.0.0.0/24"))


def is_public(address: str) -> bool:
    """Whether an IP address is anybody's: not private, loopback, link-local, multicast, reserved or a cloud's own."""
    ip = ip_address(address)
    if isinstance(ip, IPv6Address):
        inside = ip.ipv4_mapped or ip.sixtofour or (IPv4Address(int(ip) & 0xFFFFFFFF) if ip in NAT64 else None)
        if inside is None:
            return ip in GLOBAL_UNICAST and ip.is_global
        ip = inside
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in METADATA)


@dataclass
class Lines:
    """The open connections, which `cut` ends from another thread, whatever they are waiting for."""

    stopped: threading.Event = field(default_factory=threading.Event)
    _open: set[socket.socket] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, sock: socket.socket) -> None:
        with self._lock:
            self._open.add(sock)
        if self.stopped.is_set():
            self.remove(sock)
            raise httpcore.ConnectError("ingest was stopped")

    def remove(self, sock: socket.socket) -> None:
        with self._lock:
            self._open.discard(sock)
        sock.close()

    def replace(self, old: socket.socket, new: socket.socket) -> None:
        with self._lock:
            self._open.discard(old)
        self.add(new)

    def cut(self) -> None:
        self.stopped.set()
        with self._lock:
            for sock in self._open:
                with suppress(OSError):  # not connected yet, or not any more
                    sock.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True)
class Network(httpcore.NetworkBackend):
    """Connects to public addresses, or to any if `private` is True. All of it ends at `deadline`, by time.monotonic.

    A look-up of a name ends when the system's resolver gives up: it knows no deadline.
    """

    lines: Lines
    deadline: float
    private: bool

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        fault: Exception = httpcore.ConnectError(f"{host} has no address")
        for family, address in self._addresses(host, port):
            try:
                return _Stream(self, self._connected(family, address, timeout))
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                fault = error
        raise fault

    def left(self, timeout: float | None, late: type[Exception]) -> float:
        """The seconds that one step may take. Raises `late` if there are none left."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise late("there is no time left")
        return left if timeout is None else min(timeout, left)

    def _connected(self, family: int, address: Any, timeout: float | None) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_STREAM)
        self.lines.add(sock)
        try:
            with _faults(httpcore.ConnectTimeout, httpcore.ConnectError):
                sock.settimeout(self.left(timeout, httpcore.ConnectTimeout))
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.connect(address)
        except BaseException:
            self.lines.remove(sock)
            raise
        return sock

    def _addresses(self, host: str, port: int) -> list[tuple[int, Any]]:
        """The address family and socket address of each address of `host` that may be connected to."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # a label of more than 63 characters is no Unicode, says Python
            if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
                raise httpcore.ConnectError(f"{host} can't be looked up now: {error.strerror}") from error
            raise ImageError("unreachable", f"there is no host {host}: {error}") from error
        allowed: list[tuple[int, Any]] = [
            (family, to) for family, _, _, _, to in found if self.private or is_public(str(to[0]))
        ]
        if found and not allowed:
            raise ImageError(
                "forbidden_address",
                f"{host} is {found[0][4][0]}, no public address; set ingest.http.private_addresses if the list is "
                "trusted to ask hosts of this network",
            )
        return allowed


class _Stream(httpcore.NetworkStream):
    def __init__(self, network: Network, sock: socket.socket) -> None:
        self._network = network
        self._sock = sock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with _faults(httpcore.ReadTimeout, httpcore.ReadError):
            self._sock.settimeout(self._network.left(timeout, httpcore.ReadTimeout))
            data = self._sock.recv(max_bytes)
        if self._network.lines.stopped.is_set():
            raise httpcore.ReadError("ingest was stopped")  # or the end that `cut` made would pass for the body's
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with _faults(httpcore.WriteTimeout, httpcore.WriteError):
            self._sock.settimeout(self._network.left(timeout, httpcore.WriteTimeout))
            self._sock.sendall(buffer)

    def close(self) -> None:
        self._network.lines.remove(self._sock)

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        try:
            with _faults(httpcore.ConnectTimeout, httpcore.ConnectError):
                self._sock.settimeout(self._network.left(timeout, httpcore.ConnectTimeout))
                plain, self._sock = (
                    self._sock,
                    ssl_context.wrap_socket(self._sock, server_hostname=server_hostname, do_handshake_on_connect=False),
                )
                self._network.lines.replace(plain, self._sock)
                self._sock.do_handshake()
        except BaseException:
            self.close()
            raise
        return self

    def get_extra_info(self, info: str) -> Any:
        if info == "ssl_object" and isinstance(self._sock, ssl.SSLSocket):
            return self._sock
        return self._sock if info == "socket" else None


@contextmanager
def _faults(late: type[Exception], broken: type[Exception]) -> Iterator[None]:
    """A socket's faults as httpcore has them."""
    try:
        yield
    except TimeoutError as error:
        raise late(str(error)) from error
    except (OSError, ValueError) as error:  # ValueError: a host name that TLS can't take
        raise broken(str(error)) from error


def header(response: httpcore.Response, name: bytes) -> str:
    """The first of that name, which is in lower case; "" if there is none."""
    return next((value.decode("utf-8", "replace") for key, value in response.headers if key.lower() == name), "")


def retry_after(response: httpcore.Response) -> float:
    """The seconds that a Retry-After header asks for, which are a number or a date; 0 without one."""
    value = header(response, b"retry-after").strip()
    if re.fullmatch("[0-9]{1,9}", value):
        return float(value)
    try:
        return max((parsedate_to_datetime(value).astimezone(UTC) - datetime.now(UTC)).total_seconds(), 0)
    except (ValueError, TypeError, OverflowError):
        return 0
