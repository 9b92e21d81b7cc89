//! The preamble, which the guard puts in front of a message's body. It holds the raw properties,
//! and the names in the method frame if lapin could not have read them.
//!
//! A body can have any size and hold any bytes, so there is always room, however large the properties are.

use bytes::Bytes;

/// The parts of one message.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::amqp) struct GuardedContent {
    pub(in crate::amqp) body: Bytes,
    /// The property flags and the properties, as in a content header frame.
    pub(in crate::amqp) properties: Bytes,
    /// The names in the method frame, if lapin could not read them.
    pub(in crate::amqp) names: Option<Names>,
}

/// Exchange and routing key of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::amqp) struct Names {
    pub(in crate::amqp) exchange: String,
    pub(in crate::amqp) routing_key: String,
}

/// Appends the preamble.
pub(super) fn write(to: &mut Vec<u8>, names: Option<&Names>, properties: &[u8]) {
    to.push(u8::from(names.is_some()));
    if let Some(names) = names {
        for name in [&names.exchange, &names.routing_key] {
            write_bytes(to, name.as_bytes());
        }
    }
    write_bytes(to, properties);
}

/// Splits the preamble from the body. `None` if the message did not pass the guard.
pub(in crate::amqp) fn split(data: Vec<u8>) -> Option<GuardedContent> {
    let mut rest = Bytes::from(data);
    let names = match split_off(&mut rest, 1)?[0] {
        0 => None,
        _ => Some(Names { exchange: read_text(&mut rest)?, routing_key: read_text(&mut rest)? }),
    };
    let properties = read_bytes(&mut rest)?;
    Some(GuardedContent { body: rest, properties, names })
}

fn write_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    // A frame's size is a 32-bit number, and so is the size of any part of it.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    to.extend_from_slice(&length.to_be_bytes());
    to.extend_from_slice(bytes);
}

fn read_bytes(from: &mut Bytes) -> Option<Bytes> {
    let length = split_off(from, size_of::<u32>())?;
    let length = u32::from_be_bytes(length.as_ref().try_into().ok()?);
    split_off(from, usize::try_from(length).ok()?)
}

fn read_text(from: &mut Bytes) -> Option<String> {
    String::from_utf8(read_bytes(from)?.into()).ok()
}

fn split_off(from: &mut Bytes, count: usize) -> Option<Bytes> {
    (from.len() >= count).then(|| from.split_to(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_front_comes_off_again() {
        let names = Names { exchange: "orders".to_owned(), routing_key: "Köln".to_owned() };
        for names in [None, Some(names)] {
            for (properties, body) in [(&b"\0\0"[..], &b""[..]), (b"\x80\0\x01a", b"{}")] {
                let mut data = Vec::new();
                write(&mut data, names.as_ref(), properties);
                data.extend_from_slice(body);
                let content = split(data.clone()).unwrap();
                assert_eq!((&content.properties[..], &content.body[..]), (properties, body));
                assert_eq!(content.names, names);
                for length in 0..data.len() - body.len() {
                    let mut begun = data.clone();
                    begun.truncate(length);
                    assert_eq!(split(begun), None, "{length}");
                }
            }
        }
    }
}
