use fastrand::Rng;

use super::set::MARKER;

/// Makes random text. Only functions whose results are the same on every platform are used: none of `usize`.
pub(super) struct Random(Rng);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(Rng::with_seed(seed))
    }

    /// Returns a number below `end`.
    pub(super) fn below(&mut self, end: u32) -> u32 {
        self.0.u32(0..end.max(1))
    }

    pub(super) fn chance(&mut self, one_in: u32) -> bool {
        self.below(one_in) == 0
    }

    pub(super) fn pick<'a, T: ?Sized>(&mut self, items: &[&'a T]) -> &'a T {
        items[self.below(items.len() as u32) as usize]
    }

    pub(super) fn bytes(&mut self, most: u32) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.0.u32(0..256) as u8).collect()
    }

    /// Returns `count` hexadecimal digits, not all zero.
    pub(super) fn hex(&mut self, count: usize) -> String {
        let digits: String = (0..count).map(|_| char::from(b"0123456789abcdef"[self.below(16) as usize])).collect();
        if digits.bytes().all(|digit| digit == b'0') { "1".repeat(count) } else { digits }
    }

    /// Returns a name that no other set has, with the marker in it.
    pub(super) fn word(&mut self) -> String {
        format!("{MARKER}{:x}", self.0.u32(..))
    }

    /// Returns text of the characters, `least` to `most` of them.
    pub(super) fn text(&mut self, signs: &str, least: u32, most: u32) -> String {
        let signs: Vec<char> = signs.chars().collect();
        let count = least + self.below(most - least + 1);
        (0..count).map(|_| signs[self.below(signs.len() as u32) as usize]).collect()
    }

    /// Returns a few of the pieces after each other.
    pub(super) fn pieces(&mut self, pieces: &[&str], most: u32) -> String {
        (0..=self.below(most)).map(|_| self.pick(pieces)).collect()
    }

    /// Puts `piece` somewhere into `text`.
    pub(super) fn insert(&mut self, text: &[u8], piece: &[u8]) -> Vec<u8> {
        let (before, after) = text.split_at(self.below(text.len() as u32 + 1) as usize);
        [before, piece, after].concat()
    }

    /// Writes `name` with random upper-case letters.
    pub(super) fn spelling(&mut self, name: &str) -> String {
        name.chars().map(|sign| if self.chance(2) { sign.to_ascii_uppercase() } else { sign }).collect()
    }
}
