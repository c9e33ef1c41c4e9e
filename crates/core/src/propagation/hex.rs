//! Lower-case hexadecimal digits; every index below is smaller than its table by type or by mask.

/// Marks a byte that is no lower-case hexadecimal digit.
const NONE: u8 = 0xff;

/// Maps a byte to the value of the digit it spells.
const VALUES: [u8; 256] = values();

const DIGITS: [u8; 16] = *b"0123456789abcdef";

const fn values() -> [u8; 256] {
    let mut table = [NONE; 256];
    let mut value = 0;
    while value < DIGITS.len() {
        table[DIGITS[value] as usize] = value as u8;
        value += 1;
    }
    table
}

/// Reads `N` bytes from the first `2 * N` characters and returns them with the rest of the text.
///
/// Returns `None` when the text is shorter or a character is not a lower-case hexadecimal digit.
pub(super) fn take<const N: usize>(text: &[u8]) -> Option<([u8; N], &[u8])> {
    let (digits, rest) = text.split_at_checked(2 * N)?;
    let (pairs, _) = digits.as_chunks::<2>();
    let mut bytes = [0; N];
    let mut seen = 0;
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        let (high, low) = (VALUES[usize::from(*high)], VALUES[usize::from(*low)]);
        seen |= high | low;
        *byte = (high << 4) | (low & 0x0f);
    }
    (seen != NONE).then_some((bytes, rest))
}

/// Writes `bytes` as lower-case digits over the start of `text`, as far as it reaches.
pub(super) fn put(bytes: &[u8], text: &mut [u8]) {
    let (pairs, _) = text.as_chunks_mut::<2>();
    for (byte, pair) in bytes.iter().zip(pairs) {
        *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0x0f)]];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_put_wrote() {
        let mut text = *b"________-rest";
        put(&[0x00, 0x9a, 0xf0, 0xff], &mut text);
        assert_eq!(&text, b"009af0ff-rest");
        assert_eq!(take::<4>(&text), Some(([0x00, 0x9a, 0xf0, 0xff], &b"-rest"[..])));
    }

    #[test]
    fn refuses_every_byte_that_is_no_lower_case_digit() {
        for byte in 0..=u8::MAX {
            let good = matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            assert_eq!(take::<1>(&[byte, b'0']).is_some(), good, "high {byte:#x}");
            assert_eq!(take::<1>(&[b'0', byte]).is_some(), good, "low {byte:#x}");
        }
        assert_eq!(take::<1>(b"0"), None);
    }
}
