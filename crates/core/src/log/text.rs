use std::error::Error;
use std::fmt;
use std::str::Utf8Error;

use crate::codec::{DecodeError, EncodeError};
use crate::guard::write_text;

/// The text of an error with its causes for the log, as one line: `the order cannot be shipped: no warehouse has it`.
///
/// Of a body that cannot be read, or written, it is position and kind alone: what a codec says may repeat the body. Where texts are not
/// shown, that is all there is.
pub(super) struct ErrorText<'a> {
    pub(super) error: &'a (dyn Error + 'static),
    pub(super) is_shown: bool,
}

impl fmt::Display for ErrorText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_text(f, |f| {
            let mut is_of_a_body = false;
            let mut separator = "";
            let mut next = Some(self.error);
            while let Some(error) = next {
                let text = match position_and_kind(error) {
                    Some(text) => text,
                    None if is_of_a_body => return Ok(()),
                    None => {
                        is_of_a_body = error.is::<DecodeError>() || error.is::<EncodeError>();
                        if self.is_shown || is_of_a_body { error.to_string() } else { String::new() }
                    }
                };
                if !text.is_empty() {
                    write!(f, "{separator}{text}")?;
                    separator = ": ";
                }
                next = error.source();
            }
            Ok(())
        })
    }
}

/// What an error says about a body without repeating any of it.
fn position_and_kind(error: &(dyn Error + 'static)) -> Option<String> {
    // What it says is the position.
    let of_text = error.downcast_ref::<Utf8Error>().map(ToString::to_string);
    #[cfg(feature = "json")]
    let of_text = of_text.or_else(|| error.downcast_ref().map(of_json));
    of_text
}

#[cfg(feature = "json")]
fn of_json(error: &serde_json::Error) -> String {
    use serde_json::error::Category;
    let kind = match error.classify() {
        Category::Data => "data error",
        Category::Eof => "unexpected end",
        Category::Io => "input error",
        Category::Syntax => "syntax error",
    };
    match error.line() {
        0 => kind.to_owned(),
        line => format!("{kind} at line {line} column {}", error.column()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Failure;

    #[derive(Debug)]
    struct Outer(Box<dyn Error + Send + Sync>);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the order cannot be shipped")
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(self.0.as_ref())
        }
    }

    fn text(error: impl Error + Send + Sync + 'static, is_shown: bool) -> String {
        ErrorText { error: Failure::from_error(error).error(), is_shown }.to_string()
    }

    #[test]
    fn an_error_is_said_with_its_causes_or_not_at_all() {
        assert_eq!(text(Outer("no warehouse has it".into()), true), "the order cannot be shipped: no warehouse has it");
        assert_eq!(text(Outer("no warehouse has it".into()), false), "");
    }

    #[test]
    fn of_a_body_position_and_kind_are_said_and_nothing_that_may_be_in_it() {
        let own = DecodeError::new("an amount", Outer("`secret` is no amount".into()));
        let not_text = DecodeError::new("text", String::from_utf8(vec![b'a', 0xff]).unwrap_err().utf8_error());
        for is_shown in [true, false] {
            let decoded = text(DecodeError::new("an amount", Outer("`secret` is no amount".into())), is_shown);
            assert_eq!(decoded, "the body could not be decoded as an amount");
        }
        assert!(text(Outer(Box::new(own)), true).ends_with("shipped: the body could not be decoded as an amount"));
        let position = "the body could not be decoded as text: invalid utf-8 sequence of 1 bytes from index 1";
        assert_eq!(text(not_text, false), position);
    }

    #[cfg(feature = "json")]
    #[test]
    fn the_text_of_json_is_replaced_wherever_it_stands() {
        let failed = |body: &str| serde_json::from_str::<u8>(body).unwrap_err();
        let decoded = |body| text(DecodeError::new("JSON", failed(body)), false);
        let start = "the body could not be decoded as JSON: ";
        assert_eq!(decoded("\"secret\""), format!("{start}data error at line 1 column 8"));
        assert_eq!(decoded("1 secret"), format!("{start}syntax error at line 1 column 3"));
        assert_eq!(decoded(""), format!("{start}unexpected end at line 1 column 0"));
        // A handler that reads JSON by itself.
        assert_eq!(text(failed("\"secret\""), true), "data error at line 1 column 8");
    }

    #[test]
    fn an_error_whose_text_panics_says_so() {
        #[derive(Debug)]
        struct Broken;
        impl fmt::Display for Broken {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                panic!("on purpose")
            }
        }
        impl Error for Broken {}
        assert!(text(Broken, true).contains("panicked"));
    }
}
