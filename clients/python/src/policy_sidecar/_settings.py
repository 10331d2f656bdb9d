"""How a client reaches its sidecar."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from ._documents import HEADER as DOCUMENTS

DEFAULT_ADDRESS = "127.0.0.1:50051"
#: Environment variable that says where the sidecar is.
VARIABLE = "POLICY_SIDECAR"


def _pem(source: str | os.PathLike[str] | bytes | None) -> bytes | None:
    return source if source is None or isinstance(source, bytes) else Path(source).read_bytes()


def header_value(name: str, value: str) -> str:
    """The value, where it can be one of a header: visible ASCII without blanks at its ends; else ValueError."""
    if not value or value != value.strip() or any(not " " <= one <= "~" for one in value):
        raise ValueError(f"{name} has to be visible ASCII without blanks at its ends")
    return value


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What `connect` was told."""

    address: str | None = None
    #: Bearer token; None: none is sent.
    token: str | None = field(default=None, repr=False)
    #: TLS with the authorities of the machine, where no `ca` is given.
    tls: bool = False
    #: PEM of the authorities that the sidecar's certificate is checked by, as path or bytes; means TLS.
    ca: str | os.PathLike[str] | bytes | None = None
    #: PEM of the client's own certificate and key, as path or bytes; mean TLS.
    certificate: str | os.PathLike[str] | bytes | None = None
    key: str | os.PathLike[str] | bytes | None = field(default=None, repr=False)
    #: Seconds that a call may take which says nothing else; None: as long as the sidecar allows.
    timeout: float | None = 30.0
    #: Largest answer in bytes.
    max_message_bytes: int = 64 * 1024 * 1024
    #: Seconds between two pings of a connection with calls; None: no pings.
    keepalive: float | None = 20.0
    #: Wait, within its timeout, for a sidecar that is not there yet.
    wait_for_ready: bool = True
    #: A stream outside transactions that is cut goes on by itself; False lets it end with its error.
    resume: bool = True

    def __post_init__(self) -> None:
        if self.token is not None:
            header_value("token", self.token)

    @property
    def target(self) -> str:
        """Where the sidecar is, as grpc writes it."""
        return self.address or os.environ.get(VARIABLE) or DEFAULT_ADDRESS

    @property
    def secure(self) -> bool:
        """Whether it is spoken to with TLS."""
        return self.tls or self.ca is not None or self.certificate is not None

    def credentials(self) -> grpc.ChannelCredentials:
        """What TLS goes by; files are read anew for each channel."""
        return grpc.ssl_channel_credentials(_pem(self.ca), _pem(self.key), _pem(self.certificate))

    def options(self) -> list[tuple[str, int | str]]:
        """Options of a channel: connections of its own, never through a proxy, soon tried again."""
        options: list[tuple[str, int | str]] = [
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2_000),
        ]
        if self.keepalive is not None:
            milliseconds = int(self.keepalive * 1_000)
            options += [
                ("grpc.keepalive_time_ms", milliseconds),
                ("grpc.keepalive_timeout_ms", milliseconds),
                ("grpc.http2.max_pings_without_data", 0),
            ]
        return options

    def headers(self) -> tuple[tuple[str, str], ...]:
        """Headers of every call."""
        return (DOCUMENTS,) if self.token is None else (DOCUMENTS, ("authorization", f"Bearer {self.token}"))
