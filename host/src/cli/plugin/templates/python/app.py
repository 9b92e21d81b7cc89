"""{{name}}: a plugin for notify-host. `Handler.handle` is where your work goes.

What there is to import stands in wit/plugin.wit.
"""

import json
import math
from typing import Optional

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.metadata import PluginInfo, Subscription
from wit_world.imports import config, log, types

from message import message

# What an operator may set under [config]: JSON Schema. The host fills in its defaults.
CONFIG_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "greeting": {
            "type": "string",
            "minLength": 1,
            "default": "Thank you",
            "description": "how the message begins",
        },
        "ignore-user": {"type": "string", "description": "whose orders are none of our business"},
    },
}


class Metadata(exports.Metadata):
    """What the plugin is, and what it would like. Asked once, when it is loaded."""

    def describe(self) -> PluginInfo:
        return PluginInfo(
            name="{{name}}",
            version="0.1.0",
            description="Thanks for every order",
            annotations=[],
            config_schema=json.dumps(CONFIG_SCHEMA),
            # `*` is one word of a type, `#` any number of them. Without a subscription: every event.
            subscriptions=[Subscription(event_type="OrderCreated", source=None, subject=None)],
            requests=[],
        )


class Handler(exports.Handler):
    """The work."""

    def handle(self, event: types.Event, delivery: types.Delivery) -> types.Outcome:
        """One attempt at one event, in a fresh instance. After any other exception than `Err` it
        is tried again later."""
        settings = json.loads(config.get_json())
        order = json.loads(event.data)
        if not isinstance(order, dict) or not isinstance(order.get("order_id"), str):
            raise reject("bad-data", "the order has no order_id")
        if "ignore-user" in settings and order.get("user_id") == settings["ignore-user"]:
            return skipped(f"the orders of {order['user_id']} are ignored")
        if not order.get("product"):
            # What may be better later. With a number of milliseconds: not before then.
            raise retry(f"order {order['order_id']} has no product yet")
        fields = [("order_id", order["order_id"]), ("attempt", str(delivery.attempt))]
        log.write(log.Level.INFO, message(settings["greeting"], order), fields)
        return done()


def done(note: Optional[object] = None) -> types.Outcome:
    """Handled. The note (a message id, an HTTP status) is for the operator."""
    return types.Outcome_Done(None if note is None else text(note))


def skipped(reason: object) -> types.Outcome:
    """Looked at, and deliberately not acted on."""
    return types.Outcome_Skipped(text(reason))


def retry(reason: object, after_millis: Optional[float] = None) -> Err:
    """Try this event again: when the host thinks best, or not before so many milliseconds have passed."""
    return Err(types.Failure_Retry(types.Retry(text(reason), whole_number(after_millis))))


def reject(code: str, reason: object) -> Err:
    """This event will never work here: to the dead letters. The code is short, of a-z, 0-9 and -."""
    return Err(types.Failure_Reject(types.Rejection(text(reason), text(code))))


def misconfigured(reason: object) -> Err:
    """No event can work until an operator acts: the host pauses the plugin and keeps its events."""
    return Err(types.Failure_Misconfigured(text(reason)))


def text(value: object) -> str:
    """A string of the contract. It is always well-formed, and an exception becomes its message."""
    return str(value).encode("utf-8", "replace").decode("utf-8")


def whole_number(value: Optional[float]) -> Optional[int]:
    """A u64 of the contract, such as `after` here and `timeout` of an HTTP request. Any other type, sign or size would be
    a trap."""
    if value is None or math.isnan(value):
        return None
    return math.ceil(min(max(value, 0), 2**64 - 1))
