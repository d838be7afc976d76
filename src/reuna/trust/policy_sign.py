"""A policy is in force when enough of the site's officers have signed it, and it is not an old one.

    signature = Ed25519 over the DSSE v1 pre-authentication encoding of PAYLOAD_TYPE and
                `reuna.trust.policy.canonical`

Who must sign is what the node was told before: the signers of the policy it accepted last, or
of its enrolment. A policy that names other signers needs the old threshold *and* its own, so
that nobody is locked out by a mistyped key. Ed25519: RFC 8032; the encoding:
https://github.com/secure-systems-lab/dsse/blob/master/protocol.md.
"""

from __future__ import annotations

import tomllib

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from reuna.core.errors import SettingsError
from reuna.trust.policy import Policy, Signers, canonical, day_number, day_of, digest
from reuna.trust.policy_keys import DIGEST

PAYLOAD_TYPE = b"application/vnd.reuna.policy.v1"
MAX_SIGNATURES = 64
MAX_SIGNATURE_FILE = 64 * 1024  #: bytes

#: Why a policy is not accepted, and what the officer reads.
REJECTIONS: dict[str, str] = {
    "site": "it is the policy of another site",
    "unknown-signer": "it carries a signature of a key that may not sign it",
    "twice": "it carries two signatures of one key",
    "signature": "a signature does not belong to this text: it was changed after it was signed",
    "too-few": "too few of those who must sign have signed",
    "serial": "its serial is lower than that of a policy that was in force",
    "conflict": "a different policy with the same serial was in force",
    "early": "its first day has not come",
    "expired": "its last day is over",
    "malformed": "the policy or signature file has mistakes",
}


class Signature(msgspec.Struct, frozen=True):
    """One officer's word: public key (64 hex digits) and signature (128 hex digits)."""

    key: str
    signature: str


class Floor(msgspec.Struct, frozen=True):
    """What a node holds a new policy against; kept on its disk. ``serial`` 0: none was accepted yet."""

    site: str
    signers: Signers
    serial: int = 0
    digest: str = ""
    signed_by: tuple[str, ...] = ()


class Accepted(msgspec.Struct, frozen=True):
    """A policy that may come into force, and the floor from then on; that also says who signed it."""

    policy: Policy
    floor: Floor


class Rejected(msgspec.Struct, frozen=True):
    """``reason`` is a word of `REJECTIONS`, ``why`` a sentence."""

    reason: str
    why: str


Verdict = Accepted | Rejected


def sign(policy: Policy, private: Ed25519PrivateKey) -> Signature:
    """One signature over what the policy says."""
    return Signature(
        private.public_key().public_bytes_raw().hex(), private.sign(_authenticated(policy)).hex()
    )


def is_signed(policy: Policy, signature: Signature) -> bool:
    """Whether a signature is of this very policy. A key that is none counts as no."""
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signature.key))
        public.verify(bytes.fromhex(signature.signature), _authenticated(policy))
    except (InvalidSignature, ValueError):
        return False
    return True


def verify(policy: Policy, signatures: tuple[Signature, ...], floor: Floor, now: float) -> Verdict:
    """Whether the policy may come into force at ``now``, seconds since the epoch.

    ``now`` should be the later one of the node's clock and the newest time that was signed for it.
    The very policy that was accepted last is accepted again while it lasts, with the same floor: its
    signatures were counted then, and those of signers that it replaced need not be known any more.
    """
    mark = digest(policy)
    if (policy.site, policy.serial, mark) == (floor.site, floor.serial, floor.digest):
        return standing(policy, now) or Accepted(policy, floor)
    wrong = _identity(policy, floor) or _signatures(policy, signatures, floor) or _age(policy, floor, now)
    if wrong is not None:
        return wrong
    known = _names(policy, floor)
    names = tuple(sorted(known[each.key] for each in signatures))
    return Accepted(policy, Floor(policy.site, policy.signers, policy.serial, mark, names))


def standing(policy: Policy, now: float) -> Rejected | None:
    """None within the policy's days, else why not."""
    today = day_of(now)
    if today < day_number(policy.valid.first):
        return Rejected("early", f"the policy holds from {policy.valid.first} on")
    if today > day_number(policy.valid.last):
        return Rejected("expired", f"the policy held to the end of {policy.valid.last} UTC")
    return None


def _identity(policy: Policy, floor: Floor) -> Rejected | None:
    if policy.site != floor.site:
        return Rejected("site", f"the policy is of site {policy.site}, this node belongs to {floor.site}")
    return None


def _signatures(policy: Policy, signatures: tuple[Signature, ...], floor: Floor) -> Rejected | None:
    names = _names(policy, floor)
    for each in signatures:
        if each.key not in names:
            return Rejected(
                "unknown-signer", f"the key {each.key[:12]}… may not sign the policy of {floor.site}"
            )
    if len({each.key for each in signatures}) != len(signatures):
        return Rejected("twice", "one key has signed twice")
    for each in signatures:
        if not is_signed(policy, each):
            return Rejected(
                "signature",
                f"the signature of {names[each.key]} is not of this policy: it was changed afterwards",
            )
    return _enough(signatures, floor.signers, "in force until now") or _enough(
        signatures, policy.signers, "that the new policy names"
    )


def _names(policy: Policy, floor: Floor) -> dict[str, str]:
    """Key -> whose it is, of all that may sign this policy."""
    return {key: name for name, key in (*policy.signers.keys.items(), *floor.signers.keys.items())}


def _enough(signatures: tuple[Signature, ...], signers: Signers, which: str) -> Rejected | None:
    counted = len({each.key for each in signatures} & set(signers.keys.values()))
    if signers.threshold < 1 or counted < signers.threshold:
        return Rejected(
            "too-few", f"signed by {counted} of the {signers.threshold} signers {which} that must sign"
        )
    return None


def _age(policy: Policy, floor: Floor, now: float) -> Rejected | None:
    if policy.serial < floor.serial:
        return Rejected("serial", f"serial {policy.serial} is lower than {floor.serial}, which was in force")
    if policy.serial == floor.serial:  # and not the same, which is accepted before it comes here
        return Rejected(
            "conflict", f"a different policy with serial {policy.serial} was in force: raise the serial"
        )
    return standing(policy, now)


def _authenticated(policy: Policy) -> bytes:
    """DSSE's PAE: no two (type, body) pairs give the same bytes."""
    body = canonical(policy)
    return b"DSSEv1 %d %b %d %b" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE, len(body), body)


# --- policy.sig ----------------------------------------------------------------------------------


def parse_signatures(text: str, name: str) -> tuple[Signature, ...]:
    """The signatures in a file's text. Raises `SettingsError`."""
    if len(text) > MAX_SIGNATURE_FILE:
        raise SettingsError(f"{name} is longer than {MAX_SIGNATURE_FILE} bytes", _NEXT)
    try:
        tree = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{name} is not valid TOML: {error}", _NEXT) from error
    found = tree.get("signature", [])
    if set(tree) - {"signature"} or not isinstance(found, list) or len(found) > MAX_SIGNATURES:
        raise SettingsError(f"{name} must hold [[signature]] alone, at most {MAX_SIGNATURES}", _NEXT)
    for number, each in enumerate(found, 1):
        if not _is_signature(each):
            raise SettingsError(
                f"{name}: signature {number} needs key and signature, in hexadecimal digits", _NEXT
            )
    return tuple(Signature(each["key"], each["signature"]) for each in found)


def write_signatures(signatures: tuple[Signature, ...]) -> str:
    """The text of a signature file."""
    parts = (f'[[signature]]\nkey = "{each.key}"\nsignature = "{each.signature}"\n' for each in signatures)
    return "\n".join(parts)


def _is_signature(found: object) -> bool:
    if not isinstance(found, dict) or set(found) != {"key", "signature"}:
        return False
    key, signature = found["key"], found["signature"]
    halves = (signature[:64], signature[64:]) if isinstance(signature, str) else ("", "")
    return isinstance(key, str) and not any(DIGEST(part) for part in (key, *halves))


_NEXT = "Remove the signature file and sign again with `reuna policy sign`."
