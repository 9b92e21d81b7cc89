//! An order event reports a change of one order, as flat JSON that any language can read.
//!
//! The first four keys are always present, in this order: `event`, `order_id`, `user_id`, `product`. Unknown values
//! are `null`, so that consumers can read all four without checks. Other keys appear only if they have a value.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use uuid::Uuid;

/// Status of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Status {
    /// The customer has ordered.
    Created,
    /// The order is paid.
    Paid,
    /// The order is on its way.
    Shipped,
    /// The order has arrived.
    Delivered,
    /// The order will not be delivered.
    Canceled,
    /// The money was returned.
    Refunded,
}

impl Status {
    /// Every status, in the order of an order's life.
    pub(crate) const ALL: [Self; 6] =
        [Self::Created, Self::Paid, Self::Shipped, Self::Delivered, Self::Canceled, Self::Refunded];

    /// Returns the name on the command line, e.g. `created`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Paid => "paid",
            Self::Shipped => "shipped",
            Self::Delivered => "delivered",
            Self::Canceled => "canceled",
            Self::Refunded => "refunded",
        }
    }

    /// Returns the value of the JSON's `event`.
    pub(crate) fn event_name(self) -> &'static str {
        match self {
            Self::Created => "OrderCreated",
            Self::Paid => "OrderPaid",
            Self::Shipped => "OrderShipped",
            Self::Delivered => "OrderDelivered",
            Self::Canceled => "OrderCanceled",
            Self::Refunded => "OrderRefunded",
        }
    }

    /// Returns the routing key.
    pub(crate) fn routing_key(self) -> &'static str {
        match self {
            Self::Created => "order.created",
            Self::Paid => "order.paid",
            Self::Shipped => "order.shipped",
            Self::Delivered => "order.delivered",
            Self::Canceled => "order.canceled",
            Self::Refunded => "order.refunded",
        }
    }
}

impl FromStr for Status {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|status| status.name() == text)
            .ok_or_else(|| format!("unknown status {text:?}; expected one of {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// Serializes as the event's name.
impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.event_name())
    }
}

/// One event. The fields' order is the order of the JSON's keys.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct OrderEvent {
    /// New status of the order.
    #[serde(rename = "event")]
    pub(crate) status: Status,
    /// Order id.
    pub(crate) order_id: String,
    /// Customer id.
    pub(crate) user_id: Option<String>,
    /// Product name.
    pub(crate) product: Option<String>,
    /// Optional details.
    #[serde(flatten)]
    pub(crate) details: Details,
}

/// Optional details of an event.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Details {
    /// Number of items.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) quantity: Option<u32>,
    /// Amount charged, paid or refunded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) price: Option<Price>,
    /// Currency of the price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) currency: Option<Currency>,
    /// Carrier of the shipment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) carrier: Option<String>,
    /// Tracking number of the shipment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tracking_number: Option<String>,
    /// Reason of a cancellation or refund.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

impl OrderEvent {
    /// Returns the event as JSON text.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        // This cannot fail: every key is text, and every value can be serialized.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// Generates an id for a new order.
pub(crate) fn new_order_id() -> String {
    Uuid::new_v4().to_string()
}

/// An amount of money that keeps its digits: `1999.90` stays `1999.90`.
///
/// In JSON it is a number. It has few enough digits that a consumer reading it into a double gets the same amount.
#[derive(Clone, Debug)]
pub(crate) struct Price(Box<RawValue>);

impl Price {
    /// Maximum digits; a double preserves 15 decimal digits.
    const DIGITS_MAX: usize = 15;
    /// Maximum decimals; no currency in use has more than four.
    const DECIMALS_MAX: usize = 4;

    /// Converts from cents.
    pub(crate) fn from_cents(cents: u32) -> Self {
        let text = format!("{}.{:02}", cents / 100, cents % 100);
        Self::raw(text).unwrap_or_else(|_| unreachable!("digits, a point and two digits are a JSON number"))
    }

    fn raw(text: String) -> Result<Self, serde_json::Error> {
        RawValue::from_string(text).map(Self)
    }
}

impl FromStr for Price {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let valid = digits(whole)
            && digits(decimals)
            && decimals.len() <= Self::DECIMALS_MAX
            && whole.len() + decimals.len() <= Self::DIGITS_MAX;
        // JSON adds a rule of its own: no leading zeros.
        valid
            .then(|| Self::raw(text.to_owned()).ok())
            .flatten()
            .ok_or_else(|| "expected an amount like 1999 or 1999.90".to_owned())
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.get())
    }
}

impl Serialize for Price {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// A currency by its three letters (ISO 4217), in capitals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Currency(String);

impl Currency {
    /// Returns EUR.
    pub(crate) fn euro() -> Self {
        Self("EUR".to_owned())
    }
}

impl FromStr for Currency {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            Ok(Self(text.to_ascii_uppercase()))
        } else {
            Err("expected three letters, like EUR".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(status: Status, details: Details) -> String {
        let event = OrderEvent {
            status,
            order_id: "4711".to_owned(),
            user_id: Some("user123".to_owned()),
            product: Some("iPhone 15".to_owned()),
            details,
        };
        String::from_utf8(event.to_json()).unwrap()
    }

    #[test]
    fn a_plain_order_is_the_four_keys_that_every_consumer_knows() {
        assert_eq!(
            event(Status::Created, Details::default()),
            r#"{"event":"OrderCreated","order_id":"4711","user_id":"user123","product":"iPhone 15"}"#
        );
    }

    #[test]
    fn details_follow_the_four_keys() {
        let details = Details {
            quantity: Some(2),
            price: Some("1999.90".parse().unwrap()),
            currency: Some("eur".parse().unwrap()),
            ..Details::default()
        };
        let json = event(Status::Paid, details);
        assert!(json.ends_with(r#""product":"iPhone 15","quantity":2,"price":1999.90,"currency":"EUR"}"#), "{json}");
    }

    #[test]
    fn what_is_not_known_is_null() {
        let event = OrderEvent {
            status: Status::Canceled,
            order_id: "4711".to_owned(),
            user_id: None,
            product: None,
            details: Details { reason: Some("out of stock".to_owned()), ..Details::default() },
        };
        assert_eq!(
            String::from_utf8(event.to_json()).unwrap(),
            r#"{"event":"OrderCanceled","order_id":"4711","user_id":null,"product":null,"reason":"out of stock"}"#
        );
    }

    #[test]
    fn a_status_is_one_word_in_its_name_event_and_routing_key() {
        for status in Status::ALL {
            assert_eq!(status.routing_key(), format!("order.{}", status.name()));
            assert_eq!(status.event_name().to_lowercase(), format!("order{}", status.name()));
            assert_eq!(status.name().parse(), Ok(status));
        }
        assert!("cancelled".parse::<Status>().unwrap_err().contains("canceled"));
    }

    #[test]
    fn an_amount_keeps_its_digits() {
        for text in ["0", "0.99", "1999", "1999.90", "12345678901.2345"] {
            assert_eq!(text.parse::<Price>().unwrap().to_string(), text);
        }
        for text in ["", ".", "1.", ".5", "-1", "+1", "1e3", "01", "1,5", "1.23456", "123456789012345.6", "free", "1 "]
        {
            assert!(text.parse::<Price>().is_err(), "{text}");
        }
        assert_eq!(Price::from_cents(105).to_string(), "1.05");
        assert_eq!(Price::from_cents(u32::MAX).to_string(), "42949672.95");
    }
}
