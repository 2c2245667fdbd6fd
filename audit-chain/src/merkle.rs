//! Merkle trees over append-only logs, as RFC 6962 §2.1 hashes them (and RFC 9162, C2SP tlog after it).
//!
//! [`crate::verify`] pushes one leaf a row into a [`Frontier`]; checkpoints carry its root; [`crate::proof`] and
//! the repository's log make and check proofs. Everything streams: the state of a log of n leaves is at most 64
//! hashes, and a proof of a log too large for memory is made in one pass by [`ProofBuilder`].
//!
//! ```text
//! leaf      SHA-256(0x00 || entry)
//! node      SHA-256(0x01 || left || right)
//! no leaf   SHA-256("")
//! shape     the left subtree holds the largest power of two smaller than n leaves
//! ```
//!
//! The functions that verify fail ([`Error::Unverified`]); none returns a bare truth value. They never fail
//! otherwise, whatever sizes and proofs a stranger sends.

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// A leaf, node or root: 32 bytes of SHA-256.
pub type Hash = [u8; 32];

/// The largest log that a [`Frontier`] is made for, in leaves.
pub const MAX_SIZE: u64 = 1 << 62;

/// Hashes an entry to its leaf.
///
/// # Source
/// RFC 6962 §2.1.
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(entry).finalize().into()
}

/// Hashes two subtrees to their parent.
///
/// # Source
/// RFC 6962 §2.1.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut input = [1; 65];
    input[1..33].copy_from_slice(left);
    input[33..].copy_from_slice(right);
    Sha256::digest(input).into()
}

/// Returns the root of a log without entries.
///
/// # Source
/// RFC 6962 §2.1.
#[must_use]
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// Returns the root over leaf hashes.
#[must_use]
pub fn root(leaves: &[Hash]) -> Hash {
    leaves.iter().copied().collect::<Frontier>().root()
}

/// The complete subtrees that cover a log from its start: all that is needed to append to it and to know its root.
///
/// Holds one hash per one-bit of the size, so that a million short logs fit in memory beside one long one.
///
/// ```
/// use audit_chain::merkle::{Frontier, leaf_hash, node_hash};
///
/// let (a, b) = (leaf_hash(b"a"), leaf_hash(b"b"));
/// let log: Frontier = [a, b].into_iter().collect();
/// assert_eq!(log.root(), node_hash(&a, &b));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    nodes: Vec<Hash>,
}

impl Frontier {
    /// Makes an empty log.
    #[must_use]
    pub const fn new() -> Self {
        Self { size: 0, nodes: Vec::new() }
    }

    /// Takes up a log where [`Frontier::size`] and [`Frontier::nodes`] left it.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when the number of hashes is not the one that the size asks for.
    pub fn from_parts(size: u64, nodes: Vec<Hash>) -> Result<Self> {
        if size > MAX_SIZE {
            return Err(Error::InvalidInput(format!(
                "a log has at most {MAX_SIZE} leaves, the saved state says {size}"
            )));
        }
        if nodes.len() != size.count_ones() as usize {
            return Err(Error::InvalidInput(format!(
                "the state of a log of {size} leaves is {} hashes, found {}",
                size.count_ones(),
                nodes.len()
            )));
        }
        Ok(Self { size, nodes })
    }

    /// Appends a leaf hash. Costs one SHA-256 per leaf on average and no allocation but the growth to 64 hashes.
    pub fn push(&mut self, leaf: Hash) {
        self.push_observed(leaf, |_, _, _, _| ());
    }

    /// Appends a leaf hash and tells `merged` of each node made: its children's level, left, right, the node.
    #[inline]
    fn push_observed(&mut self, leaf: Hash, mut merged: impl FnMut(u32, &Hash, &Hash, &Hash)) {
        let mut node = leaf;
        for level in 0..self.size.trailing_ones() {
            let Some(left) = self.nodes.pop() else { break };
            let parent = node_hash(&left, &node);
            merged(level, &left, &node, &parent);
            node = parent;
        }
        self.nodes.push(node);
        self.size += 1;
    }

    /// Returns the number of leaves.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Returns the subtrees' hashes, the largest (leftmost) first.
    #[must_use]
    pub fn nodes(&self) -> &[Hash] {
        &self.nodes
    }

    /// Returns the root over all leaves so far.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut nodes = self.nodes.iter().rev();
        let Some(smallest) = nodes.next() else { return empty_root() };
        nodes.fold(*smallest, |right, left| node_hash(left, &right))
    }
}

impl Extend<Hash> for Frontier {
    fn extend<I: IntoIterator<Item = Hash>>(&mut self, leaves: I) {
        for leaf in leaves {
            self.push(leaf);
        }
    }
}

impl FromIterator<Hash> for Frontier {
    fn from_iter<I: IntoIterator<Item = Hash>>(leaves: I) -> Self {
        let mut log = Self::new();
        log.extend(leaves);
        log
    }
}

/// A proof that was made, with the log that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// How many leaves the log has.
    pub size: u64,
    /// The root of the log.
    pub root: Hash,
    /// What is proven: the leaf (inclusion), or the root of the older, shorter log (consistency).
    pub subject: Hash,
    /// The hashes of the proof, in the order of RFC 6962.
    pub path: Vec<Hash>,
}

/// A complete subtree: `index` counts the subtrees of its level (2^level leaves each) from the left.
#[derive(Debug, Clone, Copy)]
struct Node {
    level: u32,
    index: u64,
}

impl Node {
    /// Returns the ancestor's index at a level, or `None` below the node itself.
    fn index_at(self, level: u32) -> Option<u64> {
        level.checked_sub(self.level).map(|up| self.index >> up)
    }
}

#[derive(Debug, Clone, Copy)]
enum Wanted {
    Inclusion(u64),
    Consistency(u64),
}

/// Makes a proof in one pass over the leaves of a log of any length, in constant memory.
///
/// ```
/// use audit_chain::merkle::{ProofBuilder, leaf_hash, verify_inclusion};
///
/// let mut builder = ProofBuilder::inclusion(2);
/// for entry in ["one", "two", "three", "four", "five"] {
///     builder.push(leaf_hash(entry.as_bytes()));
/// }
/// let proof = builder.finish()?;
/// verify_inclusion(&leaf_hash(b"three"), 2, proof.size, &proof.path, &proof.root)?;
/// # Ok::<(), audit_chain::error::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ProofBuilder {
    wanted: Wanted,
    /// The node whose siblings are the proof: the leaf, or the smallest complete subtree at the end of the old log.
    target: Option<Node>,
    log: Frontier,
    seed: Hash,
    old_root: Hash,
    path: Vec<Hash>,
}

impl ProofBuilder {
    /// Begins the proof that the leaf at `index` (from 0) is in the log.
    #[must_use]
    pub fn inclusion(index: u64) -> Self {
        Self::new(Wanted::Inclusion(index), Some(Node { level: 0, index }))
    }

    /// Begins the proof that the log extends its own first `old_size` leaves.
    #[must_use]
    pub fn consistency(old_size: u64) -> Self {
        let target = (old_size > 0).then(|| {
            let level = old_size.trailing_zeros();
            Node { level, index: (old_size >> level) - 1 }
        });
        Self::new(Wanted::Consistency(old_size), target)
    }

    fn new(wanted: Wanted, target: Option<Node>) -> Self {
        let nothing = empty_root();
        Self { wanted, target, log: Frontier::new(), seed: nothing, old_root: nothing, path: Vec::new() }
    }

    /// Takes the next leaf hash of the log.
    pub fn push(&mut self, leaf: Hash) {
        let position = self.log.size();
        let Self { target, log, seed, path, .. } = self;
        match target {
            None => log.push(leaf),
            Some(target) => {
                if target.level == 0 && target.index == position {
                    *seed = leaf;
                }
                log.push_observed(leaf, |level, left, right, parent| {
                    let parent_index = position >> (level + 1);
                    if target.level == level + 1 && target.index == parent_index {
                        *seed = *parent;
                    }
                    if let Some(child) = target.index_at(level)
                        && child >> 1 == parent_index
                    {
                        path.push(if child & 1 == 0 { *right } else { *left });
                    }
                });
            }
        }
        if matches!(self.wanted, Wanted::Consistency(old_size) if old_size == self.log.size()) {
            self.old_root = self.log.root();
        }
    }

    /// Returns the proof for the log as long as it is now.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when the log is too short for what is to be proven.
    pub fn finish(mut self) -> Result<Proof> {
        let size = self.log.size();
        let root = self.fold_siblings();
        match self.wanted {
            Wanted::Inclusion(index) if index >= size => {
                Err(Error::InvalidInput(format!("no entry {index} (from 0) in a log of {size} entries")))
            }
            Wanted::Inclusion(_) => Ok(Proof { size, root, subject: self.seed, path: self.path }),
            Wanted::Consistency(0) => Err(Error::InvalidInput(
                "every log extends one without entries: there is nothing to prove".into(),
            )),
            Wanted::Consistency(old_size) if old_size > size => Err(Error::InvalidInput(format!(
                "a log of {size} entries cannot extend one of {old_size} entries"
            ))),
            Wanted::Consistency(old_size) => {
                let path = if old_size == size {
                    Vec::new()
                } else if old_size.is_power_of_two() {
                    self.path
                } else {
                    std::iter::once(self.seed).chain(self.path).collect()
                };
                Ok(Proof { size, root, subject: self.old_root, path })
            }
        }
    }

    /// Joins the frontier to the root, from the smallest subtree up, keeping the siblings of the target.
    fn fold_siblings(&mut self) -> Hash {
        let size = self.log.size();
        let mut nodes = self.log.nodes().iter().rev();
        let mut tail: Option<(Hash, bool)> = None;
        for level in (0..u64::BITS).filter(|level| (size >> level) & 1 == 1) {
            let Some(node) = nodes.next() else { break };
            let here = self.target.and_then(|target| target.index_at(level)) == Some((size >> level) - 1);
            tail = Some(match tail {
                None => (*node, here),
                Some((right, right_holds_it)) => {
                    if here {
                        self.path.push(right);
                    } else if right_holds_it {
                        self.path.push(*node);
                    }
                    (node_hash(node, &right), here || right_holds_it)
                }
            });
        }
        tail.map_or_else(empty_root, |(root, _)| root)
    }
}

/// Makes the proof that the leaf at `index` (from 0) is in the log of these leaf hashes.
///
/// # Errors
/// [`Error::InvalidInput`] when there is no such leaf.
///
/// # Source
/// RFC 6962 §2.1.1.
pub fn inclusion_proof(leaves: &[Hash], index: u64) -> Result<Vec<Hash>> {
    build(ProofBuilder::inclusion(index), leaves)
}

/// Makes the proof that the log of these leaf hashes extends its own first `old_size` leaves.
///
/// # Errors
/// [`Error::InvalidInput`] when the log is shorter than that, or `old_size` is 0.
///
/// # Source
/// RFC 6962 §2.1.2.
pub fn consistency_proof(leaves: &[Hash], old_size: u64) -> Result<Vec<Hash>> {
    build(ProofBuilder::consistency(old_size), leaves)
}

fn build(mut builder: ProofBuilder, leaves: &[Hash]) -> Result<Vec<Hash>> {
    for leaf in leaves {
        builder.push(*leaf);
    }
    Ok(builder.finish()?.path)
}

/// Verifies that the leaf hash stands at `index` (from 0) in the log of `size` leaves with this root.
///
/// # Errors
/// [`Error::Unverified`] when the proof does not show that.
///
/// # Source
/// RFC 9162 §2.1.3.2.
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> Result<()> {
    let fail =
        |why| Error::Unverified { what: format!("inclusion of entry {index} in a log of {size}"), why };
    if index >= size {
        return Err(fail("entries are numbered from 0: there is no such entry".into()));
    }
    let (inner, border) = path_lengths(index, size);
    if proof.len() != inner + border {
        return Err(fail(format!("expected a proof of {} hashes, found {}", inner + border, proof.len())));
    }
    let (low, high) = proof.split_at(inner);
    let found = join_border(join_inner(*leaf, low, index), high);
    if found != *root {
        return Err(fail(roots_differ(root, &found)));
    }
    Ok(())
}

/// Verifies that the log of `new_size` leaves with `new_root` extends the log of `old_size` leaves with `old_root`.
///
/// An older log without entries is refused, as RFC 6962 and its reference implementation have it: every log
/// extends it, so there is nothing to prove, and a caller who holds such a checkpoint need not ask.
///
/// # Errors
/// [`Error::Unverified`] when the proof does not show that.
///
/// # Source
/// RFC 9162 §2.1.4.2.
pub fn verify_consistency(
    old_size: u64,
    new_size: u64,
    old_root: &Hash,
    new_root: &Hash,
    proof: &[Hash],
) -> Result<()> {
    let fail = |why| Error::Unverified {
        what: format!("consistency of a log of {new_size} with its first {old_size} entries"),
        why,
    };
    let wrong_length =
        |expected| fail(format!("expected a proof of {expected} hashes, found {}", proof.len()));
    if old_size > new_size {
        return Err(fail("the newer log is shorter than the older".into()));
    }
    if old_size == 0 {
        return Err(fail("every log extends one without entries: there is nothing to prove".into()));
    }
    if old_size == new_size {
        if !proof.is_empty() {
            return Err(wrong_length(0));
        }
        if old_root != new_root {
            return Err(fail(roots_differ(old_root, new_root)));
        }
        return Ok(());
    }

    // The walk starts at the smallest complete subtree at the end of the old log; its hash leads the proof,
    // unless it is the whole old log.
    let shift = old_size.trailing_zeros() as usize;
    let (inner, border) = path_lengths(old_size - 1, new_size);
    let inner = inner.saturating_sub(shift);
    let (seed, path) = if old_size.is_power_of_two() {
        (old_root, proof)
    } else {
        proof.split_first().ok_or_else(|| wrong_length(1 + inner + border))?
    };
    if path.len() != inner + border {
        return Err(wrong_length(proof.len() - path.len() + inner + border));
    }
    let (low, high) = path.split_at(inner);
    let index = (old_size - 1) >> shift;
    let left_siblings =
        low.iter().enumerate().filter(|(level, _)| (index >> level) & 1 == 1).map(|(_, node)| node);
    let found = left_siblings.chain(high).fold(*seed, |right, left| node_hash(left, &right));
    if found != *old_root {
        return Err(fail(format!(
            "the older root is not a part of the proof: {}",
            roots_differ(old_root, &found)
        )));
    }
    let found = join_border(join_inner(*seed, low, index), high);
    if found != *new_root {
        return Err(fail(format!("the proof leads to another root: {}", roots_differ(new_root, &found))));
    }
    Ok(())
}

/// Returns how many hashes of the path to a leaf lie below the point where it meets the path to the last
/// leaf (siblings on either side), and how many above (only left siblings).
fn path_lengths(index: u64, size: u64) -> (usize, usize) {
    let inner = u64::BITS - (index ^ (size - 1)).leading_zeros();
    let border = index.checked_shr(inner).unwrap_or(0).count_ones();
    (inner as usize, border as usize)
}

/// Climbs from a node, whose index tells at each level on which side its sibling is.
fn join_inner(seed: Hash, siblings: &[Hash], index: u64) -> Hash {
    siblings.iter().enumerate().fold(seed, |node, (level, sibling)| {
        if (index >> level) & 1 == 0 { node_hash(&node, sibling) } else { node_hash(sibling, &node) }
    })
}

/// Climbs along the right edge, where every sibling is to the left.
fn join_border(seed: Hash, siblings: &[Hash]) -> Hash {
    siblings.iter().fold(seed, |node, sibling| node_hash(sibling, &node))
}

fn roots_differ(expected: &Hash, found: &Hash) -> String {
    format!("expected root {}, found {}", hex::encode(expected), hex::encode(found))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// MTH of RFC 6962 §2.1, word for word.
    fn recursive_root(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(largest_power_below(leaves.len()));
                node_hash(&recursive_root(left), &recursive_root(right))
            }
        }
    }

    /// PATH of RFC 6962 §2.1.1, word for word.
    fn recursive_path(index: usize, leaves: &[Hash]) -> Vec<Hash> {
        if leaves.len() == 1 {
            return Vec::new();
        }
        let k = largest_power_below(leaves.len());
        let (left, right) = leaves.split_at(k);
        let (mut path, sibling) = if index < k {
            (recursive_path(index, left), recursive_root(right))
        } else {
            (recursive_path(index - k, right), recursive_root(left))
        };
        path.push(sibling);
        path
    }

    /// SUBPROOF of RFC 6962 §2.1.2, word for word.
    fn recursive_subproof(old: usize, leaves: &[Hash], whole: bool) -> Vec<Hash> {
        if old == leaves.len() {
            return if whole { Vec::new() } else { vec![recursive_root(leaves)] };
        }
        let k = largest_power_below(leaves.len());
        let (left, right) = leaves.split_at(k);
        let (mut proof, sibling) = if old <= k {
            (recursive_subproof(old, left, whole), recursive_root(right))
        } else {
            (recursive_subproof(old - k, right, false), recursive_root(left))
        };
        proof.push(sibling);
        proof
    }

    fn largest_power_below(n: usize) -> usize {
        n.next_power_of_two() / 2
    }

    fn leaves(count: usize) -> Vec<Hash> {
        (0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect()
    }

    #[test]
    fn roots_of_the_reference_leaves_are_those_of_the_reference_implementation() {
        let entries: [&[u8]; 8] =
            [b"", b"\x00", b"\x10", b" !", b"01", b"@ABC", b"PQRSTUVW", b"`abcdefghijklmno"];
        let leaves: Vec<Hash> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        assert_eq!(
            hex::encode(root(&leaves)),
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
        );
        assert_eq!(
            hex::encode(root(&[])),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn every_small_log_gives_the_roots_and_proofs_of_the_recursive_definition() {
        let all = leaves(70);
        for size in 0..=all.len() {
            let log = &all[..size];
            let expected = recursive_root(log);
            assert_eq!(root(log), expected, "size {size}");
            for index in 0..size {
                let proof = inclusion_proof(log, index as u64).unwrap();
                assert_eq!(proof, recursive_path(index, log), "inclusion {index} in {size}");
                verify_inclusion(&log[index], index as u64, size as u64, &proof, &expected).unwrap();
            }
            for old in 1..=size {
                let proof = consistency_proof(log, old as u64).unwrap();
                assert_eq!(proof, recursive_subproof(old, log, true), "consistency {old} in {size}");
                let old_root = recursive_root(&log[..old]);
                verify_consistency(old as u64, size as u64, &old_root, &expected, &proof).unwrap();
            }
        }
    }

    #[test]
    fn a_log_continues_from_saved_parts() {
        let all = leaves(100);
        for cut in 0..=all.len() {
            let first: Frontier = all[..cut].iter().copied().collect();
            let mut second = Frontier::from_parts(first.size(), first.nodes().to_vec()).unwrap();
            second.extend(all[cut..].iter().copied());
            assert_eq!(second.root(), root(&all), "cut at {cut}");
        }
    }

    #[test]
    fn saved_parts_that_do_not_fit_their_size_are_refused() {
        assert!(Frontier::from_parts(3, leaves(1)).is_err());
        assert!(Frontier::from_parts(0, leaves(1)).is_err());
        assert!(Frontier::from_parts(u64::MAX, leaves(64)).is_err());
    }

    #[test]
    fn proofs_of_what_is_not_in_the_log_are_not_made() {
        assert!(inclusion_proof(&leaves(5), 5).is_err());
        assert!(inclusion_proof(&[], 0).is_err());
        assert!(consistency_proof(&leaves(5), 6).is_err());
    }

    #[test]
    fn an_older_log_without_entries_needs_and_has_no_proof() {
        let root = root(&leaves(3));
        verify_consistency(0, 3, &empty_root(), &root, &[]).unwrap_err();
        verify_consistency(0, 0, &empty_root(), &empty_root(), &[]).unwrap_err();
        assert!(consistency_proof(&leaves(3), 0).is_err());
    }

    #[test]
    fn the_builder_names_the_old_root_and_the_leaf() {
        let all = leaves(11);
        let mut consistency = ProofBuilder::consistency(6);
        let mut inclusion = ProofBuilder::inclusion(6);
        for leaf in &all {
            consistency.push(*leaf);
            inclusion.push(*leaf);
        }
        let proof = consistency.finish().unwrap();
        assert_eq!((proof.subject, proof.root, proof.size), (root(&all[..6]), root(&all), 11));
        assert_eq!(inclusion.finish().unwrap().subject, all[6]);
    }

    proptest! {
        #[test]
        fn sizes_and_proofs_of_strangers_are_refused_without_a_crash(
            index: u64, size: u64, old: u64, hashes in proptest::collection::vec(any::<Hash>(), 0..70), root: Hash,
        ) {
            prop_assert!(verify_inclusion(&root, index, size, &hashes, &empty_root()).is_err());
            prop_assert!(verify_consistency(old, size, &root, &empty_root(), &hashes).is_err());
        }

        #[test]
        fn any_flipped_bit_of_an_inclusion_proof_is_caught(size in 1_usize..200, at: prop::sample::Index, flip: prop::sample::Index) {
            let log = leaves(size);
            let index = at.index(size);
            let root = root(&log);
            let mut proof = inclusion_proof(&log, index as u64).unwrap();
            let mut leaf = log[index];
            let bit = flip.index(256 * (proof.len() + 1));
            let target = if bit < 256 { &mut leaf } else { &mut proof[bit / 256 - 1] };
            target[bit % 256 / 8] ^= 1 << (bit % 8);
            prop_assert!(verify_inclusion(&leaf, index as u64, size as u64, &proof, &root).is_err());
        }

        #[test]
        fn any_flipped_bit_of_a_consistency_proof_is_caught(new in 1_usize..200, cut: prop::sample::Index, flip: prop::sample::Index) {
            let log = leaves(new);
            let old = 1 + cut.index(new);
            let mut hashes = vec![root(&log[..old]), root(&log)];
            hashes.extend(consistency_proof(&log, old as u64).unwrap());
            let bit = flip.index(256 * hashes.len());
            hashes[bit / 256][bit % 256 / 8] ^= 1 << (bit % 8);
            prop_assert!(verify_consistency(old as u64, new as u64, &hashes[0], &hashes[1], &hashes[2..]).is_err());
        }

        #[test]
        fn a_log_that_rewrites_an_old_entry_is_not_consistent(new in 2_usize..120, cut: prop::sample::Index, edit: prop::sample::Index) {
            let honest = leaves(new);
            let old = 1 + cut.index(new - 1);
            let mut rewritten = honest.clone();
            rewritten[edit.index(old)] = leaf_hash(b"another");
            let proof = consistency_proof(&rewritten, old as u64).unwrap();
            prop_assert!(verify_consistency(old as u64, new as u64, &root(&honest[..old]), &root(&rewritten), &proof).is_err());
        }
    }
}
