use std::fmt;

/// Stands in hostile names, keys and values: where nothing of a stranger may appear, none of these may.
pub const MARKER: &str = "zqmarkzq";

/// What a stranger wrote into the headers of one message, and what must become of it.
///
/// # Examples
///
/// ```
/// use throughline_testing::conformance::HeaderSet;
///
/// fn bytes(set: &HeaderSet) -> usize {
///     set.headers.iter().map(|(name, value)| name.len() + value.len()).sum()
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HeaderSet {
    /// What kind of mischief it is.
    pub class: HostileClass,
    /// Names and values, as bytes: neither needs to be text.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) trace: TraceOf,
    pub(super) kept: Vec<(String, String)>,
}

/// What must become of the trace, as far as the headers alone decide it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum TraceOf {
    /// It goes on; the id as 32 digits.
    Continues(String),
    /// Depends on what the broker makes of the headers: one of those that were sent, or a new one.
    Either,
    /// A new one starts.
    New,
}

impl HeaderSet {
    pub(super) fn new(class: HostileClass) -> Self {
        Self { class, headers: Vec::new(), trace: TraceOf::New, kept: Vec::new() }
    }

    pub(super) fn with(mut self, name: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Adds a well-formed `traceparent`, which must be followed.
    pub(super) fn with_parent(self, trace: &str, span: &str) -> Self {
        self.with("traceparent", format!("00-{trace}-{span}-01")).continuing(trace)
    }

    pub(super) fn continuing(self, trace: &str) -> Self {
        Self { trace: TraceOf::Continues(trace.to_owned()), ..self }
    }

    pub(super) fn with_either_trace(self) -> Self {
        Self { trace: TraceOf::Either, ..self }
    }

    /// Says that an entry must arrive, decoded.
    pub(super) fn keeping(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.kept.push((key.into(), value.into()));
        self
    }
}

macro_rules! classes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)*) => {
        /// Names the kinds of hostile headers.
        ///
        /// # Examples
        ///
        /// ```
        /// use throughline_testing::conformance::HostileClass;
        /// assert_eq!(HostileClass::BaggageSmuggling.to_string(), "baggage: entry smuggling");
        /// ```
        #[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
        #[non_exhaustive]
        pub enum HostileClass {
            $($(#[doc = $doc])+ $variant,)*
        }

        impl HostileClass {
            pub(super) const ALL: &[Self] = &[$(Self::$variant),*];

            const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

classes! {
    /// Nothing is wrong: the control group.
    WellFormed = "well-formed",
    /// A `traceparent` that breaks the grammar.
    TraceparentMalformed = "traceparent: malformed",
    /// Versions above 00.
    TraceparentVersion = "traceparent: other version",
    /// A `tracestate` that breaks the grammar.
    TracestateMalformed = "tracestate: malformed",
    /// A `tracestate` over its limits.
    TracestateLarge = "tracestate: over the limits",
    /// Members that break the grammar beside good ones.
    BaggageMalformed = "baggage: malformed members",
    /// Escapes that are none, or that decode to what must not be there.
    BaggagePercent = "baggage: percent traps",
    /// One entry that wants to become two.
    BaggageSmuggling = "baggage: entry smuggling",
    /// Too many entries, too long keys and values.
    BaggageLarge = "baggage: over the limits",
    /// CR, LF and nul in values.
    LineBreaks = "line breaks and nul",
    /// Values that are not UTF-8.
    NotUtf8 = "not UTF-8",
    /// One header several times, in several spellings.
    Spellings = "duplicates in every spelling",
    /// Names that are none.
    Names = "odd header names",
    /// Values of up to 1 MB.
    LargeValues = "values up to 1 MB",
    /// 1,000 headers.
    ManyHeaders = "1,000 headers",
    /// Formats that say different things.
    Formats = "contradicting formats",
    /// Headers that belong to the broker or to the framework.
    Reserved = "headers of broker and framework",
    /// Any bytes.
    Arbitrary = "arbitrary bytes",
}

impl fmt::Display for HostileClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
