//! Baggage with values that are easily changed on the way, and what each implementation makes of them.

use std::collections::BTreeMap;

use crate::handlers::Note;
use crate::world::{Services, arrived, map};

/// Values that arrive as they were set, whoever sends them. No key is one that the relays set.
const ODD: [(&str, &str); 12] = [
    ("backslash", "\\"),
    ("comma", "a,b"),
    ("crab", "\u{1f980}"),
    ("empty", ""),
    ("equals", "a=b=c"),
    ("escaped", "%20%2C"),
    ("letters", "gr\u{fc}\u{df}e"),
    ("percent", "50%"),
    ("plus", "1+1=2"),
    ("quotes", "\"a\""),
    ("semicolon", "a;b=c"),
    ("space", "two words"),
];

/// As many entries as there may be.
const MANY: usize = 60;

fn many() -> BTreeMap<String, String> {
    (0..MANY).map(|number| (format!("key{number:02}"), format!("value {number}").replace(' ', "-"))).collect()
}

fn and(mut entries: BTreeMap<String, String>, key: &str, value: &str) -> BTreeMap<String, String> {
    entries.insert(key.to_owned(), value.to_owned());
    entries
}

fn borrowed(entries: &BTreeMap<String, String>) -> Vec<(&str, &str)> {
    entries.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

/// What the other service makes of entries that it reads.
#[derive(Clone, Copy)]
pub(crate) enum Reads {
    All,
    /// Node and Java take an entry without a value for none.
    AllButEmpty,
}

impl Reads {
    fn of(self, mut entries: BTreeMap<String, String>) -> BTreeMap<String, String> {
        entries.retain(|_, value| matches!(self, Self::All) || !value.is_empty());
        entries
    }
}

/// Sends odd and many values from each end to the other one and back.
pub(crate) async fn is_equal_on_both_ends(mut services: Services, reads: Reads) {
    for sent in [map(&ODD), many()] {
        from_them(&mut services, &sent, reads).await;
        from_us(&mut services, &sent, reads).await;
    }
    services.end().await;
}

/// From them to us and back to them.
async fn from_them(services: &mut Services, sent: &BTreeMap<String, String>, reads: Reads) {
    services.they_publish("rust.relay", &["x"], &borrowed(sent)).await;
    let note = services.note().await;
    assert_eq!(note, Note { place: "relay", body: "x".to_owned(), baggage: sent.clone() });
    let back = arrived(&services.peer.noted("end").await);
    assert_eq!(back, ("x by rust".to_owned(), and(reads.of(sent.clone()), "rust", "was here")));
}

/// From us to them and back to us.
async fn from_us(services: &mut Services, sent: &BTreeMap<String, String>, reads: Reads) {
    services.we_publish("relay", &["x"], &borrowed(sent)).await;
    let read = reads.of(sent.clone());
    assert_eq!(arrived(&services.peer.noted("relay").await), ("x".to_owned(), read.clone()));
    let back = if services.language == "python" { and(read, "python", "was here") } else { read };
    assert_eq!(
        services.note().await,
        Note { place: "end", body: format!("x by {}", services.language), baggage: back }
    );
}
