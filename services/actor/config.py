"""The actor's settings; the only place of this service that reads the environment."""

from pydantic import Field

from services.runtime.config import RuntimeSettings, named_setting, required_setting


class Settings(RuntimeSettings):
    """Complete at start. Addresses and secrets of destinations are read when a process names their connector."""

    zendesk_user_id: str | None = None
    """The user that Nightshift writes as; where it is not set, Zendesk is asked who the credentials belong to."""
    decide_batch_max: int = Field(default=64, gt=0)
    decide_lease_seconds: float = Field(default=15, gt=0)


class ZendeskAccount:
    """How Zendesk is reached. Raises MissingSettingError."""

    def __init__(self) -> None:
        self.url = required_setting("NIGHTSHIFT_ZENDESK_URL")
        self.email = required_setting("NIGHTSHIFT_ZENDESK_EMAIL")
        self.token = required_setting("NIGHTSHIFT_ZENDESK_TOKEN")


def slack_url() -> str | None:
    """The incoming webhook's address; without it notices are not sent."""
    return named_setting("NIGHTSHIFT_SLACK_URL")
