use std::fmt;
use std::sync::Arc;

use super::Destination;

/// The signs a broker uses in subscription patterns.
///
/// # Examples
///
/// ```
/// use throughline_core::broker::Wildcards;
///
/// let dotted = Wildcards::new('.', "*", ">");
/// assert_eq!(dotted.one, "*");
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Wildcards {
    /// Separates the tokens of a name.
    pub separator: char,
    /// Stands for exactly one token.
    pub one: &'static str,
    /// Stands for several tokens.
    pub rest: &'static str,
    /// Whether `rest` also stands for no token at all.
    pub rest_may_be_empty: bool,
}

impl Wildcards {
    /// Creates the signs from what stands between two tokens, what stands for one token, and what stands for the rest of a name, which
    /// is at least one token.
    #[must_use]
    pub const fn new(separator: char, one: &'static str, rest: &'static str) -> Self {
        Self { separator, one, rest, rest_may_be_empty: false }
    }

    /// Says that the rest may also be no token: `orders.#` matches `orders`.
    #[must_use]
    pub const fn rest_may_be_empty(self) -> Self {
        Self { rest_may_be_empty: true, ..self }
    }
}

/// Which destination names a subscription receives, in general terms, so that the in-memory broker can imitate any other.
///
/// A token written as `{name}` stands for exactly one token on every broker.
///
/// # Examples
///
/// ```
/// use throughline_core::broker::{Pattern, Wildcards};
///
/// let signs = Wildcards::new('.', "*", ">");
/// let pattern = Pattern::new("orders.*", signs);
/// assert!(pattern.matches("orders.42"));
/// assert!(!pattern.matches("orders.42.paid"));
/// assert!(pattern.is_wildcard());
/// ```
#[derive(Clone, Eq, PartialEq)]
pub struct Pattern {
    /// What the names are within, such as an exchange.
    namespace: Option<Arc<str>>,
    text: Arc<str>,
    wildcards: Option<Wildcards>,
    /// What telemetry shows it by, where that is not the text.
    shown: Option<Arc<str>>,
}

impl Pattern {
    /// Creates a pattern that matches one name only.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(throughline_core::broker::Pattern::exact("orders").matches("orders"));
    /// ```
    #[must_use]
    pub fn exact(name: impl Into<Arc<str>>) -> Self {
        Self { namespace: None, text: name.into(), wildcards: None, shown: None }
    }

    /// Creates a pattern from a text with wildcards.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::broker::{Pattern, Wildcards};
    /// let signs = Wildcards::new('.', "*", "#").rest_may_be_empty();
    /// assert!(Pattern::new("logs.#", signs).matches("logs"));
    /// ```
    #[must_use]
    pub fn new(text: impl Into<Arc<str>>, wildcards: Wildcards) -> Self {
        let text = text.into();
        let has_wildcard = text
            .split(wildcards.separator)
            .any(|token| token == wildcards.one || token == wildcards.rest || is_placeholder(token));
        Self { namespace: None, text, wildcards: has_wildcard.then_some(wildcards), shown: None }
    }

    /// Restricts the pattern to names [within](Destination::within) something: these keys of this exchange.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::Destination;
    /// use throughline_core::broker::{Pattern, Wildcards};
    ///
    /// let signs = Wildcards::new('.', "*", "#").rest_may_be_empty();
    /// let placed = Pattern::new("placed.*", signs).within("orders");
    /// assert!(placed.takes(&Destination::new("placed.eu").within("orders")));
    /// assert!(!placed.takes(&Destination::new("placed.eu").within("bills")));
    /// assert!(!placed.takes(&Destination::new("placed.eu")));
    /// ```
    #[must_use]
    pub fn within(mut self, namespace: impl Into<Arc<str>>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Returns what the names are within; `None` where they stand alone.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// Sets what telemetry shows the pattern by, where a name has more parts there than the broker's own patterns have.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::broker::{Pattern, Wildcards};
    ///
    /// let signs = Wildcards::new('.', "*", "#").rest_may_be_empty();
    /// let placed = Pattern::new("placed.*", signs).within("orders").shown_as("orders:placed.*:stock");
    /// assert_eq!((placed.as_str(), placed.shown()), ("placed.*", "orders:placed.*:stock"));
    /// ```
    #[must_use]
    pub fn shown_as(mut self, text: impl Into<Arc<str>>) -> Self {
        self.shown = Some(text.into());
        self
    }

    /// Returns what telemetry shows the pattern by; the default is its text.
    #[must_use]
    pub fn shown(&self) -> &str {
        self.shown.as_deref().unwrap_or(&self.text)
    }

    /// Returns the pattern by its text alone: within nothing, and shown as it is.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::broker::Pattern;
    /// assert_eq!(Pattern::exact("placed").within("orders").alone(), Pattern::exact("placed"));
    /// ```
    #[must_use]
    pub fn alone(&self) -> Self {
        Self { namespace: None, shown: None, ..self.clone() }
    }

    /// Tells whether a message to that destination matches.
    #[must_use]
    pub fn takes(&self, destination: &Destination) -> bool {
        self.takes_within(destination.namespace(), destination.name())
    }

    /// Tells whether a name matches that is within something, or alone.
    pub(crate) fn takes_within(&self, namespace: Option<&str>, name: &str) -> bool {
        self.namespace() == namespace && self.matches(name)
    }

    /// Returns the text of the pattern.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Tells whether the pattern stands for more than one name.
    #[must_use]
    pub const fn is_wildcard(&self) -> bool {
        self.wildcards.is_some()
    }

    /// Returns the text with every `{name}` written as the broker's sign for one token: what is sent to the broker.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::broker::{Pattern, Wildcards};
    /// let signs = Wildcards::new('.', "*", ">");
    /// assert_eq!(Pattern::new("orders.{id}", signs).to_wire(), "orders.*");
    /// ```
    #[must_use]
    pub fn to_wire(&self) -> String {
        let Some(signs) = self.wildcards else { return self.text.to_string() };
        let tokens: Vec<_> = self
            .text
            .split(signs.separator)
            .map(|token| if is_placeholder(token) { signs.one } else { token })
            .collect();
        tokens.join(signs.separator.encode_utf8(&mut [0; 4]))
    }

    /// Returns the pattern behind a prefix.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::broker::Pattern;
    /// assert_eq!(Pattern::exact("orders").prefixed("eu.").as_str(), "eu.orders");
    /// ```
    #[must_use]
    pub fn prefixed(&self, prefix: &str) -> Self {
        Self { text: format!("{prefix}{}", self.text).into(), ..self.clone() }
    }

    /// Tells whether a name matches, whatever it is within; see [`takes`](Self::takes).
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(!throughline_core::broker::Pattern::exact("orders").matches("bills"));
    /// ```
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let Some(signs) = self.wildcards else { return *self.text == *name };
        let mut pattern = self.text.split(signs.separator);
        let mut tokens = name.split(signs.separator);
        // What follows the last rest sign, and what of the name it was tried on. An earlier sign never has to take more for it.
        let mut after_rest = None;
        loop {
            let (sign, before) = (pattern.next(), tokens.clone());
            let is_rest = sign == Some(signs.rest);
            let fits = match (sign, tokens.next()) {
                (None, None) => return true,
                (Some(_), token) if is_rest => signs.rest_may_be_empty || token.is_some(),
                (Some(sign), Some(token)) => sign == signs.one || is_placeholder(sign) || sign == token,
                (None, Some(_)) | (Some(_), None) => false,
            };
            if is_rest && fits {
                if signs.rest_may_be_empty {
                    tokens = before;
                }
                after_rest = Some((pattern.clone(), tokens.clone()));
            } else if !fits {
                let Some((rest_of_pattern, mut further)) = after_rest else { return false };
                if further.next().is_none() {
                    return false;
                }
                (pattern, tokens) = (rest_of_pattern.clone(), further.clone());
                after_rest = Some((rest_of_pattern, further));
            }
        }
    }
}

fn is_placeholder(token: &str) -> bool {
    token.len() > 2 && token.starts_with('{') && token.ends_with('}')
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}:")?;
        }
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOTTED: Wildcards = Wildcards::new('.', "*", ">");
    const HASHED: Wildcards = Wildcards::new('.', "*", "#").rest_may_be_empty();

    #[test]
    fn the_rest_sign_takes_at_least_one_token_where_it_must() {
        let pattern = Pattern::new("orders.>", DOTTED);
        assert!(pattern.matches("orders.eu") && pattern.matches("orders.eu.paid"));
        assert!(!pattern.matches("orders"));
    }

    #[test]
    fn the_rest_sign_may_stand_in_the_middle() {
        let pattern = Pattern::new("logs.#.error", HASHED);
        assert!(pattern.matches("logs.error") && pattern.matches("logs.a.b.error"));
        assert!(!pattern.matches("logs.a.b.warning"));
    }

    #[test]
    fn several_rest_signs_share_the_tokens() {
        let pattern = Pattern::new("a.#.b.#.c", HASHED);
        assert!(pattern.matches("a.b.c") && pattern.matches("a.x.b.b.y.c") && pattern.matches("a.c.b.c.c"));
        assert!(!pattern.matches("a.x.c") && !pattern.matches("a.b.c.d") && !pattern.matches("a"));
        let each_one = Pattern::new(">.>", DOTTED);
        assert!(each_one.matches("a.b") && each_one.matches("a.b.c") && !each_one.matches("a"));
        let all = Pattern::new("#", HASHED);
        assert!(all.matches("a.b") && all.matches("") && !Pattern::new("a.#", HASHED).matches("b"));
    }

    /// What a stranger sends chooses no cost: the name is gone through once for each token of the pattern at most.
    #[test]
    fn a_long_name_is_no_trap() {
        let pattern = Pattern::new(["#.x"; 12].join("."), HASHED);
        assert!(!pattern.matches(&["x"; 11].join(".")));
        assert!(!pattern.matches(&format!("{}.y", ["x"; 2000].join("."))));
    }

    #[test]
    fn a_placeholder_is_one_token() {
        let pattern = Pattern::new("orders.{id}.paid", DOTTED);
        assert!(pattern.matches("orders.42.paid"));
        assert!(!pattern.matches("orders.paid"));
        assert_eq!(pattern.to_wire(), "orders.*.paid");
    }
}
