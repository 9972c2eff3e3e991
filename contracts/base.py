"""The base of everything that is written to a topic, a ledger or a log."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, JsonValue

Json = dict[str, JsonValue]


class Contract(BaseModel):
    """An immutable value of the wire. Unknown fields are ignored: an older reader meets a newer optional field."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="null")


class Fact(Contract):
    """The payload of one event type. The version is part of `TYPE`, on the wire and never derived from a class name."""

    TYPE: ClassVar[str]
    TOPIC: ClassVar[str]
