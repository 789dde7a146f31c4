//! A trace as the files it is made of, for whoever plans what to read of them: the query engine.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use parquet::file::metadata::ParquetMetaData;

use super::reader::{TableReader, TraceReader, with_schema};
use super::schema::{Rows, Table, queried};
use super::segment::parquet_path;
use super::untrusted::Parquet;
use crate::error::{Error, Result};
use crate::event::{Batch, Kind, Nanos};
use crate::known::Note;

/// One table of one segment.
#[derive(Debug)]
pub(crate) enum Part {
    /// A Parquet file.
    AtRest(Arc<AtRest>),
    /// On its way to one: its rows as they were committed.
    InFlight(TableReader),
}

/// A Parquet file of a trace, open: it stays readable if the segment is removed meanwhile. Its metadata and the heads of
/// its pages have been checked.
#[derive(Debug)]
pub(crate) struct AtRest {
    path: PathBuf,
    file: File,
    bytes: u64,
    metadata: Arc<ParquetMetaData>,
}

impl AtRest {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its size in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Its metadata, with the index of its pages.
    pub(crate) fn metadata(&self) -> &Arc<ParquetMetaData> {
        &self.metadata
    }

    /// Reads a part of it.
    pub(crate) fn read(&self, range: std::ops::Range<u64>) -> Result<Vec<u8>> {
        if range.start > range.end || range.end > self.bytes {
            return Err(Error::damaged(&self.path, "has columns beyond its end"));
        }
        // No more than the file has.
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.file.read_exact_at(&mut bytes, range.start).map_err(Error::io("cannot read", &self.path))?;
        Ok(bytes)
    }
}

impl TraceReader {
    /// What a table is made of, oldest first; without segments in which nothing of the time between two moments is.
    pub(crate) fn parts(&self, name: &str, from: Option<Nanos>, until: Option<Nanos>) -> Result<Vec<Part>> {
        let Some(table) = self.tables().iter().copied().find(|table| table.name() == name) else {
            return Ok(Vec::new());
        };
        let mut parts = Vec::new();
        for &seq in self.seqs() {
            let path = parquet_path(self.dir(), table, seq);
            let Some(parquet) = Parquet::open_for_queries(path.clone(), table)? else {
                // Not at rest yet, or removed by now, which the reader finds out.
                parts.push(Part::InFlight(self.table_of(name, [seq])?));
                continue;
            };
            if parquet.span().is_some_and(|span| span.is_outside(from, until)) {
                continue;
            }
            let (file, bytes, metadata) = parquet.into_checked()?;
            parts.push(Part::AtRest(Arc::new(AtRest { path, file, bytes, metadata })));
        }
        Ok(parts)
    }

    /// The columns of a table as queries see them, as queries see them; none if the trace has no such table.
    pub(crate) fn columns(&self, name: &str) -> Option<SchemaRef> {
        self.tables().iter().find(|table| table.name() == name).map(|table| queried(&table.schema()))
    }

    /// The names of its tables.
    pub(crate) fn table_names(&self) -> impl Iterator<Item = &'static str> {
        self.tables().iter().map(|table| table.name())
    }

    /// Whether each segment says what tasks were doing when it began: then it can be analysed without those before it.
    pub(crate) fn has_statuses(&self) -> bool {
        self.tables().contains(&Table::States)
    }
}

/// The rows of one table, of a stream that no trace holds.
#[derive(Debug)]
pub(crate) struct StreamRows {
    table: Table,
    rows: Rows,
}

impl StreamRows {
    /// None if no table is called so.
    pub(crate) fn of(name: &str) -> Option<Self> {
        let table = Table::ALL.into_iter().find(|table| table.name() == name)?;
        Some(Self { table, rows: Rows::default() })
    }

    /// Takes what belongs to the table.
    pub(crate) fn read(&mut self, batch: &Batch) {
        let (table, rows, seen) = (self.table, &mut self.rows, batch.until);
        batch.names.iter().for_each(|name| rows.name(name));
        match table {
            Table::Tasks => batch.tasks.iter().for_each(|&item| rows.task(&Note { seen, carried: false, item })),
            Table::Cgroups => {
                let each = batch.cgroups.iter().cloned();
                each.for_each(|item| rows.cgroup(&Note { seen, carried: false, item }));
            }
            Table::Loss => {
                let each = batch.lost.iter().cloned();
                each.for_each(|item| rows.loss(&Note { seen, carried: false, item }));
            }
            Table::States => batch.statuses.iter().for_each(|status| rows.status(status, seen)),
            _ => {
                let events = batch.events.iter().chain(&batch.late);
                events.filter(|event| table_of(event.kind.kind()) == Some(table)).for_each(|event| {
                    rows.event(event);
                });
            }
        }
    }

    /// How many rows wait.
    pub(crate) fn len(&self) -> usize {
        self.rows.len(self.table)
    }

    /// Takes them out, as queries see them.
    pub(crate) fn take(&mut self) -> std::result::Result<RecordBatch, ArrowError> {
        with_schema(&queried(&self.table.schema()), &self.rows.take(self.table)?)
    }
}

/// Where events of a kind go; none of a record that is no event.
fn table_of(kind: Kind) -> Option<Table> {
    match kind {
        Kind::Switch => Some(Table::Switch),
        Kind::Waking => Some(Table::Waking),
        Kind::WakeupNew => Some(Table::WakeupNew),
        Kind::Migrate => Some(Table::Migrate),
        Kind::Fork | Kind::Exec | Kind::Exit | Kind::Free | Kind::Rename => Some(Table::Lifecycle),
        Kind::Snapshot => Some(Table::Snapshot),
        Kind::Identity => None,
        declared => Some(Table::Of(declared)),
    }
}

/// Every table that a trace can have: its name, what a row is, and its columns.
pub(crate) fn all_tables() -> impl Iterator<Item = (&'static str, Option<Kind>, SchemaRef)> {
    Table::ALL.into_iter().map(|table| {
        let kind = if let Table::Of(kind) = table { Some(kind) } else { None };
        (table.name(), kind, queried(&table.schema()))
    })
}
