"""What goes wrong between a client and an OPC UA server: what may pass by itself, and what may not."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from asyncua import ua

from reuna.adapters.opcua.certificates import Identity, fingerprint
from reuna.core.errors import ReunaError, Unreachable
from reuna.core.opcua_settings import OpcUaSettings

#: What a server says that does not trust this client.
_UNTRUSTED = frozenset(
    (
        ua.StatusCodes.BadSecurityChecksFailed,
        ua.StatusCodes.BadCertificateUntrusted,
        ua.StatusCodes.BadCertificateInvalid,
        ua.StatusCodes.BadCertificateUriInvalid,
        ua.StatusCodes.BadCertificateUseNotAllowed,
        ua.StatusCodes.BadCertificateTimeInvalid,
        ua.StatusCodes.BadCertificateChainIncomplete,
        ua.StatusCodes.BadCertificateRevoked,
        ua.StatusCodes.BadApplicationSignatureInvalid,
    )
)
_NO_USER = frozenset(
    (
        ua.StatusCodes.BadIdentityTokenRejected,
        ua.StatusCodes.BadIdentityTokenInvalid,
        ua.StatusCodes.BadUserAccessDenied,
        ua.StatusCodes.BadUserSignatureInvalid,
    )
)
NO_POLICY = frozenset((ua.StatusCodes.BadSecurityPolicyRejected, ua.StatusCodes.BadSecurityModeRejected))


log = logging.getLogger(__name__)


class Lost(Exception):
    """The connection, or what went over it, is gone; it may come back by itself."""


@contextmanager
def in_our_words(settings: OpcUaSettings, identity: Identity | None = None) -> Iterator[None]:
    """The library's errors as ours: `Lost` for what may pass by itself, a `ReunaError` for the rest."""
    try:
        yield
    except (ReunaError, Lost, asyncio.CancelledError):
        raise
    except ua.UaStatusCodeError as error:
        raise _refusal(settings, identity, error) from error
    except TimeoutError as error:
        raise Lost(f"{settings.url} does not answer") from error
    except OSError as error:
        raise Lost(f"{settings.url}: {_system_said(error)}") from error
    except Exception as error:
        if "No matching endpoints" in str(error):
            raise Unreachable(
                f"{settings.url} does not offer security {settings.security}",
                "Set `security` and `mode` to what it offers, or enable the policy at the server.",
            ) from error
        log.debug("source %s", settings.name, exc_info=True)
        raise Lost(f"{settings.url} answers what is no OPC UA: {error or type(error).__name__}") from error


def _system_said(error: OSError) -> str:
    """In the system's words; a name that is not found says so itself."""
    if isinstance(error, socket.gaierror) or not error.errno:
        return error.strerror or str(error)
    return os.strerror(error.errno)


def _refusal(settings: OpcUaSettings, identity: Identity | None, error: ua.UaStatusCodeError) -> Exception:
    """What a status code means for whoever has to correct it; what passes by itself is `Lost`."""
    name, url = name_of(error), settings.url
    if error.code in _UNTRUSTED and identity:
        return Unreachable(
            f"{url} refuses this client's certificate: {name}",
            f"Let the server trust {settings.certificate} (fingerprint {fingerprint(identity.certificate)}, "
            f"application URI {identity.uri}), and compare the clocks.",
        )
    if error.code in _NO_USER:
        return Unreachable(
            f"{url} refuses the user {settings.user or 'anonymous'}: {name}",
            "Correct `user` and `password_file`, or the rights at the server.",
        )
    if error.code in NO_POLICY:
        return Unreachable(
            f"{url} refuses security {settings.security}: {name}", "Set `security` to what the server offers."
        )
    if error.code == ua.StatusCodes.BadInvalidTimestamp:
        return Unreachable(
            f"{url} refuses this machine's time: {name}", "Set both clocks by one time server (NTP)."
        )
    return Lost(f"{url}: {name}")


def name_of(error: ua.UaStatusCodeError) -> str:
    """A status code as the specification calls it."""
    return str(ua.StatusCode(error.code).name)
