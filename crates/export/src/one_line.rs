//! The words of a backend, as they may stand in the log.

/// The longest text that is shown, in characters.
const LONGEST: usize = 200;

/// Makes one line of a text that others wrote, and not a long one.
pub(crate) fn one_line(text: &str) -> String {
    let shown = |sign: char| if sign.is_control() { ' ' } else { sign };
    text.trim().chars().take(LONGEST).map(shown).collect()
}
