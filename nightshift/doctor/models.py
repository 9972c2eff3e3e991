"""The check of the models: a module of its own, for their libraries take seconds to load."""

import contextlib

import asyncpg

from contracts.failures import LaterError, PermanentError
from nightshift import MendableError
from nightshift.doctor.outside import loadable
from nightshift.doctor.verdict import Check, Place, Verdict, fine
from nightshift.reach import database
from services.classifier.app import desk_without_database, names_of, provider_of
from services.classifier.config import Settings
from services.classifier.domain.prices import PricesInvalidError
from services.classifier.outbound.admission import recorded_regimes
from services.runtime.config import MissingSettingError
from services.runtime.process import Process, ProcessInvalidError

_ADMITTED = "SELECT 1 FROM control.regimes WHERE process = $1 AND regime = $2 AND admitted_at IS NOT NULL"


async def models(place: Place) -> list[Verdict]:
    """Each model that may be asked could answer, and has a passed eval on record. None is asked, and nothing paid."""
    settings = Settings(database_url="", kafka_bootstrap="")
    return [
        verdict
        for process in loadable()
        for name in names_of(process, settings)
        for verdict in await _model(place, process, name, settings)
    ]


async def _model(place: Place, process: Process, name: str, settings: Settings) -> list[Verdict]:
    try:
        provider = provider_of(name, process, settings)
        weights = await provider.weights()
        regime = desk_without_database(process, name, settings).regime(name, weights)
    except MissingSettingError as error:
        return [Verdict("problem", f"{process.name} cannot ask {name}", str(error))]
    except (ProcessInvalidError, PricesInvalidError) as error:
        mend = "correct [model] in process.toml, NIGHTSHIFT_MODEL, or your price list"
        return [Verdict("problem", f"{process.name}: {error}", mend)]
    except (PermanentError, LaterError) as error:
        mend = "start Ollama and get the model (`ollama pull`), or correct NIGHTSHIFT_OLLAMA_URL"
        return [Verdict("problem", f"{process.name} cannot ask {name}: {error}", mend)]
    if regime in recorded_regimes(process.folder) or await _is_admitted(place, process, regime):
        return fine(f"{process.name} may ask {name}")
    mend = (
        f"`nightshift eval {process.name} --model {name} --write`, or `nightshift admit {process.name}` once it waits"
    )
    return [Verdict("problem", f"{process.name} is not served: {name} has no passed eval on record", mend)]


async def _is_admitted(place: Place, process: Process, regime: str) -> bool:
    # What is wrong with the database its own check says.
    with contextlib.suppress(MendableError, asyncpg.UndefinedTableError):
        async with database(place.state) as connection:
            return await connection.fetchval(_ADMITTED, process.name, regime) is not None
    return False


CHECKS: dict[str, Check] = {"models": models}
