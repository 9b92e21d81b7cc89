//! Reads the content of one message, whatever its row contains.
//!
//! Only this program writes these rows, but a file can be edited, partly restored or damaged. An
//! unreadable row must not end the session: it would be the next row again, and nothing behind it
//! would ever be handled.

use rusqlite::types::ValueRef;
use rusqlite::{OptionalExtension as _, Row, Statement};

use crate::{Message, Unreadable};

/// The content of a row, with the part that could not be read.
#[derive(Debug, Default)]
pub(super) struct RowContent {
    pub(super) exchange: String,
    pub(super) routing_key: String,
    pub(super) message: Message,
    pub(super) unreadable: Option<Box<Unreadable>>,
}

/// Reads one message by its id; `content` selects exchange, routing key, properties and body.
pub(super) fn read(content: &mut Statement<'_>, id: i64) -> rusqlite::Result<RowContent> {
    let read = content.query_row([id], |row| {
        let properties = bytes(row.get_ref(2)?);
        let (properties, mut problem) = match serde_json::from_slice(&properties) {
            Ok(properties) => (properties, None),
            Err(error) => {
                (crate::Properties::default(), Some((format!("its properties cannot be read: {error}"), properties)))
            }
        };
        let body = row.get_ref(3)?;
        if matches!(body, ValueRef::Null) {
            problem.get_or_insert_with(|| ("its body is missing from the file".to_owned(), Vec::new()));
        }
        Ok(RowContent {
            exchange: text(row, 0)?,
            routing_key: text(row, 1)?,
            message: Message { body: bytes(body).into(), properties },
            unreadable: problem
                .map(|(problem, properties)| Box::new(Unreadable { problem, properties: properties.into() })),
        })
    });
    Ok(read.optional()?.unwrap_or_else(|| RowContent {
        unreadable: Some(Box::new(Unreadable {
            problem: "its content is missing from the file".to_owned(),
            properties: bytes::Bytes::new(),
        })),
        ..RowContent::default()
    }))
}

/// Reads a column of any type as text. Text that is not UTF-8 is read as Latin-1.
pub(super) fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    let bytes = bytes(row.get_ref(column)?);
    Ok(String::from_utf8(bytes).unwrap_or_else(|error| error.as_bytes().iter().copied().map(char::from).collect()))
}

fn bytes(value: ValueRef<'_>) -> Vec<u8> {
    match value {
        ValueRef::Null => Vec::new(),
        ValueRef::Integer(number) => number.to_string().into_bytes(),
        ValueRef::Real(number) => number.to_string().into_bytes(),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.to_vec(),
    }
}
