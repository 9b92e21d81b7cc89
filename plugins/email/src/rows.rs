//! The rows of event data in the built-in mail.

use notify_plugin::Event;
use serde_json::Value;

const ROWS_MAX: usize = 30;
const VALUE_CHARACTERS_MAX: usize = 500;

/// Members of order events, as order-cli and others write them, with their labels.
const OF_ORDERS: [(&str, &str); 9] = [
    ("order_id", "Order"),
    ("product", "Product"),
    ("quantity", "Quantity"),
    ("price", "Price"),
    ("total", "Total"),
    ("carrier", "Carrier"),
    ("tracking_number", "Tracking number"),
    ("reason", "Reason"),
    ("delivery_date", "Delivery"),
];

/// Returns the order number as the suffix of a subject, like ` (4711)`.
pub(crate) fn number(event: &Event, data: &Value) -> String {
    let number = data.get("order_id").and_then(text).or_else(|| event.subject.clone()).unwrap_or_default();
    if number.is_empty() { String::new() } else { format!(" ({})", crate::one_line(&number)) }
}

/// Returns names and values. Known events show the members that matter to customers, others all simple members.
pub(crate) fn rows(event: &Event, data: &Value, is_known: bool) -> Vec<(String, String)> {
    if is_known {
        let row = |(key, name): (&str, &str)| {
            let value = text(data.get(key)?)?;
            let currency = data.get("currency").and_then(text).unwrap_or_default();
            let is_money = matches!(key, "price" | "total") && !currency.is_empty();
            Some((name.to_owned(), if is_money { format!("{} {currency}", money(value)) } else { value }))
        };
        return OF_ORDERS.into_iter().filter_map(row).collect();
    }
    let attributes =
        [("Type", Some(&event.event_type)), ("Subject", event.subject.as_ref()), ("Time", event.time.as_ref())];
    let attributes = attributes.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.clone())));
    let members = data.as_object().into_iter().flatten();
    let members = members.filter_map(|(key, value)| Some((key.clone(), text(value)?)));
    attributes.chain(members).take(ROWS_MAX).collect()
}

/// Adds a trailing zero: JSON's `189.50` is the number 189.5.
fn money(amount: String) -> String {
    let has_one_place = amount.rsplit_once('.').is_some_and(|(_, places)| places.len() == 1);
    if has_one_place { amount + "0" } else { amount }
}

/// Returns the text of a value that is simple enough for one line.
fn text(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(yes) => yes.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    if text.chars().count() <= VALUE_CHARACTERS_MAX {
        return Some(text);
    }
    Some(text.chars().take(VALUE_CHARACTERS_MAX).chain(['…']).collect())
}
