"""The verb `ask`: what a model would say of the same facts, had some of its inputs been others.

An Inference of its own, on the snapshot of the one that it was asked about: its context says what was set, its Call
that it is a what-if, and its service's name begins with `what-if:`, so that nobody takes it for what was said of the
patient. What was typed never becomes a fact, is shown on no card and sent to nobody.
"""

from __future__ import annotations

from collections.abc import Mapping

from cds_server.decisions import CALL, INFERENCE, Decisions
from cds_server.hooks.routes import Caller
from cds_server.registry import Registry
from cds_server.reproduce import Recorded
from cds_server.store.ready import Names
from cds_server.store.store import Store
from cds_server.store.vault import object_ref
from cds_server.store.writer import Tx
from models.canonical import whole
from models.errors import BadInput
from models.inputs import checked
from models.nouns import Judgement

WHAT_IF = "what-if:"
"""Before the service's id (none has a colon)."""
OUTCOME = "what-if"
"""Of its Call."""
SET, OF, FOCUS = "what_if", "what_if_of", "focus"
"""Members of the snapshot's context: what was set, the inference that it was asked about, and the tumour that is meant
(`Condition/id`), where the base named none."""


def judge(registry: Registry, base: Recorded, inputs: Mapping[str, str], allowed: tuple[str, ...]) -> Judgement:
    """The base's snapshot, judged by the very model version of then, with these inputs.

    Only what is otherwise than in the base is set. Errors: BadInput, naming the input; ModelFault, where that version
    is gone.
    """
    name, _, version = base.model.partition("@")
    scorer = registry.scorer_then(name, version, base.model_digest)
    rules = {rule["name"]: rule for rule in scorer.model.manifest["rules"]}
    then = scorer.judge(base.snapshot)
    found = {feature.name: feature.value for vector in then.vectors for feature in vector.features}
    wanted, focus = {}, None
    for column, text in inputs.items():
        if column == FOCUS:
            focus = _tumour(base, text)
            continue
        if column not in allowed or column not in rules:
            raise BadInput("a what-if input that this model does not have", where="what-if")
        number = checked(rules[column], text.strip().replace(",", "."), where="what-if")
        if number != found.get(column):
            wanted[column] = whole(number)
    if not wanted and focus is None:
        raise BadInput("nothing was set otherwise than it is", where="what-if")
    context = {**base.snapshot.context, OF: base.ref}
    if wanted:
        context[SET] = {**base.snapshot.context.get(SET, {}), **wanted}
    if focus is not None:
        context[FOCUS] = focus
    return scorer.judge(base.snapshot.but(context=context))


def _tumour(base: Recorded, named: str) -> str:
    """One of the conditions that the snapshot holds; never one that somebody typed."""
    if FOCUS in base.snapshot.context:
        raise BadInput("the tumour is chosen already", where="what-if")
    for fact in base.snapshot.facts:
        if fact.kind == "condition" and fact.source.resource == named:
            return named
    raise BadInput("the tumour is none of those on record", where="what-if")


async def ask(
    store: Store, decisions: Decisions, base: Recorded, judgement: Judgement, *, subject: str, ehr: str, actor: str
) -> str:
    """Put a what-if on record: Call, Snapshot, Inference and their entry in one act. Gives the inference's id."""
    names = Names(store.vault.ready)
    ref = names.uuid(INFERENCE)
    service = WHAT_IF + base.service.removeprefix(WHAT_IF)

    def act(tx: Tx) -> None:
        call_ref = names.ref(CALL)
        user = tx.vault.seal(object_ref(CALL, call_ref), subject.encode(), tx.fresh_keys, names)
        call_id = tx.add(
            "call",
            ref=call_ref,
            service=service,
            ehr=ehr,
            outcome=OUTCOME,
            status=200,
            sealed=user.cipher,
            received_at=tx.now,
        )
        record_id = int(tx.read("SELECT record_id FROM inference WHERE id = ?", (base.id,))[0][0])
        _, commitments = decisions.add_inference(tx, service, Caller(ehr), record_id, call_id, ref, judgement, names)
        tx.entry(
            "infer",
            actor,
            {
                "service": service,
                "inference": ref,
                "what_if_of": base.ref,
                "model": judgement.model.id,
                "model_digest": judgement.model.manifest_digest,
                "abstained": judgement.score.abstained is not None,
                **commitments,
            },
        )

    await store.writer.write(act)
    names.done()
    return ref
