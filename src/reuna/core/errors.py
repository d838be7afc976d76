"""Every error Reuna raises on purpose, split by whose fault it is.

    ReunaError
    ├── UserError            what was asked cannot be done                 exit 2
    │   ├── SettingsError      R101  a settings file has mistakes
    │   ├── ProjectError       R102  the project's code or layout is wrong
    │   ├── DataError          R103  a node's data cannot be used
    │   │   └── ContractBroken   R114  a node's data break the contract
    │   ├── PlanError          R104  a plan that could not be summed exactly
    │   ├── RunNotFound        R105  no run of that name
    │   ├── ExtraMissing       R106  an optional extra is not installed
    │   ├── LearnerError       R107  a learner breaks its port or failed
    │   ├── KeyProblem         R108  a key or the trust folder cannot be used so
    │   ├── LedgerProblem      R109  a ledger cannot be opened, written or exported so
    │   ├── AccountProblem     R110  an account, a proposal or a request to the cloud cannot be taken so
    │   ├── NotReproduced      R111  a run or a build cannot be made again, or gave other bits
    │   ├── ReleaseNotFound    R112  no release of that version or name
    │   ├── NotReleased        R113  a run's model may not be released
    │   ├── NotHeld            R115  not every edge holds the newest release in time
    │   ├── DatabaseTooNew     R116  a newer version of Reuna wrote that database
    │   ├── RunProblem         R117  a run cannot be begun from that, resumed or retried
    │   ├── NoReadings         R118  a source gave no reading of some of its tags
    │   ├── AlarmNotFound      R119  there is no such alarm
    │   ├── NotLive            R120  a release cannot answer what is read now
    │   └── RolloutProblem     R121  a rollout cannot be begun or ordered so
    ├── DeviceError          this machine cannot do it                     exit 3
    │   ├── ServerMissing      R201  no nats-server
    │   ├── ServerTooOld       R202  a nats-server below the oldest we run on
    │   ├── PortInUse          R203  another process listens there
    │   ├── ServerFailed       R204  a server ended or never became ready
    │   ├── WorkerFailed       R205  the training process ended
    │   └── SandboxTooWeak     R206  this machine confines code less than the node asks
    ├── PeerError            the other side misbehaved or is away          exit 4
    │   ├── BusDown            R301  no message could be passed on in time
    │   ├── PermissionDenied   R302  this identity may not do that
    │   ├── Refused            R303  the peer refused a contribution
    │   ├── Unreachable        R304  no connection to the peer
    │   ├── BadMessage         R305  bytes that are not a message of ours
    │   ├── BlobNotFound       R306  the peer does not hold that blob
    │   ├── RunFailed          R307  the run ended without a model
    │   ├── Untrusted          R308  what came down is not signed as it must be
    │   ├── NotAdmitted        R309  a token, request or certificate was refused
    │   ├── NotSignedIn        R310  nobody is signed in, or with a wrong password
    │   ├── TooMany            R311  asked too often
    │   └── NotApproved        R312  code waits for the approval of a site's officers
    └── StorageError         the disk did not do its part                  exit 5
        ├── DiskFull           R401  no space left
        ├── Corrupted          R402  bytes on disk or on the wire changed
        ├── JournalError       R403  the journal of a run cannot go on
        └── NotUsable          R404  a file or folder may not be read or written here

Each error says what happened to which thing; ``next_step`` says what to do about it.
Codes are never reused.
"""

from __future__ import annotations

from typing import ClassVar


class ReunaError(Exception):
    """Root of the tree; never raised itself."""

    code: ClassVar[str] = "R000"
    exit_status: ClassVar[int] = 1
    default_next_step: ClassVar[str] = "Run it again as `reuna --debug …` to see where it happened."

    def __init__(self, message: str, next_step: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step or self.default_next_step

    def __str__(self) -> str:
        return self.message


class UserError(ReunaError):
    """What was asked cannot be done as asked."""

    exit_status = 2


class SettingsError(UserError):
    """A settings file, environment variable or flag has mistakes; all of them are listed."""

    code = "R101"
    default_next_step = "Correct each line named above; `reuna check` validates the file again."


class ProjectError(UserError):
    """The project's code or folder layout is wrong."""

    code = "R102"
    default_next_step = "Compare with a fresh project made by `reuna init`."


class DataError(UserError):
    """A node's data cannot be used: missing columns, no rows, wrong type."""

    code = "R103"
    default_next_step = "Compare the node's folder with docs/reference/data-folder.md."


class ContractBroken(DataError):
    """A node's data break the project's contract: too many fail one of its rules."""

    code = "R114"
    default_next_step = (
        "Correct the data, or the contract in reuna.toml; `reuna contract check` counts rule by rule."
    )


class PlanError(UserError):
    """The plan's bits, weights and cohort could overflow an exact sum."""

    code = "R104"
    default_next_step = "Lower grid bits, max_weight or the cohort until the bound holds."


class RunNotFound(UserError):
    """No run of that name under the runs folder."""

    code = "R105"
    default_next_step = "List the runs with `reuna runs`."


class ReleaseNotFound(UserError):
    """No release of that version or name in the catalogue."""

    code = "R112"
    default_next_step = "List the releases with `reuna release list`."


class NotReleased(UserError):
    """A run's model may not be released."""

    code = "R113"
    default_next_step = "Look at every site: `reuna gate`."


class NotHeld(UserError):
    """Not every edge holds the newest release that is for it when the time was over."""

    code = "R115"
    default_next_step = (
        "See which does not, and why: `reuna release where`; the logs of those edges say more."
    )


class DatabaseTooNew(UserError):
    """A newer version of Reuna has brought that database to a schema that this one does not know."""

    code = "R116"
    default_next_step = "Run the version of Reuna that wrote it, or a newer one."

    def __init__(self, where: str, found: str, known: str) -> None:
        super().__init__(f"{where} has schema {found}, this version of Reuna knows up to {known}")
        self.found = found
        self.known = known


class RunProblem(UserError):
    """A run cannot be begun from what is named, resumed or retried."""

    code = "R117"
    default_next_step = "See where it is: `reuna runs --fleet FLEET`."


class NoReadings(UserError):
    """A source gave no reading of some of its tags in the time given."""

    code = "R118"
    default_next_step = "Compare names and columns in its settings; give it longer with `--seconds`."


class AlarmNotFound(UserError):
    """There is no alarm of that number, or it ended so long ago that it is forgotten."""

    code = "R119"
    default_next_step = "See which there are: `reuna watch`."


class NotLive(UserError):
    """A release cannot answer what is read now: of its contract or of the sources something is missing."""

    code = "R120"
    default_next_step = "Compare the contract of its project with the sources: docs/how-to/live.md."


class RolloutProblem(UserError):
    """A rollout cannot be begun from what is named, or takes no such order any more."""

    code = "R121"
    default_next_step = "See where it is: `reuna rollout status --fleet FLEET`."


class ExtraMissing(UserError):
    """An optional extra is not installed."""

    code = "R106"


class LearnerError(UserError):
    """A learner returned something its port does not allow, or raised."""

    code = "R107"
    default_next_step = "Run the shipped checks on it: `reuna.checks.check_learner(learner, data)`."


class KeyProblem(UserError):
    """A signing key, its passphrase or the trust folder cannot be used as asked."""

    code = "R108"
    default_next_step = "See the keys and roles with `reuna trust show`."


class LedgerProblem(UserError):
    """A ledger cannot be opened, written or exported as asked."""

    code = "R109"
    default_next_step = "Compare with docs/how-to/ledger.md; nothing was written."


class AccountProblem(UserError):
    """What was asked about an account or a proposal, or of the cloud's API, cannot be taken so."""

    code = "R110"
    default_next_step = "Compare with `reuna people --help` and docs/reference/api.md."


class NotReproduced(UserError):
    """A finished run or a build cannot be made again from what lies here, or that gave other bits."""

    code = "R111"
    default_next_step = "Replay it with the code, the data and the versions that it was made with."


class DeviceError(ReunaError):
    """This machine cannot do it."""

    exit_status = 3


class ServerMissing(DeviceError):
    """No nats-server on this machine."""

    code = "R201"
    default_next_step = "Install nats-server 2.11 or newer, or `pip install 'reuna[server]'`."


class ServerTooOld(DeviceError):
    """A nats-server below the oldest version we run on."""

    code = "R202"
    default_next_step = "Install nats-server 2.11 or newer, or `pip install 'reuna[server]'`."


class PortInUse(DeviceError):
    """Another process listens on the port."""

    code = "R203"
    default_next_step = "Stop that process or choose another port in the settings."


class ServerFailed(DeviceError):
    """A server we supervise ended or never became ready."""

    code = "R204"


class WorkerFailed(DeviceError):
    """The training process ended without an answer."""

    code = "R205"
    default_next_step = "See the node's log for the worker's last lines."


class SandboxTooWeak(DeviceError):
    """The sandbox of this machine reaches a lower level than the node asks for."""

    code = "R206"
    default_next_step = "See with `reuna sandbox` how to get what is missing, or lower `sandbox.min_level`."


class PeerError(ReunaError):
    """The other side misbehaved or is away."""

    exit_status = 4


class BusDown(PeerError):
    """No message could be passed on within the time given."""

    code = "R301"
    default_next_step = "Check that the parent's nats-server runs and can be reached."


class PermissionDenied(PeerError):
    """This identity may not do that."""

    code = "R302"
    default_next_step = "Use the certificate of the node that the request names."


class Refused(PeerError):
    """A contribution was refused; ``reason`` is a stable word, see ``REFUSALS``.

    ``until``: it may be asked again then (seconds since the epoch), or once the site's policy changed.
    """

    code = "R303"
    default_next_step = "The round goes on without this contribution; nothing has to be done."

    def __init__(self, reason: str, message: str, until: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.until = until


class Unreachable(PeerError):
    """No connection to the peer."""

    code = "R304"
    default_next_step = "Check address, port and certificates of the parent in the settings."


class BadMessage(PeerError):
    """Bytes that are not a message of ours."""

    code = "R305"
    default_next_step = "Check that both sides run a version with the same protocol number."


class BlobNotFound(PeerError):
    """The peer does not hold a blob of that digest."""

    code = "R306"


class RunFailed(PeerError):
    """The run ended without a model."""

    code = "R307"
    default_next_step = "Correct what the nodes name, see their own logs, and run again."


class Untrusted(PeerError):
    """What came down was not accepted; ``reason`` is a stable word, see ``DISTRUST``."""

    code = "R308"
    default_next_step = "Nothing was taken over. Look up the reason in docs/reference/errors.md."

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class NotAdmitted(PeerError):
    """A token, request or certificate was refused; ``reason`` is a stable word, see ``ADMISSION``."""

    code = "R309"
    default_next_step = "Ask whoever runs the fleet for a new token: `reuna site invite`."

    def __init__(self, reason: str, message: str, next_step: str | None = None) -> None:
        super().__init__(message, next_step)
        self.reason = reason


class NotSignedIn(PeerError):
    """No session, or one that has ended; or name and password do not belong together."""

    code = "R310"
    default_next_step = "Sign in: `reuna login`."


class TooMany(PeerError):
    """Asked too often; it may be asked again later."""

    code = "R311"
    default_next_step = "Wait, and try again."


class NotApproved(PeerError):
    """Pushed code waits until the officers of a site let it run there."""

    code = "R312"
    default_next_step = "An officer of the site looks at it: `reuna code review`, `reuna code approve`."


class StorageError(ReunaError):
    """The disk did not do its part."""

    exit_status = 5


class DiskFull(StorageError):
    """No space left on the device."""

    code = "R401"
    default_next_step = "Free space in the folder named; work goes on by itself."


class Corrupted(StorageError):
    """Bytes on disk or on the wire are not those that were written."""

    code = "R402"
    default_next_step = "The copy is set aside and fetched again; check the disk if it recurs."


class JournalError(StorageError):
    """The journal of a run cannot go on."""

    code = "R403"


class NotUsable(StorageError):
    """A file or folder is not where it was named, or this user may not read or write it."""

    code = "R404"
    default_next_step = "Check the path, and that this user may read and write there."


#: Why a contribution can be refused, and what the operator reads.
REFUSALS: dict[str, str] = {
    "malformed": "the message cannot be read",
    "oversized": "the message is larger than its plan allows",
    "identity": "the sender's certificate is not of the node it names",
    "not-invited": "the node is not in the plan's cohort",
    "stale": "the round is over or was replaced",
    "closed": "the round was closed before it arrived",
    "plan": "it was made for another plan",
    "shape": "the number of values or their width differs from the plan",
    "weight": "the weight is not between 1 and the plan's largest",
    "range": "a value lies outside the grid",
    "metrics": "a metric is not a finite number, or there are too many",
    "absence": "its reason to give nothing is not of the closed list, or comes with numbers",
    "digest": "the bytes do not match the digest",
    "conflict": "another contribution for the same key was already accepted",
    "not-finite": "the update has a value that is not a finite number",
    "replayed": "a head of a ledger that lies before one that was shown already",
    "signature": "a head of a ledger is not signed by its node",
    "full": "the fog is asked about more windows than it can answer",
    "late": "the fog had no answer while the edge waited",
    "no-model": "the fog runs no release of that project",
    "slow": "a transfer brought, or took, hardly a byte and was given up",
    "flood": "more connections or requests than one node may have",
    "windows": "the release at the fog takes windows of other rows",
}

#: Why a node gives nothing to a round: the code of its error, and the words that leave with it. What
#: the error says may quote data; it stays in the node's own log, and in its event where the site's
#: policy lets logs leave.
ABSENCES: dict[str, str] = {
    "R000": "it could not take part",
    "R101": "a setting of the run is wrong",
    "R102": "the project's code or layout is wrong",
    "R103": "its data cannot be used",
    "R104": "the plan could overflow a sum",
    "R106": "an optional extra is not installed",
    "R107": "the learner failed",
    "R114": "its data break the contract",
    "R205": "the training process ended",
    "R206": "its sandbox is weaker than is asked for",
    "R303": "its site's policy or its egress refuses it",
    "R304": "its egress or a peer is away",
    "R305": "it runs an older version that does not know what is asked",
    "R308": "what came down is not signed as it must be",
    "R312": "the code waits for the approval of this site's officers",
    "R401": "its disk is full",
    "R402": "its disk has changed bytes",
    "R404": "a file or folder of its own cannot be used",
}

#: Why what came down can be refused, and what the operator reads.
DISTRUST: dict[str, str] = {
    "malformed": "the bytes cannot be read as what they should be",
    "oversized": "it is longer than its kind may be",
    "missing": "something that must be there is not",
    "signature": "too few of the keys that must sign have signed",
    "version": "it is older than what is trusted already, or skips a version",
    "expired": "its time is over; somebody may hold back newer ones",
    "mismatch": "it is not the file that its parent names",
    "keys": "the set of keys is not allowed: one twice, of another kind, or both offline and online",
    "fleet": "it is of another fleet",
    "kind": "this role may not say that, or it is of another kind or format than ours",
    "unknown": "no role names it",
    "replayed": "it was accepted before and something newer came since",
    "conflict": "two different ones carry the same number",
}

#: Why a node is not admitted to the fleet, and what the operator reads.
ADMISSION: dict[str, str] = {
    "malformed": "the token or the request cannot be read",
    "unknown": "no such invitation or node here",
    "used": "the token was used before",
    "expired": "the token's time is over, or a certificate ended longer ago than the grace period",
    "cancelled": "the invitation was cancelled",
    "fingerprint": "the server that answers is not of the fleet that the token names",
    "revoked": "the node was revoked",
    "taken": "the name or the host belongs to another node",
    "limit": "the site has as many edges as it may",
    "key": "the key is of a kind or size that is not certified, or does not sign its request",
    "certificate": "the certificate is not one that this authority gave to this node",
    "role": "this identity may not ask for that",
}
