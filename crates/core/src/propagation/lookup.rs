//! How a header is found among those of a message, whatever client they are of.
//!
//! Names are compared without regard to ASCII case, an exact match wins. A value that is null, empty or not UTF-8 is treated as absent.

/// Which value of a name counts, where there are several.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Repeated {
    /// The first one counts.
    First,
    /// The last one counts.
    Last,
}

/// A header: its name, and its value, which may be null.
pub type Entry<'a> = (&'a [u8], Option<&'a [u8]>);

/// Returns the value of a name that counts.
///
/// # Examples
///
/// ```
/// use throughline_core::propagation::lookup::{self, Repeated};
///
/// let headers = [(&b"Tenant"[..], Some(&b"other"[..])), (b"tenant", Some(b"acme")), (b"tenant", Some(b"last"))];
/// assert_eq!(lookup::value(headers.into_iter(), "tenant", Repeated::First), Some("acme"));
/// assert_eq!(lookup::value(headers.into_iter(), "tenant", Repeated::Last), Some("last"));
/// ```
pub fn value<'a>(headers: impl Iterator<Item = Entry<'a>>, name: &str, repeated: Repeated) -> Option<&'a str> {
    let (mut exact, mut other) = (None, None);
    for (is_exact, value) in usable(headers, name) {
        let place = if is_exact { &mut exact } else { &mut other };
        match repeated {
            Repeated::First if is_exact => return Some(value),
            Repeated::First => *place = place.or(Some(value)),
            Repeated::Last => *place = Some(value),
        }
    }
    exact.or(other)
}

/// Returns all values of a name in their order: those of the exact spelling, else those of the others; `None` where there are none.
///
/// # Examples
///
/// ```
/// use throughline_core::propagation::lookup;
///
/// let headers = [(&b"Baggage"[..], Some(&b"a=1"[..])), (b"BAGGAGE", Some(b"b=2")), (b"baggage", None)];
/// assert_eq!(lookup::values(headers.into_iter(), "baggage"), Some(vec!["a=1", "b=2"]));
/// ```
pub fn values<'a>(headers: impl Iterator<Item = Entry<'a>>, name: &str) -> Option<Vec<&'a str>> {
    let (mut found, mut all_exact) = (Vec::new(), false);
    for (is_exact, value) in usable(headers, name) {
        if is_exact && !all_exact {
            found.clear();
            all_exact = true;
        }
        if is_exact == all_exact {
            found.push(value);
        }
    }
    (!found.is_empty()).then_some(found)
}

/// Returns the names that are text.
///
/// # Examples
///
/// ```
/// use throughline_core::propagation::lookup;
/// assert_eq!(lookup::names([(&b"a"[..], None), (b"\xff", None)].into_iter()), ["a"]);
/// ```
pub fn names<'a>(headers: impl Iterator<Item = Entry<'a>>) -> Vec<&'a str> {
    headers.filter_map(|(name, _)| std::str::from_utf8(name).ok()).collect()
}

/// Iterates over the usable values of a name in any spelling, and tells of each whether the spelling is exact.
fn usable<'a>(headers: impl Iterator<Item = Entry<'a>>, wanted: &str) -> impl Iterator<Item = (bool, &'a str)> {
    headers.filter(|(name, _)| name.eq_ignore_ascii_case(wanted.as_bytes())).filter_map(|(name, value)| {
        let value = std::str::from_utf8(value?).ok()?;
        (!value.is_empty()).then_some((name == wanted.as_bytes(), value))
    })
}
