"""Staff: who is signed in, and the sandbox's made-up people."""

TEXTS = {
    "staff.title": "Signed in",
    "staff.you": "You are signed in as",
    "staff.roles": "Your roles here",
    "staff.no_role": "You have no role here. Metrics and ledger may be open to you; patients are not.",
    "staff.board": "Tumour board",
    "staff.queue": "Work queue",
    "staff.out": "Sign out",
    "staff.out_title": "Signed out",
    "staff.out_told": "Your session here is over. Where you signed in, you may still be signed in.",
    "staff.in_again": "Sign in again",
    "staff.sandbox_title": "Sign in to the sandbox",
    "staff.sandbox_warning": "Sandbox. These people are made up, anybody on this machine may be one of them, and what "
    "they do is put on record as their doing. This page does not exist where an identity provider is configured.",
    "staff.sandbox_as": "Sign in as {name}",
    "role.clinician": "clinician",
    "role.board-chair": "board chair",
    "role.data-scientist": "data scientist",
    "role.compliance": "compliance officer",
    "role.auditor": "auditor",
}
