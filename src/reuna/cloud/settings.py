"""Settings of the cloud: ``cloud.toml``, ``REUNA_CLOUD_…``, flags."""

from __future__ import annotations

from reuna.core.settings import PORT_OR_NONE, REQUIRED, TCP_PORT, Option, address_or_none, between


def _url_or_none(text: str) -> str:
    """A check of an http address, or of no text at all."""
    return (
        "" if not text or text.startswith(("http://", "https://")) else "must begin with http:// or https://"
    )


CLOUD: tuple[Option, ...] = (
    Option("fleet", str, REQUIRED, "name of the fleet, as in the certificates"),
    Option("name", str, "cloud", "name of this node, as in its certificate"),
    Option("folder", str, REQUIRED, "where this node keeps its state"),
    Option(
        "database",
        str,
        "",
        "postgresql://USER@HOST:5432/NAME that keeps the cloud's tables; empty: SQLite in the folder",
    ),
    Option("store", str, "", "s3://BUCKET/PREFIX that keeps models and bundles; empty: files in the folder"),
    Option("fogs", list, [], "names of fogs beside those that enrolled"),
    Option("listen.host", str, "127.0.0.1", "address the fogs reach"),
    Option("listen.nats_port", int, REQUIRED, "TCP port of the hub's nats-server", check=TCP_PORT),
    Option("listen.leaf_port", int, REQUIRED, "TCP port where the fogs' leaf links arrive", check=TCP_PORT),
    Option("listen.freight_port", int, REQUIRED, "TCP port of the freight server", check=TCP_PORT),
    Option("listen.api_port", int, REQUIRED, "TCP port of the operator's API", check=TCP_PORT),
    Option(
        "listen.people_port",
        int,
        0,
        "TCP port of the same API for people who sign in; 0: there is none",
        check=PORT_OR_NONE,
    ),
    Option(
        "four_eyes",
        list,
        [],
        "actions that need a second person; there are: runs.submit, runs.stop, rollouts.start",
    ),
    Option("alarms.webhook", str, "", "URL that is sent each alarm as JSON; empty: none"),
    Option(
        "alarms.authority",
        str,
        "",
        "certificates, PEM, that vouch for the webhook's server; empty: the system's",
        there="file",
    ),
    Option("alarms.mail_server", str, "", "smtp://HOST:PORT or smtps:// through which alarms are mailed"),
    Option("alarms.mail_from", str, "reuna@localhost", "sender of those mails"),
    Option("alarms.mail_to", list, [], "who gets them"),
    Option("traces.on", bool, False, "whether runs are sent to a collector of OpenTelemetry as traces"),
    Option(
        "traces.endpoint",
        str,
        "",
        "URL that takes them, as http://127.0.0.1:4318/v1/traces; empty: as OTEL_EXPORTER_OTLP_ENDPOINT says",
        check=_url_or_none,
    ),
    Option("alarms.mqtt_host", str, "", "MQTT broker at which alarms stand; empty: none"),
    Option("alarms.mqtt_port", int, 0, "its TCP port; 0: 1883, by TLS 8883", check=PORT_OR_NONE),
    Option("alarms.mqtt_topic", str, "", "topic under which they stand; empty: reuna/FLEET/alarms"),
    Option("alarms.mqtt_tls", bool, False, "TLS with the system's authorities; the files below switch it on"),
    Option(
        "alarms.mqtt_authority",
        str,
        "",
        "certificates, PEM, that vouch for the broker; empty: the system's",
        there="file",
    ),
    Option("alarms.mqtt_certificate", str, "", "our certificate at the broker, PEM", there="file"),
    Option("alarms.mqtt_key", str, "", "its private key, PEM", there="file"),
    Option("alarms.mqtt_user", str, "", "name to sign in at the broker with"),
    Option("alarms.mqtt_password_file", str, "", "file with the password on its first line", there="file"),
    Option(
        "alarms.mqtt_acknowledge",
        bool,
        False,
        "whether alarms are acknowledged at the broker too, by everybody that it lets",
    ),
    Option("oidc.issuer", str, "", "URL of the identity provider people sign in at; empty: there is none"),
    Option("oidc.client_id", str, "reuna", "what the identity provider calls this cloud"),
    Option(
        "oidc.secret_file",
        str,
        "",
        "file with the client's secret on its first line; empty: none",
        there="file",
    ),
    Option(
        "oidc.authority",
        str,
        "",
        "certificates, PEM, that vouch for the provider; empty: the system's",
        there="file",
    ),
    Option("oidc.scopes", list, ["openid", "profile", "email"], "what the provider is asked to say"),
    Option("oidc.name_claim", str, "preferred_username", "claim that names the account, up to an @"),
    Option("oidc.groups_claim", str, "groups", "claim with somebody's groups; a way to it has dots"),
    Option("oidc.roles", dict, {}, 'roles of each group, as ml-team = ["engineer"]'),
    Option("tls.certificate", str, REQUIRED, "the cloud's certificate, PEM", there="file"),
    Option("tls.key", str, REQUIRED, "the cloud's private key, PEM", there="file"),
    Option("tls.authority", str, REQUIRED, "the fleet's root certificate, PEM", there="file"),
    Option(
        "trust",
        str,
        REQUIRED,
        "folder of the fleet's trust, with its online keys; see reuna trust",
        there="folder",
    ),
    Option(
        "enrol.authority",
        str,
        "",
        "folder of the fleet's authority; empty: nobody is taken in here",
        there="folder",
    ),
    Option("enrol.address", str, "", "host:port where invited machines enrol", check=address_or_none),
    Option("enrol.port", int, 0, "TCP port of the enrolment server", check=PORT_OR_NONE),
    Option("enrol.life_days", float, 7.0, "life of a fog's certificate", "days", between(0.0001, 400)),
    Option(
        "enrol.grace_days", float, 90.0, "how long after its end it may be renewed", "days", between(0, 3650)
    ),
    Option("nats_server", str, "", "path of a nats-server; empty: the system's or the wheel's"),
    Option("announce_s", float, 1.0, "how often an open round is announced again", "s", between(0.05, 60)),
)
