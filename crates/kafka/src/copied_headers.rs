use bytes::Bytes;
use opentelemetry::propagation::Extractor;
use throughline_core::Headers;
use throughline_core::message::NativeHeaders;
use throughline_core::propagation::lookup::{self, Repeated};

use crate::carrier;
use crate::raw_headers::RawHeader;

/// The headers of a record, copied out of the client's memory one behind the other: of each the lengths of name and value, and both.
#[derive(Clone, Debug, Default)]
pub(crate) struct CopiedHeaders(Bytes);

/// What stands for the length of a value that is null. No record is as long.
const NULL: u32 = u32::MAX;

impl CopiedHeaders {
    /// Takes what [`write`](Self::write) wrote.
    pub(crate) const fn new(written: Bytes) -> Self {
        Self(written)
    }

    /// Writes a header behind others.
    pub(crate) fn write(bytes: &mut Vec<u8>, header: &RawHeader<'_>) {
        let name = header.name.to_bytes();
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(NULL);
        bytes.extend_from_slice(&length(name).to_le_bytes());
        bytes.extend_from_slice(&header.value.map_or(NULL, length).to_le_bytes());
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(header.value.unwrap_or_default());
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells whether of the headers of exactly that name that have no value or an empty one, the one at that place has none.
    pub(crate) fn is_null(&self, name: &str, place: usize) -> bool {
        let of_name = self.iter().filter(|(own, _)| *own == name.as_bytes());
        let without_text = of_name.filter(|(_, value)| value.is_none_or(<[u8]>::is_empty));
        without_text.map(|(_, value)| value).nth(place).is_some_and(|value| value.is_none())
    }

    fn iter(&self) -> Iter<'_> {
        Iter(&self.0)
    }
}

struct Iter<'a>(&'a [u8]);

impl<'a> Iterator for Iter<'a> {
    type Item = lookup::Entry<'a>;

    fn next(&mut self) -> Option<lookup::Entry<'a>> {
        let (name, rest) = self.0.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_first_chunk::<4>()?;
        let (name, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*name)).ok()?)?;
        let (value, rest) = match u32::from_le_bytes(*value) {
            NULL => (None, rest),
            length => {
                let (value, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                (Some(value), rest)
            }
        };
        self.0 = rest;
        Some((name, value))
    }
}

impl NativeHeaders for CopiedHeaders {
    fn as_extractor(&self) -> &dyn Extractor {
        self
    }

    fn to_headers(&self) -> Headers {
        let shared = |value: Option<&[u8]>| value.map(|value| self.0.slice_ref(value));
        carrier::read(self.iter().count(), self.iter().map(|(name, value)| (name, shared(value))))
    }
}

impl Extractor for CopiedHeaders {
    fn get(&self, key: &str) -> Option<&str> {
        lookup::value(self.iter(), key, Repeated::Last)
    }

    fn keys(&self) -> Vec<&str> {
        lookup::names(self.iter())
    }

    fn get_all(&self, key: &str) -> Option<Vec<&str>> {
        lookup::values(self.iter(), key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(headers: &[(&std::ffi::CStr, Option<&[u8]>)]) -> CopiedHeaders {
        let mut bytes = Vec::new();
        for (name, value) in headers {
            CopiedHeaders::write(&mut bytes, &RawHeader { name, value: *value });
        }
        CopiedHeaders::new(bytes.into())
    }

    #[test]
    fn of_several_the_last_exact_one_counts() {
        let headers = copied(&[
            (c"Tenant", Some(b"other")),
            (c"tenant", Some(b"first")),
            (c"tenant", Some(b"last")),
            (c"tenant", Some(b"")),
            (c"tenant", None),
            (c"TENANT", Some(b"other")),
        ]);
        assert_eq!(headers.get("tenant"), Some("last"), "PROP-K-03");
        assert_eq!(headers.get_all("tenant"), Some(vec!["first", "last"]), "PROP-12");
        assert_eq!(headers.get("TeNaNt"), Some("other"), "PROP-03");
        assert_eq!((headers.get("absent"), headers.get_all("absent")), (None, None));
    }

    #[test]
    fn names_of_any_bytes_and_null_values_are_kept_apart() {
        let headers = copied(&[(c"\xff", Some(b"x")), (c"null", None), (c"empty", Some(b"")), (c"a", Some(b"1"))]);
        assert_eq!(headers.iter().collect::<Vec<_>>().len(), 4);
        assert_eq!(headers.keys(), ["null", "empty", "a"], "PROP-K-05");
        assert_eq!(headers.to_headers().iter().map(|(name, _)| name).collect::<Vec<_>>(), ["null", "empty", "a"]);
        assert!(copied(&[]).is_empty());
    }
}
