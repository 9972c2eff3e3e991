"""A regime: all that an answer depends on, the case and its facts apart."""

import hashlib
import json

from contracts.events.proposals import MadeFrom


def regime_of(made_from: MadeFrom) -> str:
    """Digest of model, prompt, schema, examples and knowledge. Equal regimes answer alike, as far as a model does.

    Limits of the rules are no part of it: they change what is done about an answer, and are tested as rules.
    """
    parts = made_from.model_dump(mode="json", include={"model", "prompt", "output_schema", "examples", "index_version"})
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
