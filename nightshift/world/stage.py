"""Where a night is prepared: its steps by time, its people and their messages, and what happened, to check against."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from contracts.base import Json
from nightshift.world.faults import Faults
from nightshift.world.model import AGENT_ID, Ticket, User
from nightshift.world.shop import Customer, Order
from nightshift.world.zendesk import Zendesk

_MESSAGES = Path(__file__).with_name("messages.jsonl")


@dataclass(frozen=True, slots=True)
class Said:
    """A real customer's message."""

    intent: str
    subject: str
    text: str


@dataclass
class Facts:
    """What happened, for a summary to be checked against."""

    tickets: dict[str, list[int]] = field(default_factory=dict)
    """Ticket ids by kind of scene."""
    never_answer: dict[int, str] = field(default_factory=dict)
    """Tickets that no software may answer publicly, and why."""
    customer_comments: int = 0
    """Written by the script; auto-responders write more."""
    refused: int = 0
    """Steps that the help desk refused, since somebody deleted or closed the ticket meanwhile."""

    def json(self) -> Json:
        """The facts as the world tells them."""
        return {
            "tickets": {kind: list(ids) for kind, ids in self.tickets.items()},
            "tickets_total": sum(map(len, self.tickets.values())),
            "never_answer": {str(ticket_id): why for ticket_id, why in self.never_answer.items()},
            "customer_comments": self.customer_comments,
            "refused": self.refused,
        }


@dataclass
class Opened:
    """A ticket of the script, once it is written."""

    who: User
    id: int = 0


class Stage:
    """Where scenes put their steps. A time is a fraction of the night."""

    def __init__(self, zendesk: Zendesk, faults: Faults, random: Random, customers: list[Customer]) -> None:
        self.zendesk = zendesk
        self.faults = faults
        self.random = random
        self.facts = Facts()
        self.opened = 0
        self.steps: list[tuple[float, int, Callable[[], None]]] = []
        self._customers = customers
        self._messages = messages()
        random.shuffle(self._messages)
        self._next_message = 0

    def then(self, at: float, do: Callable[[], object]) -> None:
        """Do something at that time of the night."""

        def step() -> None:
            do()

        self.steps.append((at, len(self.steps), step))

    def customer(self, *, suits: Callable[[Order], bool] = lambda _: True) -> tuple[User, Order]:
        """Somebody who has not written tonight, and an order that suits. Raises NightTooLongError."""
        for index, customer in enumerate(self._customers):
            for order in customer.orders:
                if suits(order):
                    del self._customers[index]
                    return self.zendesk.add_customer(customer.name, customer.email, user_id=customer.id), order
        raise NightTooLongError(len(self._customers))

    def message(self) -> Said:
        """The next real message; after the last comes the first again."""
        self._next_message += 1
        return self._messages[(self._next_message - 1) % len(self._messages)]

    def opens(
        self,
        at: float,
        kind: str,
        who: User,
        subject: str,
        text: str,
        *,
        never: str | None = None,
        channel: str = "email",
        assignee_id: int | None = None,
        attachments: tuple[str, ...] = (),
        submitter_id: int | None = None,
    ) -> Opened:
        """A new ticket. `never` says why no software may answer it."""
        opened = Opened(who)
        brand = 7002 if who.id % 4 == 0 else 7001

        def write() -> None:
            ticket: Ticket = self.zendesk.create(
                who.id,
                subject,
                text,
                channel=channel,
                brand_id=brand,
                assignee_id=assignee_id,
                attachments=attachments,
                submitter_id=submitter_id,
            )
            opened.id = ticket.id
            self.opened += 1
            self.facts.tickets.setdefault(kind, []).append(ticket.id)
            self.facts.customer_comments += submitter_id is None
            if never is not None:
                self.facts.never_answer[ticket.id] = never

        self.then(at, write)
        return opened

    def adds(self, at: float, ticket: Opened, text: str) -> None:
        """The customer writes again."""

        def write() -> None:
            self.zendesk.comment(ticket.id, ticket.who.id, text)
            self.facts.customer_comments += 1

        self.then(at, write)

    def agent(self, at: float, ticket: Opened, text: str, *, status: str | None = None) -> None:
        """A person answers publicly."""
        change: Json = {"comment": {"body": text, "public": True}}
        if status is not None:
            change["status"] = status
        self.then(at, lambda: self.zendesk.update(ticket.id, change, actor_id=AGENT_ID, channel="web"))


class NightTooLongError(Exception):
    """The shop has too few customers for so many tickets."""

    def __init__(self, left: int) -> None:
        super().__init__(f"no customer suits any more ({left} are left): play fewer tickets")


def messages() -> list[Said]:
    """The real messages, in the order of the file."""
    return [Said(**json.loads(line)) for line in _MESSAGES.read_text().splitlines()]


def filled(text: str, order: Order) -> str:
    """A message about this customer's own order."""
    return (
        text.replace("{{Order Number}}", order.number)
        .replace("{{Invoice Number}}", order.invoice_number)
        .replace("{{Refund Amount}}", str(order.total))
    )
