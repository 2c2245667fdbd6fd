//! The tree of the read log as API 1.x built it: over hex texts, an odd level doubling its last node.
//!
//! ```text
//! leaf    hex SHA-256(envelope)
//! node    hex SHA-256(the UTF-8 text of the left child's hex || the right child's)
//! level   of an odd number of nodes, the last is paired with itself
//! empty   hex SHA-256("")
//! ```
//!
//! Kept as the roots of the full subtrees, one per bit of the size, so that the root of every size is had in passing.

use sha2::{Digest as _, Sha256};

use crate::merkle::Hash;

/// A tree that grows.
#[derive(Debug, Default)]
pub(super) struct HexTree {
    size: u64,
    /// The full subtrees, largest first: one per bit of the size.
    nodes: Vec<Hash>,
}

fn node(left: &Hash, right: &Hash) -> Hash {
    let mut text = [0_u8; 128];
    let (first, second) = text.split_at_mut(64);
    // 32 bytes are 64 digits.
    let _ = hex::encode_to_slice(left, first);
    let _ = hex::encode_to_slice(right, second);
    Sha256::digest(text).into()
}

impl HexTree {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Appends a leaf.
    pub(super) fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.nodes.pop() {
                hash = node(&left, &hash);
            }
        }
        self.nodes.push(hash);
        self.size += 1;
    }

    /// Returns the root of the leaves so far.
    pub(super) fn root(&self) -> Hash {
        let mut nodes = self.nodes.iter().rev();
        let Some(last) = nodes.next() else { return Sha256::digest([]).into() };
        let mut root = *last;
        let mut bit = self.size.trailing_zeros();
        let mut level = bit;
        for left in nodes {
            // The lone last node goes up, doubled at each odd level, until it meets the next full subtree.
            bit += 1 + (self.size >> (bit + 1)).trailing_zeros();
            while level < bit {
                root = node(&root, &root);
                level += 1;
            }
            root = node(left, &root);
            level += 1;
        }
        root
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, level by level.
    fn by_levels(leaves: &[Hash]) -> Hash {
        let mut level: Vec<String> = leaves.iter().map(hex::encode).collect();
        if level.is_empty() {
            return Sha256::digest("").into();
        }
        while level.len() > 1 {
            if level.len() % 2 == 1 {
                level.push(level.last().unwrap().clone());
            }
            level = level.chunks(2).map(|pair| hex::encode(Sha256::digest(pair.concat()))).collect();
        }
        hex::decode(&level[0]).unwrap().try_into().unwrap()
    }

    #[test]
    fn the_root_of_every_size_is_that_of_the_definition() {
        let leaves: Vec<Hash> = (0..300_u32).map(|at| Sha256::digest(at.to_be_bytes()).into()).collect();
        let mut tree = HexTree::new();
        assert_eq!(tree.root(), by_levels(&[]));
        for (at, leaf) in leaves.iter().enumerate() {
            tree.push(*leaf);
            assert_eq!(tree.root(), by_levels(&leaves[..=at]), "{} leaves", at + 1);
        }
    }
}
