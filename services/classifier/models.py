"""The models of a process by their names, and how each is shown a question where there is no database."""

from collections.abc import Sequence

from services.classifier.config import Settings
from services.classifier.domain.regime import NEAREST
from services.classifier.outbound import ollama
from services.classifier.outbound.desk import KnowledgeDesk, library_of
from services.classifier.outbound.nearest import Nearest
from services.classifier.outbound.passages_in_memory import PassagesInMemory
from services.classifier.outbound.patient import PatientProvider
from services.classifier.outbound.price_list import known_models, price_of
from services.classifier.ports import Provider
from services.runtime.config import MissingSettingError
from services.runtime.process import Process, ProcessInvalidError

CLAUDE = "claude"


def models_of(process: Process, settings: Settings) -> list[PatientProvider]:
    """The models of a process in the order in which they are asked. Raises what provider_of raises."""
    return [PatientProvider(provider_of(name, process, settings)) for name in names_of(process, settings)]


def names_of(process: Process, settings: Settings) -> list[str]:
    """The first choice, then each fallback."""
    return list(dict.fromkeys([process.first_choice(settings.model), *process.settings.model.fallback]))


def desk_without_database(process: Process, model: str, settings: Settings) -> KnowledgeDesk:
    """Shows a model what the service would show it, as it is asked in the settings, or as a first choice."""
    names = names_of(process, settings)
    asked = names if model in names else [model, *process.settings.model.fallback]
    library = library_of(process)
    return KnowledgeDesk(process, PassagesInMemory(library, process.settings.retrieval) if searches(asked) else None)


def provider_of(name: str, process: Process, settings: Settings) -> Provider:
    """`nearest`, `claude:<model>` or `ollama:<model>`.

    Raises ProcessInvalidError, PricesInvalidError, MissingSettingError.
    """
    if name == NEAREST:
        return Nearest(process)
    vendor, _, model = name.partition(":")
    if vendor not in {CLAUDE, ollama.VENDOR} or not model:
        raise ProcessInvalidError(
            f"there is no model {name!r}: name `{NEAREST}`, or `{CLAUDE}:` or `{ollama.VENDOR}:` and a model, which is "
            f"{known_models(settings.prices)}"
        )
    price = price_of(vendor, model, settings.prices)
    if vendor == ollama.VENDOR:
        if settings.ollama_url is None:
            raise MissingSettingError("NIGHTSHIFT_OLLAMA_URL")
        return ollama.Ollama(
            model=model,
            price=price,
            url=settings.ollama_url,
            context_tokens=process.settings.model.context_tokens,
            asks_at_once=settings.ollama_asks_at_once,
            timeout_seconds=process.settings.model.timeout_seconds,
        )
    if settings.anthropic_api_key is None:
        raise MissingSettingError("NIGHTSHIFT_ANTHROPIC_API_KEY")
    from services.classifier.outbound.claude import Claude  # noqa: PLC0415  # its library takes seconds to load

    return Claude(
        model=model,
        price=price,
        api_key=settings.anthropic_api_key.get_secret_value(),
        base_url=settings.anthropic_url,
        timeout_seconds=process.settings.model.timeout_seconds,
    )


def searches(models: Sequence[str]) -> bool:
    """`nearest` answers by label, and so are its passages found, in memory; a search finds it no better ones."""
    return any(name != NEAREST for name in models)
