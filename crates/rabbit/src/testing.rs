use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, ByteArray, DecimalValue, FieldArray, FieldTable, ShortString};
use proptest::prelude::*;

/// Makes a header table.
pub(crate) fn table(entries: &[(&str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert(ShortString::from(*name), value.clone());
    }
    table
}

/// Makes a string as all clients write it.
pub(crate) fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

/// Makes properties that have headers alone.
pub(crate) fn with_headers(entries: &[(&str, AMQPValue)]) -> BasicProperties {
    BasicProperties::default().with_headers(table(entries))
}

/// Makes a message as the client hands it out.
pub(crate) fn arrived(exchange: &str, key: &str, properties: BasicProperties) -> Delivery {
    Delivery { properties, ..Delivery::mock(7, exchange.into(), key.into(), false, b"{}".to_vec()) }
}

/// One value of each type that a server passes on.
pub(crate) fn each_type() -> Vec<(&'static str, AMQPValue)> {
    let inner = table(&[("nested", AMQPValue::LongUInt(7)), ("none", AMQPValue::Void)]);
    let mixed = vec![AMQPValue::Boolean(false), text("x"), AMQPValue::FieldTable(inner.clone())];
    vec![
        ("array", AMQPValue::FieldArray(FieldArray::from(mixed))),
        ("bool", AMQPValue::Boolean(true)),
        ("bytes", AMQPValue::ByteArray(ByteArray::from(&b"\xff\x00"[..]))),
        ("decimal", AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 314 })),
        ("double", AMQPValue::Double(2.5)),
        ("f32", AMQPValue::Float(0.1)),
        ("i16", AMQPValue::ShortInt(-300)),
        ("i32", AMQPValue::LongInt(-70_000)),
        ("i64", AMQPValue::LongLongInt(i64::MIN)),
        ("i8", AMQPValue::ShortShortInt(-3)),
        ("not utf8", AMQPValue::LongString(vec![0xff, 0xfe].into())),
        ("nothing", AMQPValue::Void),
        ("string", text("größe")),
        ("table", AMQPValue::FieldTable(inner)),
        ("time", AMQPValue::Timestamp(u64::MAX)),
        ("u16", AMQPValue::ShortUInt(60_000)),
        ("u32", AMQPValue::LongUInt(u32::MAX)),
        ("u8", AMQPValue::ShortShortUInt(200)),
    ]
}

/// Any value, also those that no server passes on.
pub(crate) fn any_value() -> impl Strategy<Value = AMQPValue> {
    let single = prop_oneof![
        any::<bool>().prop_map(AMQPValue::Boolean),
        any::<i8>().prop_map(AMQPValue::ShortShortInt),
        any::<u8>().prop_map(AMQPValue::ShortShortUInt),
        any::<i16>().prop_map(AMQPValue::ShortInt),
        any::<u16>().prop_map(AMQPValue::ShortUInt),
        any::<i32>().prop_map(AMQPValue::LongInt),
        any::<u32>().prop_map(AMQPValue::LongUInt),
        any::<i64>().prop_map(AMQPValue::LongLongInt),
        prop::num::f32::ANY.prop_map(AMQPValue::Float),
        prop::num::f64::ANY.prop_map(AMQPValue::Double),
        any::<(u8, u32)>().prop_map(|(scale, value)| AMQPValue::DecimalValue(DecimalValue { scale, value })),
        ".{0,9}".prop_map(|text| AMQPValue::ShortString(text.into())),
        prop::collection::vec(any::<u8>(), 0..9).prop_map(|text| AMQPValue::LongString(text.into())),
        "[ -~]{0,60}|00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]".prop_map(|text| AMQPValue::LongString(text.into())),
        any::<u64>().prop_map(AMQPValue::Timestamp),
        prop::collection::vec(any::<u8>(), 0..9).prop_map(|bytes| AMQPValue::ByteArray(bytes.into())),
        Just(AMQPValue::Void),
    ];
    single.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|values| AMQPValue::FieldArray(values.into())),
            any_table_of(inner).prop_map(AMQPValue::FieldTable),
        ]
    })
}

/// Any table, with the names that are read somewhere among others.
pub(crate) fn any_table() -> impl Strategy<Value = FieldTable> {
    any_table_of(any_value())
}

fn any_table_of(value: impl Strategy<Value = AMQPValue>) -> impl Strategy<Value = FieldTable> {
    let name = "[Tt]race[Pp]arent|tracestate|[Bb]aggage|[Cc]ontent-[Tt]ype|CC|x-death|x-delivery-count|retry-attempt|queue|reason|count|time|\
                routing-keys|original-expiration|x-first-death-queue|reply-error|.{0,9}";
    prop::collection::vec((name, value), 0..6).prop_map(|entries| {
        let mut table = FieldTable::default();
        for (name, value) in entries {
            table.insert(name.into(), value);
        }
        table
    })
}

/// Any properties.
pub(crate) fn any_properties() -> impl Strategy<Value = BasicProperties> {
    let texts = prop::collection::vec(prop::option::of(".{0,9}|[0-9]{1,12}|amq\\.gen-x|orders"), 10);
    let headers = prop::option::of(any_table());
    (texts, headers, any::<Option<u8>>(), any::<Option<u8>>(), any::<Option<u64>>()).prop_map(
        |(texts, headers, mode, priority, time)| {
            let setters: [fn(BasicProperties, ShortString) -> BasicProperties; 10] = [
                BasicProperties::with_content_type,
                BasicProperties::with_content_encoding,
                BasicProperties::with_correlation_id,
                BasicProperties::with_reply_to,
                BasicProperties::with_expiration,
                BasicProperties::with_message_id,
                BasicProperties::with_type,
                BasicProperties::with_user_id,
                BasicProperties::with_app_id,
                BasicProperties::with_cluster_id,
            ];
            let texts = texts.into_iter().zip(setters).filter_map(|(text, set)| Some((text?, set)));
            let mut all = texts.fold(BasicProperties::default(), |all, (text, set)| set(all, text.into()));
            if let Some(headers) = headers {
                all = all.with_headers(headers);
            }
            if let Some(mode) = mode {
                all = all.with_delivery_mode(mode);
            }
            if let Some(priority) = priority {
                all = all.with_priority(priority);
            }
            time.map_or(all.clone(), |time| all.with_timestamp(time))
        },
    )
}
