"""Every error of the house, drawn as one tree.

    CdsError
    |- BadInput                what arrived is wrong; sending it again will not help
    |  |- Malformed            bytes that are not the syntax they claim (JSON, gzip, NDJSON)
    |  |- Unreadable           well-formed, but we cannot take what we need from it
    |  |- ContractBroken       a request that breaks the wire contract (missing context, wrong hook)
    |  |- TooLarge             over a stated limit
    |  |- WrongMediaType       a media type or content coding that this door does not take
    |  |- WrongPatient         data of one patient where another was named: a safety event
    |  `- TooSlow              the sender did not finish its request in time
    |- NotFound                no such service, card, inference, patient, model
    |- Unauthenticated         who calls is not known (401, bare: the cause is for the log only)
    |- Refused                 a rule of ours says no
    |  |- NotAllowed           this caller may not
    |  |- Stopped              the service was stopped on purpose
    |  `- Conflict             the same key was used before for different bytes
    |- DataUnavailable         data that the service needs could not be had (CDS Hooks: 412)
    |- ModelFault              the model cannot be used as it is
    |  |- DigestMismatch       a file is not the one that the manifest names
    |  `- ContractMismatch     the graph's inputs or outputs are not those of the manifest
    |- RecordUnavailable       the record cannot be written or read: no record, no card
    |  |- KeysUnavailable      the key store is missing, or is not the one of this database
    |  |  `- Erased            the key was destroyed on purpose: an erasure, or a time that was over
    |  |- ReadOnlyStore
    |  |- DatabaseGone         the database server does not answer
    |  `- DiskFull
    |- NotInTime               we cannot answer now what we could answer otherwise
    |  |- Late                 the answer was not ready within the deadline
    |  `- Overloaded           more calls than can be answered in time: shed before anything was read
    |- LedgerBroken            the log does not verify
    |- PeerFailed              somebody else's server failed
    `- Misconfigured           a setting is missing or wrong; the start is refused

`status` is the HTTP status that a door answers with, `exit_code` the one of the `cds` command (0 fine, 1 the answer is
no, 2 usage or configuration, 3 a peer failed, 4 refused by policy); `retry` says whether the same act may succeed
later.

A message names what and where. It never carries a value that came from outside: it may be read by anybody.
"""

from __future__ import annotations

from typing import ClassVar


class CdsError(Exception):
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    retry: ClassVar[bool] = False
    code: ClassVar[str] = "exception"
    """Issue type of the OperationOutcome (FHIR R4 value set issue-type)."""

    def __init__(self, what: str, *, where: str | None = None) -> None:
        super().__init__(f"{what} (at {where})" if where else what)
        self.what = what
        self.where = where


class BadInput(CdsError):
    status, code = 400, "invalid"


class Malformed(BadInput):
    code = "structure"


class Unreadable(BadInput):
    code = "value"


class ContractBroken(BadInput):
    code = "required"


class TooLarge(BadInput):
    status, code = 413, "too-long"


class WrongMediaType(BadInput):
    status, code = 415, "not-supported"


class WrongPatient(BadInput):
    code = "conflict"


class TooSlow(BadInput):
    status, code, retry = 408, "timeout", True


class NotFound(CdsError):
    status, code = 404, "not-found"


class Unauthenticated(CdsError):
    status, exit_code, code = 401, 4, "login"

    def __init__(self, what: str = "authentication is required", *, cause: str | None = None) -> None:
        super().__init__(what)
        self.cause = cause
        """For the log only: every caller gets the same answer, whatever the cause."""


class Refused(CdsError):
    status, exit_code, code = 403, 4, "forbidden"


class NotAllowed(Refused):
    def __init__(self, what: str, *, where: str | None = None, glass: bool = False) -> None:
        super().__init__(what, where=where)
        self.glass = glass
        """Whether this caller may look all the same, with a reason that goes on record (break-glass)."""


class Stopped(Refused):
    code = "suppressed"


class Conflict(Refused):
    status, code = 409, "conflict"


class DataUnavailable(CdsError):
    status, code, retry = 412, "incomplete", True


class ModelFault(CdsError):
    status, code = 500, "exception"


class DigestMismatch(ModelFault):
    pass


class ContractMismatch(ModelFault):
    pass


class RecordUnavailable(CdsError):
    status, code, retry = 503, "no-store", True


class KeysUnavailable(RecordUnavailable):
    pass


class Erased(KeysUnavailable):
    status, code, retry = 410, "deleted", False


class ReadOnlyStore(RecordUnavailable):
    pass


class DatabaseGone(RecordUnavailable):
    exit_code = 3


class DiskFull(RecordUnavailable):
    pass


class NotInTime(CdsError):
    status, code, retry = 503, "transient", True


class Late(NotInTime):
    code = "timeout"


class Overloaded(NotInTime):
    code = "throttled"


class LedgerBroken(CdsError):
    status, code = 503, "security"


class PeerFailed(CdsError):
    status, exit_code, code, retry = 502, 3, "transient", True


class Misconfigured(CdsError):
    exit_code, code = 2, "invalid"
