//! Several sources one after another, as one: an archive and what is left of the table, the segments of an
//! incremental export, the pages of a service.
//!
//! The columns are all columns of all sources, in the order in which they come; a source that lacks one yields
//! [`Value::Absent`] there. Chunks keep their order: a worker goes on to the next source when every chunk of the one
//! before is done, so that their numbers have no gap.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::Result;
use crate::source::{ChunkReader, RowSource};
use crate::value::{Columns, Row, Value};

/// Several sources as one.
pub struct Joined<'a> {
    name: String,
    columns: Columns,
    parts: Vec<Part<'a>>,
    state: Mutex<State>,
    changed: Condvar,
}

/// One source, and where its columns stand in the whole; `None` where they stand at the same places.
struct Part<'a> {
    source: Box<dyn RowSource + 'a>,
    places: Option<Vec<usize>>,
}

/// How far the pass is.
#[derive(Debug, Default, Clone, Copy)]
struct State {
    /// The source whose chunks are handed out.
    at: usize,
    /// How many chunks the sources before it had.
    before: u64,
    /// How many chunks of it are done, as far as known.
    done: u64,
    reading: usize,
    /// Whether a worker saw its end.
    ended: bool,
}

impl std::fmt::Debug for Joined<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Joined")
            .field("name", &self.name)
            .field("parts", &self.parts.len())
            .finish_non_exhaustive()
    }
}

impl<'a> Joined<'a> {
    /// Puts sources one behind the other.
    #[must_use]
    pub fn new(name: impl Into<String>, sources: Vec<Box<dyn RowSource + 'a>>) -> Self {
        let mut names: Vec<String> = Vec::new();
        for source in &sources {
            for column in source.columns().names() {
                if !names.contains(column) {
                    names.push(column.clone());
                }
            }
        }
        let columns = Columns::new(names);
        let place = |name: &String| columns.position(name).unwrap_or_default();
        let parts = sources.into_iter().map(|source| {
            let same = source.columns().names() == columns.names();
            let places = (!same).then(|| source.columns().names().iter().map(place).collect());
            Part { source, places }
        });
        let parts = parts.collect();
        Self { name: name.into(), columns, parts, state: Mutex::default(), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RowSource for Joined<'_> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn columns(&self) -> &Columns {
        &self.columns
    }

    fn reader(&self) -> Result<Box<dyn ChunkReader + '_>> {
        Ok(Box::new(Reader { joined: self, at: 0, inner: None }))
    }

    fn rewind(&self) -> Result<bool> {
        for part in &self.parts {
            if !part.source.rewind()? {
                return Ok(false);
            }
        }
        *self.lock() = State::default();
        Ok(true)
    }
}

/// One worker's reader.
struct Reader<'s> {
    joined: &'s Joined<'s>,
    at: usize,
    inner: Option<Box<dyn ChunkReader + 's>>,
}

/// Ends a worker's read however it ends, so that nobody waits for it.
struct Reading<'s>(&'s Joined<'s>);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.lock().reading -= 1;
        self.0.changed.notify_all();
    }
}

impl ChunkReader for Reader<'_> {
    fn read_chunk(&mut self, each: &mut dyn FnMut(&Row<'_>) -> Result<()>) -> Result<Option<u64>> {
        loop {
            let mut state = self.joined.lock();
            while state.ended && state.reading > 0 {
                state = self.joined.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.ended {
                *state = State { at: state.at + 1, before: state.before + state.done, ..State::default() };
                self.joined.changed.notify_all();
            }
            if self.at != state.at || self.inner.is_none() {
                self.at = state.at;
                self.inner = None;
            }
            let Some(part) = self.joined.parts.get(self.at) else { return Ok(None) };
            state.reading += 1;
            let before = state.before;
            drop(state);
            let reading = Reading(self.joined);
            let inner = match &mut self.inner {
                Some(inner) => inner,
                none => none.insert(part.source.reader()?),
            };
            let width = self.joined.columns.names().len();
            let number = match &part.places {
                None => inner.read_chunk(each)?,
                Some(places) => inner.read_chunk(&mut |row| {
                    let mut values = vec![Value::Absent; width];
                    for (at, value) in places.iter().zip(row.values) {
                        values[*at] = *value;
                    }
                    let mut extra = Vec::new();
                    for (name, value) in row.extra {
                        match self.joined.columns.position(name) {
                            Some(at) => values[at] = *value,
                            None => extra.push((*name, *value)),
                        }
                    }
                    each(&Row { values: &values, extra: &extra })
                })?,
            };
            let mut state = self.joined.lock();
            match number {
                Some(number) => {
                    state.done = state.done.max(number + 1);
                    drop(state);
                    drop(reading);
                    return Ok(Some(before + number));
                }
                None => state.ended = true,
            }
            drop(state);
            drop(reading);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical::RowForm;
    use crate::json_rows::NdjsonSource;

    fn joined(texts: &[&'static str]) -> Joined<'static> {
        let source = |text: &&'static str| -> Box<dyn RowSource> {
            let text = *text;
            Box::new(NdjsonSource::new("t", move || Ok(Some(Box::new(text.as_bytes())))).unwrap())
        };
        Joined::new("all", texts.iter().map(source).collect())
    }

    #[test]
    fn sources_follow_each_other_under_one_header() {
        let joined =
            joined(&["{\"a\":1}\n{\"a\":2,\"x\":0}\n", "", "{\"b\":\"t\",\"a\":3}\n", "{\"a\":4}\n"]);
        assert_eq!(joined.columns().names(), ["a", "b"]);
        for _ in 0..2 {
            let mut form = RowForm::new(joined.columns());
            let (mut lines, mut numbers) = (Vec::new(), Vec::new());
            let mut reader = joined.reader().unwrap();
            while let Some(number) = reader
                .read_chunk(&mut |row| {
                    lines.push(String::from_utf8(form.line(row).to_vec()).unwrap());
                    Ok(())
                })
                .unwrap()
            {
                numbers.push(number);
            }
            assert_eq!(lines, ["{\"a\":1}", "{\"a\":2,\"x\":0}", "{\"a\":3,\"b\":\"t\"}", "{\"a\":4}"]);
            assert_eq!(numbers, [0, 1, 2]);
            drop(reader);
            assert!(joined.rewind().unwrap());
        }
    }

    #[test]
    fn several_workers_number_the_chunks_without_a_gap() {
        let long: String = (0..40_000).map(|at| format!("{{\"a\":{at}}}\n")).collect();
        let long: &'static str = Box::leak(long.into_boxed_str());
        let joined = joined(&[long, long, long]);
        let found = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut reader = joined.reader().unwrap();
                    loop {
                        let mut rows = 0_u64;
                        let number = reader.read_chunk(&mut |_| {
                            rows += 1;
                            Ok(())
                        });
                        let Some(number) = number.unwrap() else { return };
                        found.lock().unwrap().push((number, rows));
                    }
                });
            }
        });
        let mut found = found.into_inner().unwrap();
        found.sort_unstable();
        assert!(found.iter().enumerate().all(|(at, (number, _))| at as u64 == *number), "{found:?}");
        assert_eq!(found.iter().map(|(_, rows)| rows).sum::<u64>(), 120_000);
    }
}
