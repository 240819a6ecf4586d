"""Signs of life between hosts: small datagrams from a thread of each rank, which come whatever the rank is doing.

MPI tells of a process that dies, by way of its host; of a host that falls silent, since its cable was pulled or its
power is gone, MPI tells nothing. Nothing of MPI is used here, so nothing can wait for the silent one. What MPI has for
this itself, a failure detector, takes every rank that computes for a while for dead; with a thread of its own it was
seen to crash ranks while MPI begins, and to keep them from leaving MPI.
"""

import contextlib
import ipaddress
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import psutil

from mpips.errors import Error

SIGN = struct.Struct("<QQ")  # the job's token, the sender's rank


class NetworkError(Error, OSError):
    """A host does not have the network that the job is to use."""


class Address(NamedTuple):
    """Where a rank listens: one of these addresses of its host, at this port; or the problem that it has."""

    hosts: list[str]
    port: int
    problem: str = ""


def addresses(interface: str | None) -> list[str]:
    """The IPv4 addresses at which others reach this host.

    Parameters
    ----------
    interface : names of interfaces, or networks such as 10.0.0.0/16, separated by commas; None: any.

    Raises
    ------
    NetworkError
        when it has none in these.
    """
    wanted = interface.split(",") if interface is not None else None
    found = []
    for name, each in psutil.net_if_addrs().items():
        for address in each:
            if address.family != socket.AF_INET or ipaddress.ip_address(address.address).is_loopback:
                continue
            if wanted is None or name in wanted or any(_is_in(address.address, where) for where in wanted):
                found.append(address.address)
    if wanted is not None and not found:
        raise NetworkError(
            f"{socket.gethostname()} has no address in network.interface = {interface!r}; it has the interfaces "
            + ", ".join(psutil.net_if_addrs())
        )
    return found


def _is_in(address: str, network: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)
    return False


class Beats:
    """Listens from the beginning; `begin` says where the others are.

    Parameters
    ----------
    rank : this one.
    period : seconds between two signs of this rank.
    interface : as of `addresses`.

    Attributes
    ----------
    address : where this rank listens.
    """

    def __init__(self, rank: int, period: float, interface: str | None) -> None:
        self._rank = rank
        self._period = period
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("", 0))
        port = self._socket.getsockname()[1]
        try:
            self.address = Address(addresses(interface), port)
        except NetworkError as problem:  # for all ranks to know
            self.address = Address([], port, str(problem))
        self._heard = np.zeros(0)
        self._peers: list[tuple[str, int] | None] = []
        self._to: tuple[tuple[str, int], ...] = ()
        self._ended = threading.Event()

    def begin(self, everyone: Sequence[Address], nodes: Sequence[int], token: int) -> None:
        """Begin to send and to hear.

        Parameters
        ----------
        everyone : the addresses of all ranks.
        nodes : the node of each; signs go to other nodes only.
        token : a number that tells this job's signs from others'.

        Raises
        ------
        NetworkError
            when a host does not have the network.
        """
        for address in everyone:
            if address.problem:
                raise NetworkError(address.problem)
        self._heard = np.full(len(everyone), np.nan)
        # what several hosts have is an address that each of them has for itself alone, such as a bridge of containers
        hosts = {node: set(address.hosts) for node, address in zip(nodes, everyone, strict=True)}
        shared = Counter(host for each in hosts.values() for host in each)
        for node, address in zip(nodes, everyone, strict=True):
            own = [host for host in address.hosts if shared[host] == 1]
            self._peers.append((own[0], address.port) if own and node != nodes[self._rank] else None)
        self._token = token
        threading.Thread(target=self._live, daemon=True, name="signs of life").start()

    def send_to(self, ranks: Iterable[int]) -> None:
        """From now on signs go to these ranks, as far as they are on other nodes."""
        self._to = tuple(peer for rank in ranks if rank < len(self._peers) and (peer := self._peers[rank]) is not None)

    def heard(self, rank: int) -> float | None:
        """When the last sign of a rank came, on `time.perf_counter`'s clock; None before the first."""
        return None if rank >= self._heard.size or np.isnan(self._heard[rank]) else float(self._heard[rank])

    def _live(self) -> None:
        sign, due = SIGN.pack(self._token, self._rank), time.perf_counter()
        while not self._ended.is_set():
            now = time.perf_counter()
            if now >= due:
                due = now + self._period
                for peer in self._to:
                    with contextlib.suppress(OSError):  # no way there: they will miss it
                        self._socket.sendto(sign, peer)
            self._socket.settimeout(max(1e-3, due - now))
            with contextlib.suppress(OSError):  # nothing came; or someone's port is closed, as it has left
                self._hear(self._socket.recv(64))
        self._socket.close()

    def _hear(self, data: bytes) -> None:
        if len(data) == SIGN.size:
            token, rank = SIGN.unpack(data)
            if token == self._token and rank < self._heard.size:
                self._heard[rank] = time.perf_counter()

    def end(self) -> None:
        """Send and hear no more, from the next sign on."""
        self._ended.set()


def pack(address: Address) -> bytes:
    """An address as bytes."""
    return msgspec.msgpack.encode(address)


def unpack(data: bytes) -> Address:
    """An address from bytes."""
    return msgspec.msgpack.decode(data, type=Address)
