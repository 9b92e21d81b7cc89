//! The built-in wording for events of known types. It addresses the customer and claims no more than the event does.

/// Wording for one event type.
pub(crate) struct Wording {
    /// A template.
    pub(crate) subject: &'static str,
    pub(crate) headline: &'static str,
    pub(crate) lead: &'static str,
}

/// Returns the wording, or `None` if the type is unknown.
pub(crate) fn of(event_type: &str) -> Option<Wording> {
    let letters =
        |text: &str| text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    // Matches `OrderPaid`, `order.paid` and `com.example.order_paid`.
    let event_type = letters(event_type);
    let what = KNOWN.iter().find(|(name, ..)| event_type.ends_with(name));
    what.map(|&(_, subject, headline, lead)| Wording { subject, headline, lead })
}

/// Type, subject, headline, lead.
const KNOWN: [(&str, &str, &str, &str); 7] = [
    (
        "ordercreated",
        "Thank you for your order{{ number }}",
        "Thank you for your order",
        "We have received it, and will write to you when it is on its way.",
    ),
    (
        "orderpaid",
        "We have received your payment{{ number }}",
        "We have received your payment",
        "Thank you! Your order is being prepared.",
    ),
    (
        "ordershipped",
        "Your order is on its way{{ number }}",
        "Your order is on its way",
        "It has been handed over for delivery.",
    ),
    ("orderdelivered", "Your order has arrived{{ number }}", "Your order has arrived", "We hope that you like it."),
    ("ordercanceled", "Your order was canceled{{ number }}", "Your order was canceled", "It will not be delivered."),
    ("ordercancelled", "Your order was canceled{{ number }}", "Your order was canceled", "It will not be delivered."),
    (
        "orderrefunded",
        "Your refund is on its way{{ number }}",
        "Your refund is on its way",
        "Your bank may take a few days to show it.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_known_in_every_spelling_of_its_type() {
        for event_type in ["OrderPaid", "order.paid", "com.example.order_paid", "ORDER-PAID"] {
            assert_eq!(of(event_type).unwrap().headline, "We have received your payment", "{event_type}");
        }
        for event_type in ["OrderCreated", "OrderShipped", "OrderDelivered", "OrderCanceled", "OrderRefunded"] {
            assert!(of(event_type).is_some(), "{event_type}");
        }
        assert!(of("UserCreated").is_none() && of("").is_none());
    }
}
