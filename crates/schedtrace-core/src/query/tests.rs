//! Queries over simulated machines, whose answers are known otherwise, and over what is hostile.

#![cfg(feature = "synthetic")]

mod hostile;
mod same;

use std::path::{Path, PathBuf};
use std::time::Instant;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;

use super::*;
use crate::error::Result;
use crate::sink::Sink;
use crate::source::{Poll, Source};
use crate::synthetic::SyntheticHost;
use crate::trace::{TraceWriter, WriterOptions};

/// Segments as small as they can be.
const TINY: u64 = 4 << 10;

fn host() -> SyntheticHost {
    SyntheticHost::new().cpus(4).tasks(40).events(6_000).burst(10)
}

/// Records a simulated machine; `finish` or leave it as a crash does.
fn record(host: SyntheticHost, dir: &Path, finish: bool) {
    let options =
        WriterOptions { segment_bytes: TINY, sync_interval: std::time::Duration::ZERO, ..WriterOptions::default() };
    let mut source = host.start();
    let mut writer = TraceWriter::create(dir, options).unwrap();
    writer.begin(source.meta()).unwrap();
    while let Poll::Batch(batch) = source.poll(Instant::now()).unwrap() {
        writer.batch(&batch).unwrap();
    }
    if finish {
        writer.finish(source.meta()).unwrap();
    }
}

/// Three ways to ask the same machine: finished, in flight, and never recorded.
fn three(folder: &Path) -> [Database; 3] {
    let paths: [PathBuf; 2] = [folder.join("finished.schedtrace"), folder.join("in_flight.schedtrace")];
    record(host(), &paths[0], true);
    record(host(), &paths[1], false);
    let stream = Database::of_stream("stream", || Ok(Box::new(host().start()))).unwrap();
    let [finished, in_flight] = paths.map(|path| Database::open([path]).unwrap());
    [finished, in_flight, stream]
}

fn ask(db: &Database, query: impl Into<Query>) -> Vec<RecordBatch> {
    db.query(query).unwrap().collect::<Result<_>>().unwrap()
}

/// The rows as text, sorted where the query does not say how.
fn rows(db: &Database, query: impl Into<Query>) -> Vec<Vec<String>> {
    ask(db, query).iter().flat_map(|batch| cells(batch).unwrap()).collect()
}

fn number(db: &Database, query: impl Into<Query>) -> i64 {
    let batches = ask(db, query);
    let batch = batches.iter().find(|batch| batch.num_rows() > 0).expect("a row");
    let column = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Int64).unwrap();
    assert!(!column.is_null(0));
    column.as_primitive::<Int64Type>().value(0)
}

fn refused(db: &Database, query: &str) -> String {
    let error = match db.query(query) {
        Err(error) => error,
        Ok(rows) => rows.collect::<Result<Vec<_>>>().expect_err(query),
    };
    let text = error.to_string();
    assert!(!text.contains('\n') && text.len() < 1_200, "{text}");
    text
}
