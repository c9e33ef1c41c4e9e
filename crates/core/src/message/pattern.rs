use std::fmt;
use std::sync::Arc;

/// Holds the signs a broker uses in subscription patterns.
///
/// # Examples
///
/// ```
/// use throughline_core::broker::Wildcards;
///
/// let dotted = Wildcards { separator: '.', one: "*", rest: ">", rest_may_be_empty: false };
/// assert_eq!(dotted.one, "*");
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
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

/// Describes which destination names a subscription receives, in general terms, so that the in-memory broker can imitate any other.
///
/// A token written as `{name}` stands for exactly one token on every broker.
///
/// # Examples
///
/// ```
/// use throughline_core::broker::{Pattern, Wildcards};
///
/// let signs = Wildcards { separator: '.', one: "*", rest: ">", rest_may_be_empty: false };
/// let pattern = Pattern::new("orders.*", signs);
/// assert!(pattern.matches("orders.42"));
/// assert!(!pattern.matches("orders.42.paid"));
/// assert!(pattern.is_wildcard());
/// ```
#[derive(Clone, Eq, PartialEq)]
pub struct Pattern {
    text: Arc<str>,
    wildcards: Option<Wildcards>,
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
        Self { text: name.into(), wildcards: None }
    }

    /// Creates a pattern from a text with wildcards.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::broker::{Pattern, Wildcards};
    /// let signs = Wildcards { separator: '.', one: "*", rest: "#", rest_may_be_empty: true };
    /// assert!(Pattern::new("logs.#", signs).matches("logs"));
    /// ```
    #[must_use]
    pub fn new(text: impl Into<Arc<str>>, wildcards: Wildcards) -> Self {
        let text = text.into();
        let has_wildcard = text
            .split(wildcards.separator)
            .any(|token| token == wildcards.one || token == wildcards.rest || is_placeholder(token));
        Self { text, wildcards: has_wildcard.then_some(wildcards) }
    }

    /// Returns the text of the pattern.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(throughline_core::broker::Pattern::exact("orders").as_str(), "orders");
    /// ```
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Tells whether the pattern stands for more than one name.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(!throughline_core::broker::Pattern::exact("orders.*").is_wildcard());
    /// ```
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
    /// let signs = Wildcards { separator: '.', one: "*", rest: ">", rest_may_be_empty: false };
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
        Self { text: format!("{prefix}{}", self.text).into(), wildcards: self.wildcards }
    }

    /// Tells whether a name matches.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(!throughline_core::broker::Pattern::exact("orders").matches("bills"));
    /// ```
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let Some(signs) = self.wildcards else { return *self.text == *name };
        let pattern: Vec<&str> = self.text.split(signs.separator).collect();
        let tokens: Vec<&str> = name.split(signs.separator).collect();
        matches_tokens(&pattern, &tokens, signs)
    }
}

fn is_placeholder(token: &str) -> bool {
    token.len() > 2 && token.starts_with('{') && token.ends_with('}')
}

fn matches_tokens(pattern: &[&str], tokens: &[&str], signs: Wildcards) -> bool {
    let Some((sign, pattern_rest)) = pattern.split_first() else { return tokens.is_empty() };
    if *sign == signs.rest {
        let least = usize::from(!signs.rest_may_be_empty);
        return (least..=tokens.len())
            .any(|taken| tokens.get(taken..).is_some_and(|left| matches_tokens(pattern_rest, left, signs)));
    }
    let Some((token, tokens_rest)) = tokens.split_first() else { return false };
    (*sign == signs.one || is_placeholder(sign) || sign == token) && matches_tokens(pattern_rest, tokens_rest, signs)
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOTTED: Wildcards = Wildcards { separator: '.', one: "*", rest: ">", rest_may_be_empty: false };
    const HASHED: Wildcards = Wildcards { separator: '.', one: "*", rest: "#", rest_may_be_empty: true };

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
    fn a_placeholder_is_one_token() {
        let pattern = Pattern::new("orders.{id}.paid", DOTTED);
        assert!(pattern.matches("orders.42.paid"));
        assert!(!pattern.matches("orders.paid"));
        assert_eq!(pattern.to_wire(), "orders.*.paid");
    }
}
