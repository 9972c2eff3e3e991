"""The classifier's settings; the only place of this service that reads the environment."""

from pydantic import Field, SecretStr

from services.runtime.config import RuntimeSettings


class Settings(RuntimeSettings):
    """Complete at start. How sources and Zendesk are reached is read when a process names their connector."""

    model: str | None = None
    """`nearest`, `claude:<model>`, `ollama:<model>`: goes before `model.default` of every process."""
    anthropic_api_key: SecretStr | None = None
    anthropic_url: str | None = None
    ollama_url: str | None = Field(default=None, pattern=r"^https?://")
    ollama_asks_at_once: int = Field(default=1, gt=0)
    """Questions that the machine answers side by side: its OLLAMA_NUM_PARALLEL."""
    asks_at_once: int = Field(default=16, gt=0)
    """Questions that are under way side by side."""
    prices: str | None = None
    """A price list of your own, of the form of prices.toml; what it says of a model goes before what is shipped."""
