use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::names::LONGEST;
use crate::properties::sendable;

/// Returns a whole number as the server takes it; one that is too large is the largest.
pub(super) fn whole(value: u64) -> AMQPValue {
    AMQPValue::LongLongInt(i64::try_from(value).unwrap_or(i64::MAX))
}

/// Puts an argument into a table, or says what is wrong with it, which is told at the start.
pub(super) fn set(table: &mut FieldTable, wrong: &mut Option<String>, name: &str, value: &AMQPValue) {
    match (ShortString::try_new(name), sendable(value)) {
        (Ok(name), Ok(value)) => drop(table.insert(name, value)),
        (Err(_), _) => {
            *wrong = Some(format!(
                "an argument has a name of {} bytes, and AMQP takes {LONGEST} at most: use a shorter one",
                name.len()
            ));
        }
        (_, Err(why)) => *wrong = Some(format!("argument `{name}` cannot be sent: {why}")),
    }
}

/// Puts several arguments into a table.
pub(super) fn table<'a>(
    wrong: &mut Option<String>,
    arguments: impl IntoIterator<Item = (&'a str, AMQPValue)>,
) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        set(&mut table, wrong, name, &value);
    }
    table
}

/// Reads an argument that is a number.
pub(super) fn number(table: &FieldTable, name: &str) -> Option<i64> {
    match table.inner().get(name)? {
        AMQPValue::ShortShortInt(number) => Some(i64::from(*number)),
        AMQPValue::ShortShortUInt(number) => Some(i64::from(*number)),
        AMQPValue::ShortInt(number) => Some(i64::from(*number)),
        AMQPValue::ShortUInt(number) => Some(i64::from(*number)),
        AMQPValue::LongInt(number) => Some(i64::from(*number)),
        AMQPValue::LongUInt(number) => Some(i64::from(*number)),
        AMQPValue::LongLongInt(number) => Some(*number),
        _ => None,
    }
}

/// Reads an argument that is a text.
pub(super) fn text<'a>(table: &'a FieldTable, name: &str) -> Option<&'a str> {
    match table.inner().get(name)? {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
        _ => None,
    }
}
