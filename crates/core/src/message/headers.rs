use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

type Entry = (Cow<'static, str>, Bytes);

/// Holds so many headers in the one allocation that the list costs: content type, trace, baggage and one of the user's.
type List = SmallVec<[Entry; 4]>;

/// The headers of one message: an ordered list of names and byte values in which a name may repeat.
///
/// Names are compared without regard to ASCII case; where several spellings are present, the exact one wins.
/// The `Debug` form shows names and lengths only, because values may be private.
///
/// # Examples
///
/// ```
/// use throughline_core::Headers;
///
/// let mut headers = Headers::new();
/// headers.append("Tenant", "acme");
/// assert_eq!(headers.get("tenant"), Some("acme"));
/// ```
#[derive(Clone, Default)]
pub struct Headers {
    /// Shared by clones and copied when one of them is changed.
    list: Option<Arc<List>>,
}

impl Headers {
    /// Creates an empty list; it allocates nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(throughline_core::Headers::new().is_empty());
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self { list: None }
    }

    /// Creates an empty list with room for `capacity` entries.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(throughline_core::Headers::with_capacity(4).is_empty());
    /// ```
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { list: (capacity > 0).then(|| Arc::new(List::with_capacity(capacity))) }
    }

    /// Sets a header: every entry of that name, in any spelling, is replaced.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut headers = throughline_core::Headers::new();
    /// headers.append("Tenant", "a");
    /// headers.insert("tenant", "b");
    /// assert_eq!(headers.len(), 1);
    /// assert_eq!(headers.get("tenant"), Some("b"));
    /// ```
    pub fn insert(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Bytes>) {
        let name = name.into();
        self.remove(&name);
        self.list_mut().push((name, value.into()));
    }

    /// Adds a header after those that are there, also when the name is already present.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut headers = throughline_core::Headers::new();
    /// headers.append("tag", "a");
    /// headers.append("tag", "b");
    /// assert_eq!(headers.len(), 2);
    /// ```
    pub fn append(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Bytes>) {
        self.list_mut().push((name.into(), value.into()));
    }

    /// Removes every entry of that name, in any spelling, and tells whether there was one.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut headers = throughline_core::Headers::new();
    /// headers.append("Tag", "a");
    /// assert!(headers.remove("tag"));
    /// assert!(headers.is_empty());
    /// ```
    pub fn remove(&mut self, name: &str) -> bool {
        // Asked first: what is not there needs no copy of a shared list.
        if !self.contains(name) {
            return false;
        }
        self.list_mut().retain(|(key, _)| !key.eq_ignore_ascii_case(name));
        true
    }

    /// Returns the first value of that name as text, or `None` when it is absent or not UTF-8.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.get_all(name).next()?).ok()
    }

    /// Returns the last value of that name as text, or `None` when it is absent or not UTF-8.
    #[must_use]
    pub fn get_last(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.get_all(name).last()?).ok()
    }

    /// Iterates over the values of that name: those spelled exactly so, or, when there are none, those of any spelling.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut headers = throughline_core::Headers::new();
    /// headers.append("Tag", "x");
    /// headers.append("tag", "a");
    /// assert_eq!(headers.get_all("tag").collect::<Vec<_>>(), [b"a"]);
    /// assert_eq!(headers.get_all("TAG").count(), 2);
    /// ```
    pub fn get_all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let exact = self.entries().iter().any(|(key, _)| key == name);
        self.entries()
            .iter()
            .filter(move |(key, _)| if exact { key == name } else { key.eq_ignore_ascii_case(name) })
            .map(|(_, value)| value.as_ref())
    }

    /// Tells whether a header of that name is there, in any spelling.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.entries().iter().any(|(key, _)| key.eq_ignore_ascii_case(name))
    }

    /// Iterates over all entries in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&str, &Bytes)> {
        self.entries().iter().map(|(name, value)| (name.as_ref(), value))
    }

    /// Returns the number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Tells whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries().is_empty()
    }

    /// Makes room for `additional` more entries.
    ///
    /// # Examples
    ///
    /// ```
    /// throughline_core::Headers::new().reserve(2);
    /// ```
    pub fn reserve(&mut self, additional: usize) {
        self.list_mut().reserve(additional);
    }

    fn entries(&self) -> &[Entry] {
        self.list.as_deref().map_or(&[], |list| list.as_slice())
    }

    fn list_mut(&mut self) -> &mut List {
        Arc::make_mut(self.list.get_or_insert_default())
    }
}

impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.entries() == other.entries()
    }
}

impl Eq for Headers {}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (name, value) in self.entries() {
            map.entry(name, &format_args!("{} bytes", value.len()));
        }
        map.finish()
    }
}

impl<N: Into<Cow<'static, str>>, V: Into<Bytes>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(entries: I) -> Self {
        let list: List = entries.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { list: (!list.is_empty()).then(|| Arc::new(list)) }
    }
}
