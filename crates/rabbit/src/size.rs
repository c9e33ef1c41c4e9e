use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use throughline_core::PublishError;
use throughline_core::broker::PublishErrorKind;

/// What a frame has around its content: type, channel, length and end.
const FRAME: usize = 8;

/// What stands before the properties: class, weight, size of the body, and which properties there are.
const BEFORE_PROPERTIES: usize = 14;

/// Which part of a frame is left free: with each delivery and each dead letter the server adds headers of its own, and sends them in a frame
/// that is too large then. That would end the connection of the consumer, each time the message comes.
const RESERVE: u32 = 32;

/// Fails where the properties of a message do not fit in one frame: the server would end the connection, with all that is under way on it.
// PROP-R-07.
pub(crate) fn check(properties: &BasicProperties, frame_max: u32) -> Result<(), PublishError> {
    // Zero is no limit.
    let most = match frame_max - frame_max / RESERVE {
        0 => return Ok(()),
        most => usize::try_from(most).unwrap_or(usize::MAX),
    };
    let size = of_header(properties);
    if size <= most {
        return Ok(());
    }
    let message = format!(
        "the properties and headers of the message have {size} bytes, and with frames of {frame_max} bytes {most} are the most: \
         move what is large to the body, or raise `frame_max` at the server"
    );
    Err(PublishError::new(PublishErrorKind::TooLarge, "too_large", message))
}

/// Returns how many bytes the frame with the properties has.
fn of_header(properties: &BasicProperties) -> usize {
    let texts = [
        properties.content_type(),
        properties.content_encoding(),
        properties.correlation_id(),
        properties.reply_to(),
        properties.expiration(),
        properties.message_id(),
        properties.kind(),
        properties.user_id(),
        properties.app_id(),
        properties.cluster_id(),
    ];
    let texts: usize = texts.into_iter().flatten().map(of_short).sum();
    let bytes = [properties.delivery_mode(), properties.priority()].into_iter().flatten().count();
    let time = properties.timestamp().map_or(0, |_| 8);
    let headers = properties.headers().as_ref().map_or(0, of_table);
    FRAME + BEFORE_PROPERTIES + texts + bytes + time + headers
}

fn of_short(text: &ShortString) -> usize {
    1 + text.as_str().len()
}

fn of_table(table: &FieldTable) -> usize {
    4 + table.into_iter().map(|(name, value)| of_short(name) + of_value(value)).sum::<usize>()
}

/// Returns how many bytes a value has with its type.
fn of_value(value: &AMQPValue) -> usize {
    1 + match value {
        AMQPValue::Void => 0,
        AMQPValue::Boolean(_) | AMQPValue::ShortShortInt(_) | AMQPValue::ShortShortUInt(_) => 1,
        AMQPValue::ShortInt(_) | AMQPValue::ShortUInt(_) => 2,
        AMQPValue::LongInt(_) | AMQPValue::LongUInt(_) | AMQPValue::Float(_) => 4,
        AMQPValue::DecimalValue(_) => 5,
        AMQPValue::LongLongInt(_) | AMQPValue::Double(_) | AMQPValue::Timestamp(_) => 8,
        AMQPValue::ShortString(text) => of_short(text),
        AMQPValue::LongString(text) => 4 + text.len(),
        AMQPValue::ByteArray(bytes) => 4 + bytes.len(),
        AMQPValue::FieldArray(values) => 4 + values.as_slice().iter().map(of_value).sum::<usize>(),
        AMQPValue::FieldTable(table) => of_table(table),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use lapin::protocol::basic::gen_properties;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{any_properties, each_type, text, with_headers};

    /// How many bytes the client writes.
    fn written(properties: &BasicProperties) -> usize {
        let mut room = vec![0; 1 << 16];
        let written = gen_properties(properties)(Cursor::new(&mut room[..]).into()).unwrap();
        // Type, channel and length; class, weight and size of the body; the end.
        7 + 12 + usize::try_from(written.position).unwrap() + 1
    }

    #[test]
    fn every_type_has_the_size_that_the_client_writes() {
        for (name, value) in each_type() {
            let properties = with_headers(&[(name, value)]);
            assert_eq!(of_header(&properties), written(&properties), "{name}");
        }
    }

    #[test]
    fn what_does_not_fit_in_a_frame_is_refused_with_both_sizes() {
        let around = of_header(&with_headers(&[("big", text(""))]));
        let filled = |bytes: usize| with_headers(&[("big", text(&"x".repeat(bytes)))]);
        assert!(check(&filled(126_976 - around), 131_072).is_ok(), "PROP-R-07");
        let error = check(&filled(126_977 - around), 131_072).unwrap_err();
        assert_eq!((error.kind(), error.error_type()), (PublishErrorKind::TooLarge, "too_large"));
        let text = error.to_string();
        assert!(text.contains("126977 bytes") && text.contains("131072 bytes 126976 are the most"), "{text}");
        assert!(check(&filled(1_000_000), 0).is_ok(), "no limit");
    }

    proptest! {
        #[test]
        fn any_properties_have_the_size_that_the_client_writes(properties in any_properties()) {
            prop_assert_eq!(of_header(&properties), written(&properties));
        }
    }
}
