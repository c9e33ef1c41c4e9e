//! The headers of a record as they are. The client reads a name as UTF-8 and panics where it is not, so names
//! are read here, by the functions it is built on.
#![allow(unsafe_code)] // The client has no safe way to read a name that may not be UTF-8, or to remove a header.

use std::ffi::{CStr, c_char, c_void};
use std::{ptr, slice};

use rdkafka::bindings::{
    rd_kafka_header_add, rd_kafka_header_cnt, rd_kafka_header_get_all, rd_kafka_header_remove, rd_kafka_headers_t,
    rd_kafka_resp_err_t,
};
use rdkafka::message::{BorrowedHeaders, OwnedHeaders};

/// A header: its name in whatever bytes it has, and its value, which may be null.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct RawHeader<'a> {
    pub(crate) name: &'a CStr,
    pub(crate) value: Option<&'a [u8]>,
}

/// Iterates over the headers in their order.
pub(crate) fn iter(headers: &BorrowedHeaders) -> impl DoubleEndedIterator<Item = RawHeader<'_>> + Clone {
    // SAFETY: the reference is to the client's own list, which lives as long as the reference.
    let count = unsafe { rd_kafka_header_cnt(native(headers)) };
    (0..count).filter_map(move |index| get(headers, index))
}

fn get(headers: &BorrowedHeaders, index: usize) -> Option<RawHeader<'_>> {
    let (mut name, mut value, mut size) = (ptr::null::<c_char>(), ptr::null::<c_void>(), 0_usize);
    // SAFETY: the list is alive, as above; the client writes to the three places, which are ours, and checks the index.
    let answer = unsafe { rd_kafka_header_get_all(native(headers), index, &mut name, &mut value, &mut size) };
    if answer != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR || name.is_null() {
        return None;
    }
    // SAFETY: the client ends every name with a zero byte. Name and value belong to the list and are changed or freed only
    // through `&mut OwnedHeaders`, which cannot be had while `headers` is borrowed. A value that is not null has `size` bytes.
    unsafe {
        let value = (!value.is_null()).then(|| slice::from_raw_parts(value.cast::<u8>(), size));
        Some(RawHeader { name: CStr::from_ptr(name), value })
    }
}

/// Removes every header whose name is made of exactly these bytes.
pub(crate) fn remove(headers: &mut OwnedHeaders, name: &CStr) {
    // SAFETY: the list is alive and ours alone, since the reference is exclusive. The client takes the name's bytes up to the
    // zero byte and keeps no pointer to them. Its answer only tells whether there was such a header.
    unsafe { rd_kafka_header_remove(native(headers.as_borrowed()).cast_mut(), name.as_ptr()) };
}

/// Appends a header with any name and value.
pub(crate) fn append(headers: &mut OwnedHeaders, name: &[u8], value: Option<&[u8]>) {
    // No slice is longer than an `isize` can say.
    let length = |bytes: &[u8]| isize::try_from(bytes.len()).unwrap_or(isize::MAX);
    let (start, size) = value.map_or((ptr::null(), 0), |value| (value.as_ptr().cast::<c_void>(), length(value)));
    // SAFETY: the list is alive and ours alone, since the reference is exclusive. The client copies name and value, whose
    // lengths are given; it refuses only lists that are not ours to change.
    unsafe {
        rd_kafka_header_add(native(headers.as_borrowed()).cast_mut(), name.as_ptr().cast(), length(name), start, size)
    };
}

/// The client's list: a reference to `BorrowedHeaders` is a reference to it.
fn native(headers: &BorrowedHeaders) -> *const rd_kafka_headers_t {
    ptr::from_ref(headers).cast()
}

#[cfg(test)]
mod tests {
    use rdkafka::message::Header;

    use super::*;

    fn all(headers: &OwnedHeaders) -> Vec<(&[u8], Option<&[u8]>)> {
        iter(headers.as_borrowed()).map(|header| (header.name.to_bytes(), header.value)).collect()
    }

    #[test]
    fn a_name_that_is_not_utf8_is_read() {
        let mut headers = OwnedHeaders::new();
        append(&mut headers, b"\xff\xfe", Some(b"x"));
        assert_eq!(all(&headers), [(&b"\xff\xfe"[..], Some(&b"x"[..]))], "PROP-K-05");
        let read = std::panic::catch_unwind(|| rdkafka::message::Headers::get(headers.as_borrowed(), 0).key.len());
        assert!(read.is_err(), "the client's own way does not panic any more, so this module can go");
    }

    #[test]
    fn null_and_empty_are_two_values() {
        let mut headers = OwnedHeaders::new();
        append(&mut headers, b"null", None);
        append(&mut headers, b"empty", Some(b""));
        append(&mut headers, b"", Some(b"no name"));
        let expected: [(&[u8], Option<&[u8]>); 3] = [(b"null", None), (b"empty", Some(b"")), (b"", Some(b"no name"))];
        assert_eq!(all(&headers), expected);
    }

    #[test]
    fn the_order_is_kept_from_both_ends() {
        let headers = OwnedHeaders::new()
            .insert(Header { key: "a", value: Some("1") })
            .insert(Header { key: "b", value: Some("2") })
            .insert(Header { key: "a", value: Some("3") });
        assert_eq!(
            iter(headers.as_borrowed()).filter_map(|header| header.value).collect::<Vec<_>>(),
            [b"1", b"2", b"3"]
        );
        assert_eq!(iter(headers.as_borrowed()).next_back().and_then(|header| header.value), Some(&b"3"[..]));
        assert_eq!(all(&OwnedHeaders::new()), []);
    }

    #[test]
    fn a_name_is_removed_wherever_it_is_and_no_other() {
        let mut headers = OwnedHeaders::new();
        for name in [&b"a"[..], b"\xff", b"a", b"A", b"ab"] {
            append(&mut headers, name, Some(b"x"));
        }
        remove(&mut headers, c"a");
        remove(&mut headers, c"absent");
        let names: Vec<&[u8]> = all(&headers).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, [&b"\xff"[..], b"A", b"ab"]);
    }
}
