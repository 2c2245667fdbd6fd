//! `toc.json` of a parallel dump: which rows of which table lie where, with their number and digest.
//!
//! `write` makes it last, when everything else is stored; `load` and `check` go by it. People restore without it: the data files are scripts.
//!
//! ```text
//! database/<name>/
//!   schema.dump       pg_dump custom format, sections pre-data and post-data, uncompressed
//!   data/00001.sql    COPY … FROM stdin; rows; \. — and again; some 256 MiB each
//!   sequences.sql     setval of every sequence
//!   large-objects.sql         lo_create of every large object, owners, rights, comments
//!   large-objects/00001.sql   lo_put of every large object, in pieces
//!   restore.sh        loads all of it with pg_restore and psql
//!   toc.json          this
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// What the member `format` says.
pub const FORMAT: &str = "attestore-postgres-parallel";
/// The version of the format that this program writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// The table of contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toc {
    /// [`FORMAT`].
    pub format: String,
    /// [`FORMAT_VERSION`] or below.
    pub format_version: u32,
    /// The database's name.
    pub database: String,
    /// `server_version_num` of the server that was dumped.
    pub server: i32,
    /// The database's encoding, and that of the data files where it is SQL_ASCII; they are UTF-8 otherwise.
    pub encoding: String,
    /// How many sequences `sequences.sql` sets.
    pub sequences: u64,
    /// How many large objects there are.
    pub large_objects: u64,
    /// Their bytes.
    pub large_object_bytes: u64,
    /// The sum of the digests of the lines in `large-objects/`, without what each file begins with.
    pub large_object_sum: String,
    /// The data files, in order.
    pub data: Vec<DataFile>,
    /// The tables by name (`"schema"."table"`, quoted whatever it is).
    pub tables: BTreeMap<String, TableEntry>,
}

/// One data file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    /// Its path under `database/<name>/`.
    pub name: String,
    /// The blocks in it, in order.
    pub blocks: Vec<Block>,
}

/// Rows of one table inside a data file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// The table, as the list of tables names it.
    pub table: String,
    /// Where its first row begins, in bytes.
    pub offset: u64,
    /// How many bytes its rows are, with their line ends, without the closing `\.`.
    pub bytes: u64,
    /// How many rows.
    pub rows: u64,
}

/// One table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableEntry {
    /// How many rows.
    pub rows: u64,
    /// The sum of its rows' digests ([`super::digest::RowSum`]).
    pub sum: String,
    /// The statement that reads its rows again for such a sum, in any order.
    pub select: String,
    /// The statement that loads its rows.
    pub copy: String,
}

impl Toc {
    /// Writes it as JSON.
    ///
    /// # Errors
    /// Never for what this crate makes.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let mut text = serde_json::to_vec(self)
            .map_err(|error| Error::new(ErrorKind::Internal, format!("cannot write toc.json: {error}")))?;
        text.push(b'\n');
        Ok(text)
    }

    /// Reads it.
    ///
    /// # Errors
    /// `Malformed` when it is none; `Newer` when a newer program made it.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Probe {
            format: String,
            format_version: u32,
        }
        let malformed = |what: String| Error::new(ErrorKind::Malformed, format!("toc.json: {what}"));
        let probe: Probe = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
        if probe.format != FORMAT {
            return Err(malformed(format!("format: expected {FORMAT:?}, found {:?}", probe.format)));
        }
        if probe.format_version > FORMAT_VERSION {
            return Err(Error::new(
                ErrorKind::Newer,
                format!(
                    "toc.json has format version {}, this program reads up to {FORMAT_VERSION}",
                    probe.format_version
                ),
            )
            .with_hint("use the newer Attestore that made this backup"));
        }
        let toc: Self = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
        toc.check().map_err(malformed)?;
        Ok(toc)
    }

    /// Checks that files and tables agree.
    fn check(&self) -> Result<(), String> {
        let mut rows: BTreeMap<&str, u64> = BTreeMap::new();
        for file in &self.data {
            let mut end = 0;
            for block in &file.blocks {
                let place =
                    || format!("{}: the rows of {:?} at byte {}", file.name, block.table, block.offset);
                if block.offset < end {
                    return Err(format!("{} lie in those before", place()));
                }
                end = block
                    .offset
                    .checked_add(block.bytes)
                    .ok_or_else(|| format!("{} have no end", place()))?;
                if !self.tables.contains_key(&block.table) {
                    return Err(format!("{} are of no table of the list", place()));
                }
                let sum = rows.entry(block.table.as_str()).or_default();
                *sum = sum.saturating_add(block.rows);
            }
        }
        for (name, table) in &self.tables {
            let found = rows.get(name.as_str()).copied().unwrap_or(0);
            if found != table.rows {
                return Err(format!("table {name:?}: expected {} rows, the files hold {found}", table.rows));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toc() -> Toc {
        let table = TableEntry { rows: 3, sum: "00".into(), select: "s".into(), copy: "c".into() };
        Toc {
            format: FORMAT.into(),
            format_version: FORMAT_VERSION,
            database: "d".into(),
            server: 150_018,
            encoding: "UTF8".into(),
            sequences: 0,
            large_objects: 0,
            large_object_bytes: 0,
            large_object_sum: "00".into(),
            data: vec![DataFile {
                name: "data/00001.sql".into(),
                blocks: vec![
                    Block { table: "s.t".into(), offset: 10, bytes: 5, rows: 1 },
                    Block { table: "s.t".into(), offset: 20, bytes: 5, rows: 2 },
                ],
            }],
            tables: BTreeMap::from([("s.t".to_owned(), table)]),
        }
    }

    #[test]
    fn it_reads_back_as_it_was() {
        let toc = toc();
        assert_eq!(Toc::from_json(&toc.to_json().unwrap()).unwrap(), toc);
    }

    #[test]
    fn one_that_contradicts_itself_is_refused() {
        let spoil = |change: fn(&mut Toc)| {
            let mut toc = toc();
            change(&mut toc);
            Toc::from_json(&toc.to_json().unwrap()).unwrap_err()
        };
        for change in [
            (|toc| toc.data[0].blocks[0].rows = 9) as fn(&mut Toc),
            |toc| toc.data[0].blocks[1].offset = 12,
            |toc| toc.data[0].blocks[1].table = "x".into(),
            |toc| toc.data[0].blocks[1].bytes = u64::MAX,
            |toc| toc.data.clear(),
            |toc| toc.format = "x".into(),
        ] {
            assert_eq!(spoil(change).kind(), ErrorKind::Malformed);
        }
        assert_eq!(spoil(|toc| toc.format_version = 2).kind(), ErrorKind::Newer);
    }
}
