"""The check of the models: a module of its own, for their libraries take seconds to load."""

import contextlib

import asyncpg

from contracts.failures import LaterError, PermanentError
from nightshift import MendableError
from nightshift.doctor.outside import loadable
from nightshift.doctor.verdict import Check, Place, Verdict
from nightshift.reach import database
from services.classifier.config import Settings
from services.classifier.domain.prices import PricesInvalidError
from services.classifier.models import desk_without_database, names_of, provider_of
from services.classifier.outbound.admission import recorded_regimes
from services.runtime.config import MissingSettingError
from services.runtime.process import Process, ProcessInvalidError

_ADMITTED = "SELECT 1 FROM control.regimes WHERE process = $1 AND regime = $2 AND admitted_at IS NOT NULL"


async def models(place: Place) -> list[Verdict]:
    """Each model that may be asked could answer, and has a passed eval on record. None is asked, and nothing paid."""
    settings = Settings(database_url="", kafka_bootstrap="")
    found: list[Verdict] = []
    for process in loadable():
        found += [await _live(place, process, name, settings) for name in names_of(process, settings)]
        if (candidate := process.candidate) is not None:  # nobody waits for its evals, but a service must start with it
            regimes = [await _regime(candidate, name, settings) for name in names_of(candidate, settings)]
            found += [one for one in regimes if isinstance(one, Verdict) and one not in found]
    return found


async def _live(place: Place, process: Process, name: str, settings: Settings) -> Verdict:
    regime = await _regime(process, name, settings)
    if isinstance(regime, Verdict):
        return regime
    if regime in recorded_regimes(process.folder) or await _is_admitted(place, process, regime):
        return Verdict("ok", f"{process.name} may ask {name}")
    mend = (
        f"`nightshift eval {process.name} --model {name} --write`, or `nightshift admit {process.name}` once it waits"
    )
    return Verdict("problem", f"{process.name} is not served: {name} has no passed eval on record", mend)


async def _regime(process: Process, name: str, settings: Settings) -> str | Verdict:
    """By which this model would be asked, or why it cannot be."""
    try:
        provider = provider_of(name, process, settings)
        return desk_without_database(process, name, settings).regime(name, await provider.weights())
    except MissingSettingError as error:
        return Verdict("problem", f"{process.name} cannot ask {name}", str(error))
    except (ProcessInvalidError, PricesInvalidError) as error:
        mend = "correct [model] or [candidate] in process.toml, NIGHTSHIFT_MODEL, your price list, or the file it names"
        return Verdict("problem", f"{process.name}: {error}", mend)
    except (PermanentError, LaterError) as error:
        mend = "start Ollama and get the model (`ollama pull`), or correct NIGHTSHIFT_OLLAMA_URL"
        return Verdict("problem", f"{process.name} cannot ask {name}: {error}", mend)


async def _is_admitted(place: Place, process: Process, regime: str) -> bool:
    # What is wrong with the database its own check says.
    with contextlib.suppress(MendableError, asyncpg.UndefinedTableError):
        async with database(place.state) as connection:
            return await connection.fetchval(_ADMITTED, process.name, regime) is not None
    return False


CHECKS: dict[str, Check] = {"models": models}
