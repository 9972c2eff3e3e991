"""What the model suggests for a ticket. Untrusted: parsing proves its shape, rules.py decides about its content."""

from typing import Annotated, Final, Literal

from pydantic import Field, Strict

from contracts.base import Contract
from contracts.proposed import Proposed

Intent = Literal[
    "cancel_order",
    "change_order",
    "change_shipping_address",
    "check_cancellation_fee",
    "check_invoice",
    "check_payment_methods",
    "check_refund_policy",
    "complaint",
    "contact_customer_service",
    "contact_human_agent",
    "create_account",
    "delete_account",
    "delivery_options",
    "delivery_period",
    "edit_account",
    "get_invoice",
    "get_refund",
    "newsletter_subscription",
    "payment_issue",
    "place_order",
    "recover_password",
    "registration_problems",
    "review",
    "set_up_shipping_address",
    "switch_account",
    "track_order",
    "track_refund",
    "out_of_scope",
]
"""The 27 intents of the Bitext customer support data set, and what fits none of them."""

REFUND_MAX: Final = 1_000_000
Urgency = Literal["low", "normal", "high", "urgent"]
Sentiment = Literal["negative", "neutral", "positive"]
Priority = Literal["low", "normal", "high", "urgent"]
Word = Annotated[str, Field(min_length=1, max_length=100)]


class Reply(Contract):
    """Send the draft to the customer."""

    name: Literal["reply"] = "reply"


class Tag(Contract):
    """Add a tag. Only tags that the policy lists are added."""

    name: Literal["tag"] = "tag"
    tag: Word


class SetPriority(Contract):
    """Set the ticket's priority. Only priorities that the policy lists are set."""

    name: Literal["set_priority"] = "set_priority"
    priority: Priority


class Route(Contract):
    """Hand the ticket to a group, by the name the policy gives it."""

    name: Literal["route"] = "route"
    group: Word


class Refund(Contract):
    """Ask the billing group for a refund, in the currency of the order. No money is moved here."""

    name: Literal["refund"] = "refund"
    order_id: Word
    """The order number."""
    amount: Annotated[float, Strict(), Field(gt=0, le=REFUND_MAX, allow_inf_nan=False)]


class Escalate(Contract):
    """A person should look at this."""

    name: Literal["escalate"] = "escalate"


class DeleteAccount(Contract):
    """The customer wants the account gone. Never done by software."""

    name: Literal["delete_account"] = "delete_account"


Suggestion = Annotated[
    Reply | Tag | SetPriority | Route | Refund | Escalate | DeleteAccount, Field(discriminator="name")
]


class Proposal(Proposed):
    """One suggestion for one basis of a ticket."""

    intent: Intent
    urgency: Urgency
    language: Annotated[str, Field(pattern=r"^[a-z]{2}$")]
    """The customer's language, ISO 639-1. The reply is to be in the same one."""
    sentiment: Sentiment
    reply: Annotated[str, Field(max_length=20_000)]
    """The draft, plain text, without signature (the brand's is added when it is rendered)."""
    citations: Annotated[tuple[Word, ...], Field(max_length=20)] = ()
    """Ids of the knowledge passages that the reply rests on."""
    actions: Annotated[tuple[Suggestion, ...], Field(max_length=20)] = ()
    """What to do. A draft that is to be sent needs `reply` among them."""

    @property
    def label(self) -> str:
        """The intent."""
        return self.intent
