"""The classifier's settings; the only place of this service that reads the environment."""

from pydantic import Field, SecretStr

from services.runtime.config import RuntimeSettings


class Settings(RuntimeSettings):
    """Complete at start. Addresses of sources are settings that process.toml names."""

    model: str | None = None
    """`nearest`, `claude:<model>`: goes before `model.default` of every process."""
    anthropic_api_key: SecretStr | None = None
    anthropic_url: str | None = None
    asks_at_once: int = Field(default=16, gt=0)
    """Questions that are under way side by side."""
    zendesk_url: str | None = None
    zendesk_email: str | None = None
    zendesk_token: SecretStr | None = None
    zendesk_user_id: str = ""
    """The user that Nightshift writes as: its changes are ours."""
