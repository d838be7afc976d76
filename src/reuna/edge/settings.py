"""Settings of an edge node: ``edge.toml``, ``REUNA_EDGE_…``, flags."""

from __future__ import annotations

from reuna.core.settings import REQUIRED, Option, between

EDGE: tuple[Option, ...] = (
    Option("name", str, REQUIRED, "name of this node, as in its certificate"),
    Option("folder", str, REQUIRED, "where this node keeps its state"),
    Option("data", str, REQUIRED, "folder with this node's own data; it never leaves"),
    Option("parent.name", str, REQUIRED, "name of the fog above"),
    Option("parent.nats", str, REQUIRED, "the fog's nats-server, tls://host:port"),
    Option("parent.freight_host", str, REQUIRED, "host of the fog's freight server"),
    Option("parent.freight_port", int, REQUIRED, "TCP port of the fog's freight server"),
    Option("tls.certificate", str, REQUIRED, "this node's certificate, PEM"),
    Option("tls.key", str, REQUIRED, "this node's private key, PEM, mode 0600"),
    Option("tls.authority", str, REQUIRED, "the fleet's root certificate, PEM"),
    Option("enrol.parent", str, "", "host:port where this node renews its certificate; empty: it does not"),
    Option("hello_s", float, 5.0, "how often the node says that it is there", "s", between(0.1, 3600)),
    Option("idle_s", float, 60.0, "when a worker without work ends", "s", between(1, 86_400)),
)
