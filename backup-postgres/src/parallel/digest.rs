//! The digest of a table's rows, whatever their order.
//!
//! Taken of each row's COPY text (without its line end) while it is stored, and again after a restore: the sum, modulo
//! 2^256, of the SHA-256 of all rows, with their number. Rows in another order give the same digest, which lets pieces
//! of a table be read and loaded by several connections. It tells rows that are missing, doubled or changed by
//! accident; it is no evidence against a forger, who could look for rows that sum up alike. That is what the digests
//! of the stored objects are for.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A sum of row digests, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowSum {
    /// Little-endian words of the sum.
    words: [u64; 4],
    rows: u64,
}

impl RowSum {
    /// Adds one row's COPY text, without its line end.
    pub fn add(&mut self, row: &[u8]) {
        let digest: [u8; 32] = Sha256::digest(row).into();
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(digest.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        self.merge(&Self { words, rows: 1 });
    }

    /// Adds the rows of another sum.
    pub fn merge(&mut self, other: &Self) {
        let mut carry = false;
        for (word, add) in self.words.iter_mut().zip(other.words) {
            let (sum, first) = word.overflowing_add(add);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            *word = sum;
            carry = first || second;
        }
        self.rows += other.rows;
    }

    /// Returns how many rows were added.
    #[must_use]
    pub const fn rows(&self) -> u64 {
        self.rows
    }
}

/// 64 hexadecimal digits, the least significant byte first.
impl fmt::Display for RowSum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for word in self.words {
            f.write_str(&hex::encode(word.to_le_bytes()))?;
        }
        Ok(())
    }
}

/// What is recorded of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableDigest {
    /// How many rows.
    pub rows: u64,
    /// The sum, as [`RowSum`] spells it.
    pub sum: String,
}

impl From<RowSum> for TableDigest {
    fn from(sum: RowSum) -> Self {
        Self { rows: sum.rows, sum: sum.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum(rows: &[Vec<u8>]) -> RowSum {
        let mut sum = RowSum::default();
        rows.iter().for_each(|row| sum.add(row));
        sum
    }

    #[test]
    fn one_row_is_its_sha256() {
        assert_eq!(
            sum(&[b"abc".to_vec()]).to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn carries_reach_the_next_word() {
        let full = RowSum { words: [u64::MAX, u64::MAX, 1, 0], rows: 1 };
        let mut total = full;
        total.merge(&RowSum { words: [1, 0, 0, 0], rows: 1 });
        assert_eq!(total, RowSum { words: [0, 0, 2, 0], rows: 2 });
    }

    proptest! {
        #[test]
        fn order_and_grouping_do_not_matter_and_every_change_does(
            mut rows in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..8), 1..20),
            cut in any::<proptest::sample::Index>(),
        ) {
            let whole = sum(&rows);
            let at = cut.index(rows.len());
            let (left, right) = rows.split_at(at);
            let mut parts = sum(right);
            parts.merge(&sum(left));
            prop_assert_eq!(parts, whole);
            let doubled = [rows.clone(), vec![rows[at].clone()]].concat();
            prop_assert_ne!(sum(&doubled), whole);
            rows[at].push(b'x');
            prop_assert_ne!(sum(&rows), whole);
        }
    }
}
