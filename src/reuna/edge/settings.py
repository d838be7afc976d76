"""Settings of an edge node: ``edge.toml``, ``REUNA_EDGE_…``, flags."""

from __future__ import annotations

from reuna.core.settings import (
    METRICS,
    REQUIRED,
    TCP_PORT,
    TRACES,
    Option,
    address,
    address_or_none,
    between,
)
from reuna.exchange.sandbox_settings import SANDBOX
from reuna.trust.policy import DATASET

EDGE: tuple[Option, ...] = (
    Option("fleet", str, REQUIRED, "name of the fleet, as in the certificates"),
    Option("name", str, REQUIRED, "name of this node, as in its certificate"),
    Option("folder", str, REQUIRED, "where this node keeps its state"),
    Option("data", str, REQUIRED, "folder with this node's own data; it never leaves", there="folder"),
    Option("dataset", str, DATASET, "what the policy's `[sources]` call that data"),
    Option("parent.name", str, REQUIRED, "name of the fog above"),
    Option("parent.nats", str, REQUIRED, "the fog's nats-server, tls://host:port", check=address),
    Option("parent.freight_host", str, REQUIRED, "host of the fog's freight server"),
    Option("parent.freight_port", int, REQUIRED, "TCP port of the fog's freight server", check=TCP_PORT),
    Option("tls.certificate", str, REQUIRED, "this node's certificate, PEM", there="file"),
    Option("tls.key", str, REQUIRED, "this node's private key, PEM, mode 0600", there="file"),
    Option("tls.authority", str, REQUIRED, "the fleet's root certificate, PEM", there="file"),
    Option("policy", str, REQUIRED, "the site's signed policy.toml: what may leave this node", there="later"),
    Option("root", str, REQUIRED, "root.json of the fleet's trust; read when this node is new", there="pin"),
    Option(
        "enrol.parent",
        str,
        "",
        "host:port where this node renews its certificate; empty: it does not",
        check=address_or_none,
    ),
    Option("sources", str, "", "file of the sources that this node reads; empty: none", there="file"),
    Option("sinks", str, "", "file of the sinks that get a release's answers; empty: none", there="file"),
    Option("live.on", bool, True, "whether a release that this node holds answers what is read"),
    Option("live.project", str, "", "whose releases answer what is read; empty: those of every project"),
    Option(
        "live.lateness_s",
        float,
        2.0,
        "how much later than their time readings may come; a window is answered after that",
        "s",
        between(0, 86_400),
    ),
    Option(
        "live.silent_s",
        float,
        60.0,
        "how long nothing comes until windows are given the safe answer",
        "s",
        between(1, 31_536_000),
    ),
    Option("live.days", float, 30.0, "how long an answer is kept", "days", between(0.001, 36_500)),
    Option("live.mib", int, 64, "how much the answers' files may take", "MiB", between(16, 1 << 20)),
    METRICS,
    TRACES,
    Option(
        "labelled_s",
        float,
        60.0,
        "how often new labelled rows of the training tables are counted; 0: never",
        "s",
        between(0, 86_400),
    ),
    Option(
        "hello_s",
        float,
        5.0,
        "how often the node says that it is there; once a minute where nothing is new for ten",
        "s",
        between(0.1, 3600),
    ),
    Option(
        "heads_s", float, 60.0, "how often the ledger's head goes to the cloud", "s", between(0.1, 86_400)
    ),
    Option("idle_s", float, 60.0, "when a worker without work ends", "s", between(1, 86_400)),
    *SANDBOX,
)
