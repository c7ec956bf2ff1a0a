"""What a board agreed on: versions of a recommendation, signatures under one, minutes that were given out."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cds_server.access.log import actor_of
from cds_server.board.meetings import CaseRow, MeetingRow, check_open, sealed, who
from cds_server.store.board_tables import BOARD
from cds_server.store.reads import ActReads, Reads
from cds_server.store.vault import Vault
from cds_server.store.writer import Tx
from models.errors import Conflict, NotFound
from smart_app.boards import Draft, Participant, Recommendation, Signature
from smart_app.desk import Role, Viewer

SIGNING = (Role.BOARD_CHAIR, Role.CLINICIAN)
"""In which role somebody signs, the first that they have."""

_VERSIONS = (
    "SELECT id, ref, version, inferences, sealed, at, entry FROM board_recommendation WHERE case_id = ? "
    "ORDER BY version DESC"
)
_SIGNED = (
    "SELECT s.recommendation_id, s.ref, s.role, s.who, s.sealed, s.at, s.entry FROM board_sign_off s "
    "JOIN board_recommendation r ON r.id = s.recommendation_id WHERE r.case_id = ? ORDER BY s.id"
)
_STATE = (
    "SELECT c.id, r.version, (SELECT COUNT(*) FROM board_sign_off s WHERE s.recommendation_id = r.id) "
    "FROM board_case c JOIN board_recommendation r ON r.case_id = c.id WHERE c.meeting_id = ? ORDER BY r.version"
)
_MINUTES = "SELECT ref, sealed FROM board_minutes WHERE recommendation_id = ? ORDER BY id DESC LIMIT 1"
_NEWEST = "SELECT id, ref, version FROM board_recommendation WHERE case_id = ? ORDER BY version DESC LIMIT 1"


@dataclass(frozen=True, slots=True)
class State:
    version: int
    signatures: int


def states(reads: Reads, meeting_id: int) -> Mapping[int, State]:
    """Case -> its newest version and how many signed that; none for a case without a recommendation."""
    return {row[0]: State(int(row[1]), int(row[2])) for row in reads.query(_STATE, (meeting_id,))}


def versions(reads: Reads, case_id: int, vault: Vault, viewer: Viewer) -> tuple[Recommendation, ...]:
    """The newest first."""
    signed: dict[int, list[Signature]] = {}
    me = signer(vault, viewer)
    for of, ref, role, by, cipher, at, entry in reads.query(_SIGNED, (case_id,)):
        told = reads.open_payload(BOARD, ref, cipher)
        mine = bytes(by) == me
        signed.setdefault(of, []).append(Signature(told["by"]["name"], role, at, entry, told["note"], mine))
    found = []
    for row_id, ref, version, inferences, cipher, at, entry in reads.query(_VERSIONS, (case_id,)):
        told = reads.open_payload(BOARD, ref, cipher)
        found.append(
            Recommendation(
                ref=ref,
                version=version,
                draft=_draft(told),
                written_by=told["written_by"]["name"],
                at=at,
                seq=entry,
                inferences=tuple(inferences.split()),
                signatures=tuple(signed.get(row_id, ())),
            )
        )
    return tuple(found)


def _draft(told: Mapping[str, Any]) -> Draft:
    return Draft(
        told["recommendation"],
        told["rationale"],
        told["dissent"],
        tuple(told["follow_up"]),
        tuple(Participant(each["name"], each["role"]) for each in told["participants"]),
    )


def signer(vault: Vault, viewer: Viewer) -> bytes:
    """What tells who signs: the same person signs a version once, by whichever session."""
    return vault.index("board-signer", viewer.ehr or "", viewer.subject)


# ---- acts ------------------------------------------------------------------------------------------------------------


def recommend(
    tx: Tx, viewer: Viewer, row: MeetingRow, of: CaseRow, draft: Draft, after: int, inferences: Sequence[str]
) -> str:
    """A new version after the one that its writer saw. Errors: Conflict."""
    check_open(tx, row.id)
    newest = tx.read(_NEWEST, (of.id,))
    version = int(newest[0][2]) if newest else 0
    if version != after:
        raise Conflict("somebody wrote another version meanwhile: read it, and write yours after it")
    payload = {
        "recommendation": draft.recommendation,
        "rationale": draft.rationale,
        "dissent": draft.dissent,
        "follow_up": list(draft.follow_up),
        "participants": [{"name": each.name, "role": each.role} for each in draft.participants],
        "written_by": who(viewer),
    }
    ref, cipher, commitment = sealed(tx, payload)
    tx.add(
        "board_recommendation",
        ref=ref,
        case_id=of.id,
        version=version + 1,
        inferences=" ".join(inferences),
        sealed=cipher,
        commitment=commitment,
        at=tx.now,
    )
    tx.entry(
        "board-recommendation",
        actor_of(viewer),
        {
            "meeting": row.ref,
            "case": of.ref,
            "recommendation": ref,
            "version": version + 1,
            "inferences": list(inferences),
            "sealed": commitment.hex(),
        },
    )
    return ref


def sign(tx: Tx, viewer: Viewer, row: MeetingRow, of: CaseRow, version: int, note: str) -> Signature:
    """Sign the newest version, once a person. Errors: NotFound, Conflict."""
    check_open(tx, row.id)
    newest = tx.read(_NEWEST, (of.id,))
    if not newest:
        raise NotFound("there is no recommendation to sign")
    recommendation_id, recommendation, current = newest[0]
    if current != version:
        raise Conflict("there is a newer version than the one that you read: read it before you sign")
    me = signer(tx.vault, viewer)
    done = tx.read(
        "SELECT ref, role, sealed, at, entry FROM board_sign_off WHERE recommendation_id = ? AND who = ?",
        (recommendation_id, me),
    )
    if done:
        ref, role, cipher, at, entry = done[0]
        told = ActReads(tx).open_payload(BOARD, ref, cipher)
        return Signature(told["by"]["name"], role, at, entry, told["note"], True)
    role = next(each for each in SIGNING if each in viewer.roles).value
    ref, cipher, commitment = sealed(tx, {"by": who(viewer), "role": role, "note": note})
    tx.add(
        "board_sign_off",
        ref=ref,
        recommendation_id=recommendation_id,
        role=role,
        who=me,
        sealed=cipher,
        commitment=commitment,
        at=tx.now,
    )
    seq = tx.entry(
        "board-sign-off",
        actor_of(viewer),
        {
            "case": of.ref,
            "recommendation": recommendation,
            "version": version,
            "role": role,
            "sign_off": ref,
            "sealed": commitment.hex(),
        },
    ).seq
    return Signature(viewer.name, role, tx.now, seq, note, True)


# ---- minutes ---------------------------------------------------------------------------------------------------------


def given_out(reads: Reads, recommendation: str) -> bytes | None:
    """The minutes that were given out for a version; None: none yet."""
    row = reads.one("SELECT id FROM board_recommendation WHERE ref = ?", (recommendation,))
    found = reads.one(_MINUTES, (row[0],)) if row else None
    return base64.b64decode(reads.open_payload(BOARD, found[0], found[1])["pdf"]) if found else None


def give_out(tx: Tx, viewer: Viewer, row: MeetingRow, of: CaseRow, recommendation: str, pdf: bytes) -> bytes:
    """Keep these minutes, where none were given out for this version; gives those that stand."""
    before = given_out(ActReads(tx), recommendation)
    if before is not None:
        return before
    newest = tx.read(_NEWEST, (of.id,))
    if not newest or newest[0][1] != recommendation:
        raise Conflict("there is a newer version than the one that these minutes are of")
    ref, cipher, commitment = sealed(tx, {"pdf": base64.b64encode(pdf).decode()})
    tx.add(
        "board_minutes",
        ref=ref,
        case_id=of.id,
        recommendation_id=newest[0][0],
        sealed=cipher,
        commitment=commitment,
        at=tx.now,
    )
    tx.entry(
        "board-minutes",
        actor_of(viewer),
        {
            "meeting": row.ref,
            "case": of.ref,
            "recommendation": recommendation,
            "minutes": ref,
            "bytes": len(pdf),
            "sealed": commitment.hex(),
        },
    )
    return pdf
