"""Settings of a fog node: ``fog.toml``, ``REUNA_FOG_…``, flags."""

from __future__ import annotations

from reuna.core.mqtt_listener import USER
from reuna.core.settings import (
    METRICS,
    PORT_OR_NONE,
    REQUIRED,
    TCP_PORT,
    TRACES,
    Option,
    address,
    address_or_none,
    between,
    one_of,
)
from reuna.exchange.sandbox_settings import SANDBOX

FOG: tuple[Option, ...] = (
    Option("fleet", str, REQUIRED, "name of the fleet, as in the certificates"),
    Option("name", str, REQUIRED, "name of this node, as in its certificates"),
    Option("folder", str, REQUIRED, "where this node keeps its state"),
    Option("edges", list, [], "names of edges beside those that enrolled"),
    Option("fogs", list, [], "names of fogs under this one beside those that enrolled"),
    Option("listen.host", str, "127.0.0.1", "address the edges and the fogs under this one reach"),
    Option("listen.nats_port", int, REQUIRED, "TCP port of the site's nats-server", check=TCP_PORT),
    Option("listen.freight_port", int, REQUIRED, "TCP port of the freight server", check=TCP_PORT),
    Option(
        "listen.leaf_port",
        int,
        0,
        "TCP port where fogs under this one link to the site's nats-server; 0: none do",
        check=PORT_OR_NONE,
    ),
    Option(
        "mqtt.listen_port",
        int,
        0,
        "TCP port where machines of the site come by MQTT with TLS; 0: none do",
        check=PORT_OR_NONE,
    ),
    Option("mqtt.connections", int, 64, "how many of them at once", check=between(1, 4096)),
    Option("mqtt.payload", int, 65_536, "largest message of theirs", "bytes", between(64, 1_000_000)),
    Option("mqtt.store_mib", int, 32, "what the server may keep of them", "MiB", between(4, 4096)),
    Option("mqtt.users", dict, {}, "who of them signs in, and its topics", each=USER),
    Option("parent.name", str, "cloud", "name of the cloud, or of the fog over this one"),
    Option("parent.role", str, "cloud", "what the parent is: cloud, or fog", check=one_of("cloud", "fog")),
    Option(
        "parent.leaf",
        str,
        REQUIRED,
        "the parent's leaf listener, host:port; this fog dials out",
        check=address,
    ),
    Option("parent.freight_host", str, REQUIRED, "host of the parent's freight server"),
    Option("parent.freight_port", int, REQUIRED, "TCP port of the parent's freight server", check=TCP_PORT),
    Option(
        "site.certificate", str, REQUIRED, "the gateway's certificate, shown to the edges, PEM", there="file"
    ),
    Option("site.key", str, REQUIRED, "the gateway's private key, PEM", there="file"),
    Option("tls.certificate", str, REQUIRED, "the fog's certificate, shown to the parent, PEM", there="file"),
    Option("tls.key", str, REQUIRED, "the fog's private key, PEM", there="file"),
    Option("tls.authority", str, REQUIRED, "the fleet's root certificate, PEM", there="file"),
    Option("policy", str, REQUIRED, "the site's signed policy.toml: what may leave this node", there="later"),
    Option("root", str, REQUIRED, "root.json of the fleet's trust; read when this node is new", there="pin"),
    Option(
        "enrol.authority",
        str,
        "",
        "folder of the site's authority; empty: nobody is taken in here",
        there="folder",
    ),
    Option("enrol.address", str, "", "host:port where invited machines enrol", check=address_or_none),
    Option("enrol.port", int, 0, "TCP port of the enrolment server", check=PORT_OR_NONE),
    Option("enrol.life_days", float, 7.0, "life of an edge's certificate", "days", between(0.0001, 400)),
    Option(
        "enrol.grace_days", float, 90.0, "how long after its end it may be renewed", "days", between(0, 3650)
    ),
    Option("enrol.edges", int, 0, "how many edges the site may have; 0: any number"),
    Option(
        "enrol.parent",
        str,
        "",
        "host:port where this fog renews its certificates; empty: it does not",
        check=address_or_none,
    ),
    Option(
        "inference.data",
        str,
        "",
        "folder with the tables that releases at this fog scale by; empty: none answers here",
        there="folder",
    ),
    *SANDBOX,
    Option("nats_server", str, "", "path of a nats-server; empty: the system's or the wheel's"),
    Option("announce_s", float, 1.0, "how often an open round is announced again", "s", between(0.05, 60)),
    METRICS,
    TRACES,
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
)
