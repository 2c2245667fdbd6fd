//! Cuts a table's heap into ranges of pages, so that several connections read it at once.
//!
//! `catalog` says how many pages a table has, `lane` reads one range after the other in the one snapshot:
//!
//! ```text
//! COPY (SELECT … FROM ONLY t WHERE ctid >= '(0,0)'::tid AND ctid < '(512,0)'::tid) TO STDOUT     TID range scan, PostgreSQL 14
//! COPY (SELECT … FROM ONLY t WHERE ctid >= '(512,0)'::tid) TO STDOUT                             the last has no end
//! ```
//! The last range has no end because pages may be added while the backup runs: rows of the snapshot never move to
//! them, but whether the size was read before or after it does not matter then.

/// A page of a table's heap, in bytes, unless the server was built otherwise.
pub(crate) const PAGE_BYTES: u64 = 8_192;

/// The first server that scans a range of row places without reading the whole table.
pub(crate) const RANGES_SINCE: u32 = 140_000;

/// Pages from `from` up to but not including `to`; without an end where `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pages {
    pub(crate) from: u32,
    pub(crate) to: Option<u32>,
}

impl Pages {
    /// Returns the condition on `ctid`; `None` for the whole table.
    pub(crate) fn condition(&self) -> Option<String> {
        match (self.from, self.to) {
            (0, None) => None,
            (from, None) => Some(format!("ctid >= '({from},0)'::tid")),
            (from, Some(to)) => Some(format!("ctid >= '({from},0)'::tid AND ctid < '({to},0)'::tid")),
        }
    }
}

/// How a table is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    pages: u32,
    step: u32,
}

impl Cut {
    /// Leaves a table whole.
    pub(crate) const WHOLE: Self = Self { pages: 0, step: u32::MAX };

    /// Cuts a heap of `bytes` into ranges of about `piece_bytes`.
    pub(crate) fn new(bytes: u64, page_bytes: u64, piece_bytes: u64) -> Self {
        let page_bytes = page_bytes.max(1);
        // A table has at most 2^32 - 2 pages.
        let pages = u32::try_from(bytes.div_ceil(page_bytes)).unwrap_or(u32::MAX - 1);
        let step = u32::try_from((piece_bytes / page_bytes).max(1)).unwrap_or(u32::MAX);
        Self { pages, step }
    }

    /// Returns how many ranges there are, at least one.
    pub(crate) fn count(&self) -> u32 {
        self.pages.div_ceil(self.step).max(1)
    }

    /// Returns one range.
    pub(crate) fn get(&self, at: u32) -> Pages {
        let from = at.saturating_mul(self.step);
        let to = (at + 1 < self.count()).then(|| from.saturating_add(self.step));
        Pages { from, to }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_small_table_is_read_whole() {
        for bytes in [0, 1, PAGE_BYTES, 8 * PAGE_BYTES] {
            let cut = Cut::new(bytes, PAGE_BYTES, 8 * PAGE_BYTES);
            assert_eq!(cut.count(), 1, "{bytes}");
            assert_eq!(cut.get(0).condition(), None);
        }
        assert_eq!(Cut::WHOLE.get(0).condition(), None);
        assert_eq!(Cut::WHOLE.count(), 1);
    }

    #[test]
    fn the_last_range_has_no_end() {
        let cut = Cut::new(17 * PAGE_BYTES, PAGE_BYTES, 8 * PAGE_BYTES);
        assert_eq!(cut.count(), 3);
        let conditions: Vec<_> = (0..3).map(|at| cut.get(at).condition().unwrap()).collect();
        assert_eq!(
            conditions,
            [
                "ctid >= '(0,0)'::tid AND ctid < '(8,0)'::tid",
                "ctid >= '(8,0)'::tid AND ctid < '(16,0)'::tid",
                "ctid >= '(16,0)'::tid",
            ]
        );
    }

    proptest! {
        #[test]
        fn every_page_is_in_exactly_one_range(bytes in 0_u64..(1 << 46), piece in 0_u64..(1 << 30), probe in any::<u32>()) {
            let cut = Cut::new(bytes, PAGE_BYTES, piece);
            let count = cut.count();
            let at = (probe / cut.step).min(count - 1);
            let holds = |at: u32| {
                let range = cut.get(at);
                range.from <= probe && range.to.is_none_or(|to| probe < to)
            };
            prop_assert!(holds(at));
            for other in [at.wrapping_sub(1), at + 1].into_iter().filter(|other| *other < count) {
                prop_assert!(!holds(other));
            }
            // Neighbours meet.
            if at + 1 < count {
                prop_assert_eq!(cut.get(at).to, Some(cut.get(at + 1).from));
            }
            prop_assert_eq!(cut.get(count - 1).to, None);
        }
    }
}
