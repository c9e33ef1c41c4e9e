//! The text of an error for people.

use std::error::Error;
use std::fmt::{self, Write as _};

use crate::guard::write_text;

/// An error with its causes, as one line: `the message was not published: timed out`.
///
/// A cause that the text before it has already said is left out: some clients print it and return it as the source, too.
pub(crate) struct Causes<'a>(pub(crate) &'a (dyn Error + 'static));

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_text(f, |f| {
            let mut text = String::new();
            write!(text, "{}", self.0)?;
            add_causes(&mut text, self.0.source())?;
            f.write_str(&text)
        })
    }
}

/// Adds what the text does not say yet.
fn add_causes(text: &mut String, mut cause: Option<&(dyn Error + 'static)>) -> fmt::Result {
    let mut said = String::new();
    while let Some(error) = cause {
        said.clear();
        write!(said, "{error}")?;
        if !text.contains(&said) {
            write!(text, ": {said}")?;
        }
        cause = error.source();
    }
    Ok(())
}

/// Makes the `Debug` of an error what a `main` that returns it should print: the message and its causes.
macro_rules! debug_with_causes {
    ($error:ty) => {
        impl std::fmt::Debug for $error {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(&$crate::causes::Causes(self), f)
            }
        }
    };
}

pub(crate) use debug_with_causes;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{BrokerErrorKind, PublishErrorKind};
    use crate::codec::{DecodeError, EncodeError};
    use crate::extract::Rejection;
    use crate::propagation::Propagators;
    use crate::{BrokerError, PublishError};

    /// An error that prints its cause and returns it as the source as well.
    #[derive(Debug)]
    struct SaysBoth(std::io::Error);

    impl fmt::Display for SaysBoth {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "no answer: {}", self.0)
        }
    }

    impl Error for SaysBoth {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    fn io() -> std::io::Error {
        std::io::Error::other("the wire is cut")
    }

    #[test]
    fn a_cause_is_said_once() {
        assert_eq!(Causes(&SaysBoth(io())).to_string(), "no answer: the wire is cut");
        let broker = BrokerError::new(BrokerErrorKind::Timeout, "timeout", "no stream").with_source(SaysBoth(io()));
        assert_eq!(broker.to_string(), "no stream");
        assert_eq!(format!("{broker:?}"), "no stream: no answer: the wire is cut");
    }

    #[test]
    fn an_error_whose_text_fails_is_no_panic() {
        struct Panics;
        impl fmt::Debug for Panics {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("Panics")
            }
        }
        impl fmt::Display for Panics {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                panic!("on purpose")
            }
        }
        impl Error for Panics {}
        let broker = BrokerError::configuration("x").with_source(Panics);
        assert_eq!(format!("{broker:?}"), "the error has no text: its `Display` panicked");
    }

    /// What a `main` that returns `Box<dyn Error>` prints.
    #[test]
    fn the_debug_of_each_error_is_a_text_for_people() {
        let publish = || PublishError::new(PublishErrorKind::Timeout, "timeout", "not confirmed").with_source(io());
        let batch = PublishError::partial(vec![(1, publish())], 2);
        let Err(unknown) = Propagators::from_names("ottrace") else { panic!("it is not known") };
        let errors: [(Box<dyn Error>, &str); 6] = [
            (Box::new(publish()), "not confirmed: the wire is cut"),
            (Box::new(batch), "1 of 2 messages were not published: not confirmed: the wire is cut"),
            (Box::new(DecodeError::new("JSON", io())), "the body could not be decoded as JSON: the wire is cut"),
            (Box::new(EncodeError::new("JSON", io())), "the body could not be encoded as JSON: the wire is cut"),
            (
                Box::new(Rejection::malformed(DecodeError::new("text", io()))),
                "the body could not be decoded as text: the wire is cut",
            ),
            (
                Box::new(unknown),
                "unknown propagator `ottrace`, known are tracecontext, baggage, b3, b3multi, jaeger, none",
            ),
        ];
        for (error, expected) in errors {
            assert_eq!(format!("{error:?}"), expected);
            assert_eq!(format!("{error:#?}"), expected);
            assert!(!format!("{error}").contains("the wire is cut"), "a cause is the source's to say: {error}");
        }
    }
}
