//! Large objects: read in pieces in the snapshot, stored as statements that make and write them again, one a line.
//!
//! `pg_dump` is told to leave them out: its versions do not agree on the section that they belong to, and it reads them one by one.
//!
//! ```text
//! large-objects.sql         SELECT pg_catalog.lo_create(16401);
//!                           ALTER LARGE OBJECT 16401 OWNER TO app;      then rights, comments, labels
//! large-objects/00001.sql   SELECT pg_catalog.lo_put(16401, 0, '\x89504e47…');
//! ```
//! Pieces begin at multiples of [`PIECE_BYTES`], so that the sum of the lines' digests is the same after a restore.

use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use backup_core::context::{Context, Progress};
use backup_core::error::Error as CoreError;
use backup_core::traits::{ObjectSink, Sinks};

use super::digest::RowSum;
use super::lane::FILE_BYTES;
use super::script;
use crate::connect::Connection;
use crate::error::Result;

/// How much of an object is read at once, in bytes.
pub(crate) const PIECE_BYTES: i32 = 128 << 10;
/// How many objects are begun by one query.
const BATCH: usize = 32;

/// Returns the statements that make the objects, with owners, rights, comments and labels.
///
/// # Errors
/// What the server says; `Cancelled`.
pub(crate) fn definitions(connection: &mut Connection, ctx: &Context) -> Result<String> {
    let rows = connection.run("list the large objects of", ctx, |client| {
        client.query(
            "SELECT m.oid, m.lomowner::regrole::text, pg_catalog.obj_description(m.oid, 'pg_largeobject'), m.lomacl IS NOT NULL, \
               ARRAY(SELECT format('GRANT %s ON LARGE OBJECT %s TO %s%s', string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type), m.oid, \
                 CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END, CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END) \
                 FROM pg_catalog.aclexplode(m.lomacl) a GROUP BY a.grantee, a.is_grantable ORDER BY 1), \
               ARRAY(SELECT format('SECURITY LABEL FOR %I ON LARGE OBJECT %s IS ', l.provider, m.oid) FROM pg_catalog.pg_seclabel l \
                 WHERE l.classoid = 'pg_catalog.pg_largeobject'::regclass AND l.objoid = m.oid ORDER BY l.provider), \
               ARRAY(SELECT l.label FROM pg_catalog.pg_seclabel l \
                 WHERE l.classoid = 'pg_catalog.pg_largeobject'::regclass AND l.objoid = m.oid ORDER BY l.provider) \
             FROM pg_catalog.pg_largeobject_metadata m ORDER BY m.oid",
            &[],
        )
    })?;
    let mut text = script::prologue("UTF8");
    for row in rows {
        let (oid, owner): (u32, String) = (row.get(0), row.get(1));
        text.push_str(&format!(
            "SELECT pg_catalog.lo_create({oid});\nALTER LARGE OBJECT {oid} OWNER TO {owner};\n"
        ));
        if let Some(comment) = row.get::<_, Option<String>>(2) {
            text.push_str(&format!("COMMENT ON LARGE OBJECT {oid} IS {};\n", script::one_line(&comment)));
        }
        if row.get(3) {
            text.push_str(&format!("REVOKE ALL ON LARGE OBJECT {oid} FROM PUBLIC, {owner};\n"));
        }
        for grant in row.get::<_, Vec<String>>(4) {
            text.push_str(&format!("{grant};\n"));
        }
        for (label, value) in row.get::<_, Vec<String>>(5).iter().zip(row.get::<_, Vec<String>>(6)) {
            text.push_str(&format!("{label}{};\n", script::one_line(&value)));
        }
    }
    Ok(text)
}

/// The objects that are still to be read, shared by the connections that read them.
pub(crate) struct Queue<'a> {
    oids: &'a [u32],
    next: AtomicUsize,
    files: AtomicUsize,
}

impl<'a> Queue<'a> {
    pub(crate) fn new(oids: &'a [u32]) -> Self {
        Self { oids, next: AtomicUsize::new(0), files: AtomicUsize::new(1) }
    }

    fn take(&self) -> Option<&'a [u32]> {
        let from = self.next.fetch_add(BATCH, Ordering::Relaxed);
        let to = self.oids.len().min(from.saturating_add(BATCH));
        self.oids.get(from..to).filter(|batch| !batch.is_empty())
    }
}

/// What was read.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Read {
    pub(crate) bytes: u64,
    pub(crate) sum: RowSum,
}

/// Reads objects of the queue until there are none left, handing each line on.
///
/// # Errors
/// What the server or `line` says; `Cancelled`.
pub(crate) fn read(
    connection: &mut Connection,
    queue: &Queue<'_>,
    line: &mut dyn FnMut(&[u8]) -> Result<()>,
    ctx: &Context,
) -> Result<Read> {
    let mut done = Read::default();
    while let Some(batch) = queue.take() {
        let mut unfinished = Vec::new();
        for (oid, bytes) in begin(connection, batch, ctx)? {
            if put(oid, 0, &bytes, &mut done, line)? {
                unfinished.push(oid);
            }
        }
        for oid in unfinished {
            let mut from = i64::from(PIECE_BYTES);
            loop {
                let bytes = connection.run(&format!("read large object {oid} of"), ctx, |client| {
                    let row = client
                        .query_one("SELECT pg_catalog.lo_get($1, $2, $3)", &[&oid, &from, &PIECE_BYTES])?;
                    Ok(row.get::<_, Vec<u8>>(0))
                })?;
                if !put(oid, from, &bytes, &mut done, line)? {
                    break;
                }
                from += i64::from(PIECE_BYTES);
            }
        }
        ctx.progress(Progress {
            stage: "snapshot",
            object: "large objects",
            done: done.bytes,
            total: None,
            unit: "bytes",
        });
    }
    Ok(done)
}

/// Reads the first piece of each object of a batch.
fn begin(connection: &mut Connection, batch: &[u32], ctx: &Context) -> Result<Vec<(u32, Vec<u8>)>> {
    let names = match batch {
        [one] => format!("large object {one}"),
        [first, .., last] => format!("the large objects {first} to {last}"),
        [] => return Ok(Vec::new()),
    };
    connection.run(&format!("read {names} of"), ctx, |client| {
        let rows = client.query(
            "SELECT oid, pg_catalog.lo_get(oid, 0, $2) FROM unnest($1::oid[]) AS oid",
            &[&batch, &PIECE_BYTES],
        )?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    })
}

/// Hands one piece on; returns whether more may follow.
fn put(
    oid: u32,
    from: i64,
    bytes: &[u8],
    done: &mut Read,
    line: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<bool> {
    if bytes.is_empty() {
        return Ok(false);
    }
    let text = statement(oid, from, bytes);
    done.sum.add(text.as_bytes());
    done.bytes += bytes.len() as u64;
    line(text.as_bytes())?;
    Ok(bytes.len() == usize::try_from(PIECE_BYTES).unwrap_or(usize::MAX))
}

/// Returns the line that writes a piece.
fn statement(oid: u32, from: i64, bytes: &[u8]) -> String {
    format!("SELECT pg_catalog.lo_put({oid}, {from}, '\\x{}');\n", hex::encode(bytes))
}

/// Stores the objects of the queue in files of this connection's own.
///
/// # Errors
/// As [`read`]; what the sink says.
pub(crate) fn store(
    connection: &mut Connection,
    queue: &Queue<'_>,
    folder: &str,
    sinks: &dyn Sinks,
    ctx: &Context,
) -> Result<Read> {
    let mut open: Option<(String, Box<dyn ObjectSink + '_>, u64)> = None;
    let done = read(
        connection,
        queue,
        &mut |line| {
            if open.as_ref().is_some_and(|(_, _, bytes)| *bytes >= FILE_BYTES)
                && let Some((_, sink, _)) = open.take()
            {
                sink.finish()?;
            }
            let (object, sink, bytes) = match &mut open {
                Some(open) => open,
                None => {
                    let number = queue.files.fetch_add(1, Ordering::Relaxed);
                    let object = format!("{folder}large-objects/{number:05}.sql");
                    let mut sink = sinks.object(&object, Some(0))?;
                    sink.write_all(script::prologue("UTF8").as_bytes())
                        .map_err(|error| CoreError::io("store", &object, error))?;
                    open.insert((object, sink, 0))
                }
            };
            sink.write_all(line).map_err(|error| CoreError::io("store", object, error))?;
            *bytes += line.len() as u64;
            Ok(())
        },
        ctx,
    )?;
    if let Some((_, sink, _)) = open {
        sink.finish()?;
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_is_taken_by_exactly_one_connection() {
        let oids: Vec<u32> = (0..100).collect();
        let queue = Queue::new(&oids);
        let mut taken = Vec::new();
        while let Some(batch) = queue.take() {
            taken.extend_from_slice(batch);
        }
        assert_eq!(taken, oids);
        assert!(queue.take().is_none());
        assert!(Queue::new(&[]).take().is_none());
    }

    #[test]
    fn a_piece_is_one_line_and_only_a_full_one_has_a_next() {
        let mut lines = Vec::new();
        let mut done = Read::default();
        let full = vec![7; usize::try_from(PIECE_BYTES).unwrap()];
        let mut take = |line: &[u8]| {
            lines.push(String::from_utf8(line.to_vec()).unwrap());
            Ok(())
        };
        assert!(put(5, 0, &full, &mut done, &mut take).unwrap());
        assert!(!put(5, i64::from(PIECE_BYTES), b"\x00\xff", &mut done, &mut take).unwrap());
        assert!(!put(6, 0, b"", &mut done, &mut take).unwrap());
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1], "SELECT pg_catalog.lo_put(5, 131072, '\\x00ff');\n");
        assert_eq!((done.bytes, done.sum.rows()), (131_074, 2));
    }
}
