"""An outside change becomes part of the contracts: its texts sealed under the key of its case."""

from datetime import datetime

from connectors.protocol import PlainChange
from contracts.events.cases import CaseChanged, CaseOpened
from services.runtime.vault import CaseKeys


def seal_change(plain: PlainChange, *, door: str, keys: CaseKeys, received_at: datetime) -> CaseChanged:
    """The change as it travels: CaseOpened where it opened the case, else CaseChanged."""
    contract = CaseOpened if plain.opens else CaseChanged
    return contract(
        door=door,
        object_id=plain.object_id,
        kind=plain.kind,
        identity=plain.identity,
        version=plain.version,
        position=plain.position,
        update_id=plain.update_id,
        author=plain.author,
        hint=plain.hint,
        fields=dict(plain.fields),
        texts={name: keys.seal(text) for name, text in plain.texts.items()},
        occurred_at=plain.occurred_at,
        received_at=received_at,
    )
