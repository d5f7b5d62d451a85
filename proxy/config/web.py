"""The settings of the two listeners."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from proxy.config.kinds import Address, Between, Duration, FileKind, HeaderSecret, Listen, Secret, Section, setting
from proxy.config.sizes import Size


class DoorFile(Section):
    """How the data listener takes clients in: TLS, their certificates, users with passwords, headers. In [a file of its
    own](web-config.md), as Prometheus and Alertmanager have it."""

    file: Annotated[Path | None, FileKind()] = setting(
        default=None,
        description="That file. It, and the certificates that it names, are read again when they change; what could be "
        "used last holds.",
    )


class AdminDoorFile(Section):
    """The same for the admin listener."""

    file: Annotated[Path | None, FileKind()] = setting(
        default=None,
        description="That file. With users everything needs one of them, or `web.admin_token`, health and metrics "
        "included.",
    )


class Web(Section):
    """The two listeners: one is Alertmanager's whole surface, one is the proxy's own."""

    listen_address: Listen = setting(
        default=Address("", 19093),
        description="Where alerts, and everything else meant for Alertmanager, come in. Port 0 takes a free one.",
    )
    admin_listen_address: Listen = setting(
        default=Address("127.0.0.1", 19094),
        description="Where the proxy's own API and metrics are. Port 0 takes a free one.",
    )
    allow_anonymous: bool = setting(
        default=False,
        description="Whether anybody who can reach the data listener may use the credentials that the proxy has for "
        "Alertmanager. Without it such a listener has to be on loopback, or to have users or certificates of clients "
        "in `web.config.file`.",
    )
    admin_token: HeaderSecret = setting(
        default=Secret(),
        description="Bearer token that the admin listener asks for, beyond health and metrics. Without one, only a "
        "listener on loopback answers the rest.",
    )
    header_timeout: Duration = setting(
        default=timedelta(seconds=30),
        description="Time for the headers of a request, from accept, or from the first byte of a further request. "
        "Then the connection is closed. This and the next four are for both listeners, each by itself.",
    )
    body_timeout: Duration = setting(
        default=timedelta(seconds=60),
        description="Time for the body of a request, from the end of its headers. Then it is answered with 408.",
    )
    idle_timeout: Duration = setting(
        default=timedelta(hours=1),
        description="How long a connection may be idle between two requests. Longer than the gaps between a sender's "
        "POSTs: one that meets the closing of its connection is lost.",
    )
    max_connections: Annotated[int, Between(8, 65536)] = setting(
        default=2048,
        description="How many connections may be open at once. Beyond it the one that has waited for its next "
        "request for longest is closed, and when all are busy the new one is answered with 503.",
    )
    max_body_size: Size = setting(
        default=64 << 20,
        description="Length of a POST of alerts up to which it is read. A longer one is forwarded as it comes, without "
        "AI labels.",
    )
    max_body_memory: Size = setting(
        default=96 << 20,
        description="Memory for the bodies of POSTs of alerts that are longer than 256 KiB, all together, and for what "
        "they become while they are read. What finds no room is forwarded as it comes. What waits for a slow one of "
        "[several Alertmanagers](../explanation/several-alertmanagers.md) comes on top of it.",
    )
    config: DoorFile = DoorFile()
    admin_config: AdminDoorFile = AdminDoorFile()
