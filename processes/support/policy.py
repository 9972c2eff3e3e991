"""Every limit of the support process, as process.toml's [policy] sets it: checked at start, and none has a default."""

from decimal import Decimal
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from processes.support.steps.answer.output import Intent, Priority, Sentiment, Urgency

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Money = Annotated[Decimal, Field(ge=0)]
Phrases = tuple[Annotated[str, Field(min_length=2, max_length=100)], ...]
Names = tuple[Annotated[str, Field(min_length=1, max_length=100)], ...]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Brand(_Table):
    """How one brand signs."""

    name: str
    signatures: dict[str, str]
    """By language: one for each that is answered."""


class Refunds(_Table):
    """What may be asked of the billing group without a person. All amounts are in the order's own currency."""

    limit_by_currency: dict[Annotated[str, Field(pattern=r"^[A-Z]{3}$")], Money]
    """Most that one decision may refund, and most that one order may get in all; other currencies go to a person."""
    confidence_min: Share
    group: str
    """One of `groups`."""
    tag: str
    amount_field_id: int
    """The ticket field that the billing group reads the amount from."""


class Phrasebook(_Table):
    """What customers write that software must not answer; each entry is matched as whole words, whatever the case."""

    legal: Phrases
    deletion: Phrases
    instructions: Phrases
    """Attempts to tell the machine what to do."""
    automatic: Phrases
    """Out-of-office notes, automatic replies, bounces."""


class Policy(_Table):
    """The limits by which rules.py decides and effects.py renders."""

    channels: Names
    languages: Annotated[Names, Field(min_length=1)]
    """The first one also signs handovers in any other."""
    intents: tuple[Intent, ...]
    """What may be answered without a person."""
    confidence_min: Share
    urgencies_held_when_negative: tuple[Urgency, ...]
    held_sentiments: tuple[Sentiment, ...]

    message_characters_max: Count
    reply_characters_max: Count
    messages_per_ticket_hold_at: Annotated[int, Field(ge=2)]
    """The customer's message of this ordinal in one ticket, answered or not, goes to a person."""
    recent_tickets_max: Count
    recent_tickets_days: Count
    other_open_tickets_max: Count
    effects_per_case_hour_hold_at: Annotated[int, Field(ge=1)]
    surge_factor: Annotated[float, Field(gt=1)]
    surge_count_min: Count
    surge_history_hours_min: Annotated[float, Field(ge=0)]

    hold_tags: Names
    release_tag: str
    """A person who had the ticket sets it to give the ticket back."""
    assignees_not_persons: Names
    """User ids of queues and bots: a ticket assigned to them is nobody's."""

    tags: Names
    """Tags that may be added."""
    priorities: tuple[Priority, ...]
    groups: dict[str, int]
    """Groups that a ticket may be routed to: name and Zendesk group id."""
    status_after_reply: Annotated[str, Field(pattern=r"^(open|pending|solved)$")]
    reply_tag: str
    handover_tag: str
    handover_group: str
    """One of `groups`."""
    notice_urgencies: tuple[Urgency, ...]
    notice_reasons: Names
    """Codes of reasons that somebody is told of at once."""

    refunds: Refunds
    phrases: Phrasebook
    brands: dict[str, Brand]
    """By Zendesk brand id; `default` signs for the rest."""

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for setting, group in (("handover_group", self.handover_group), ("refunds.group", self.refunds.group)):
            if group not in self.groups:
                raise ValueError(f"{setting}: {group!r} is not in [policy.groups]; add it there, or name one that is")
        if "default" not in self.brands:
            raise ValueError("[policy.brands.default] is missing: it signs for brands without an entry of their own")
        for brand_id, brand in self.brands.items():
            if missing := {*self.languages} - {*brand.signatures}:
                raise ValueError(f"brands.{brand_id}.signatures: add one for {', '.join(sorted(missing))}")
        return self
