//! One segment: a stretch of time in all tables. In flight each table is an Arrow IPC stream that grows by record batches;
//! at rest it is a Parquet file, sorted by time.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::datatypes::DataType;
use arrow::ipc::writer::StreamWriter;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding};
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use serde::{Deserialize, Serialize};

use super::commit::{Extent, InFlight, sync_folder};
use super::schema::{Rows, Table, sort_keys};
use super::untrusted;
use crate::counted::Counted;
use crate::error::{Error, Result};
use crate::event::Nanos;

/// Rows of a record batch: when so many wait they are written, and so many are read at once.
pub(super) const ROWS_PER_BATCH: usize = 8192;
/// Rows of a row group of a Parquet file.
const ROWS_PER_GROUP: usize = 128 << 10;
/// The same for a table with long texts: 32 MiB of the longest, uncompressed.
const TEXT_ROWS_PER_GROUP: usize = 8192;
/// Rows of such a table that are written to a Parquet file at once: 1 MiB of the longest.
const TEXT_ROWS_PER_WRITE: usize = 256;
/// About how many bytes a row takes in a stream.
const BYTES_PER_ROW: usize = 32;
/// Against gzip, which makes an eighth less of what the encodings leave, it takes 28 % off what writing costs
/// (docs/performance.md); and every reader of Parquet knows it.
const COMPRESSION: Compression = Compression::SNAPPY;

/// Which time a segment covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Span {
    /// The stream had come to this time when the segment was begun.
    pub(super) from_ns: Nanos,
    /// The stream has come to this time since.
    pub(super) until_ns: Nanos,
    /// The earliest event; late ones may lie before `from_ns`. [`Nanos::MAX`] where there is none.
    pub(super) first_ns: Nanos,
    /// The latest event.
    pub(super) last_ns: Nanos,
}

impl Span {
    /// Under this key it stands in every Parquet file.
    pub(super) const KEY: &'static str = "schedtrace.segment";

    /// Of a segment that is begun when the stream has come to `from`.
    pub(super) fn new(from: Nanos) -> Self {
        Self { from_ns: from, until_ns: from, first_ns: Nanos::MAX, last_ns: Nanos::ZERO }
    }

    /// The time of its last event, or that to which the stream had come without one: how old it is.
    pub(super) fn latest(&self) -> Nanos {
        if self.first_ns == Nanos::MAX { self.until_ns } else { self.last_ns }
    }

    /// Whether it holds nothing of the time between two moments.
    pub(super) fn is_outside(&self, from: Option<Nanos>, until: Option<Nanos>) -> bool {
        let (begin, end) = (self.from_ns.min(self.first_ns), self.until_ns.max(self.last_ns));
        from.is_some_and(|from| end < from) || until.is_some_and(|until| begin > until)
    }
}

/// Where a table is at rest.
pub(super) fn parquet_path(dir: &Path, table: Table, seq: u32) -> PathBuf {
    dir.join(table.folder()).join(format!("{seq:08}.parquet"))
}

/// Where a table is in flight.
pub(super) fn stream_path(dir: &Path, table: Table, seq: u32) -> PathBuf {
    dir.join(table.folder()).join(format!("{seq:08}.arrows"))
}

/// The number of the segment to which a Parquet file belongs.
pub(super) fn seq_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".parquet")?;
    if digits.len() < 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// One table in flight.
struct Stream {
    path: PathBuf,
    writer: StreamWriter<Counted<BufWriter<Arc<File>>>>,
    rows: u64,
    /// The rows came in the order in which they are to be at rest.
    sorted: bool,
    last_key: i64,
}

impl Stream {
    fn create(path: PathBuf, table: Table) -> Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        let file = file.map_err(Error::io("cannot create", &path))?;
        let counted = Counted::new(BufWriter::with_capacity(64 << 10, Arc::new(file)));
        let writer = StreamWriter::try_new(counted, &table.schema());
        let writer = writer.map_err(|e| cannot_write(&path, e))?;
        Ok(Self { path, writer, rows: 0, sorted: true, last_key: i64::MIN })
    }

    fn append(&mut self, table: Table, batch: &RecordBatch) -> Result<()> {
        for key in sort_keys(table, batch).map_err(|why| Error::damaged(&self.path, why))? {
            self.sorted &= key >= self.last_key;
            self.last_key = key;
        }
        self.rows += batch.num_rows() as u64;
        self.writer.write(batch).map_err(|e| cannot_write(&self.path, e))
    }

    /// Gives the kernel all of it, so that it survives this process; how much that is. Without rows nothing counts.
    fn write_out(&mut self) -> Result<Extent> {
        let counted = self.writer.get_mut();
        counted.out.flush().map_err(Error::io("cannot write", &self.path))?;
        Ok(if self.rows > 0 { Extent { bytes: counted.bytes, rows: self.rows } } else { Extent::default() })
    }

    fn bytes(&self) -> u64 {
        self.writer.get_ref().bytes
    }
}

/// The segment that grows.
pub(super) struct Flight {
    pub(super) seq: u32,
    /// Rows that wait to be written.
    pub(super) rows: Rows,
    pub(super) span: Span,
    /// By the numbers of their tables; none where the trace has no such table.
    streams: Vec<Option<Stream>>,
    /// Bytes and rows of what was repeated from earlier segments.
    repeated: Extent,
}

impl std::fmt::Debug for Flight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flight").field("seq", &self.seq).field("span", &self.span).finish_non_exhaustive()
    }
}

impl Flight {
    /// Creates the files of a segment.
    pub(super) fn create(dir: &Path, tables: &[Table], seq: u32, from: Nanos, rows: Rows) -> Result<Self> {
        let create = |table| Stream::create(stream_path(dir, table, seq), table);
        let create = |table| tables.contains(&table).then(|| create(table)).transpose();
        let streams = Table::ALL.into_iter().map(create).collect::<Result<_>>()?;
        let span = Span::new(from);
        Ok(Self { seq, rows, span, streams, repeated: Extent::default() })
    }

    /// What was written so far is what earlier segments know already.
    pub(super) fn repeated(&mut self) -> Result<()> {
        self.flush()?;
        self.repeated = Extent { bytes: self.bytes(), rows: self.written_rows() };
        Ok(())
    }

    /// Writes the waiting rows of a table if they fill a record batch.
    #[inline]
    pub(super) fn flush_if_full(&mut self, table: Table) -> Result<()> {
        if self.rows.len(table) >= ROWS_PER_BATCH { self.flush_table(table) } else { Ok(()) }
    }

    fn flush_table(&mut self, table: Table) -> Result<()> {
        let Some(stream) = &mut self.streams[table.index()] else {
            let why = format!("there are {} events, of which `Meta::probes` says nothing", table.name());
            return Err(Error::Invalid(why));
        };
        let batch = self.rows.take(table).map_err(|e| cannot_write(&stream.path, e))?;
        stream.append(table, &batch)
    }

    fn flush(&mut self) -> Result<()> {
        let waiting = Table::ALL.into_iter().filter(|table| self.rows.len(*table) > 0);
        waiting.collect::<Vec<_>>().into_iter().try_for_each(|table| self.flush_table(table))
    }

    /// Writes all waiting rows; returns what may be read from then on.
    pub(super) fn write_out(&mut self) -> Result<InFlight> {
        self.flush()?;
        let streams =
            Table::ALL.iter().zip(&mut self.streams).filter_map(|(table, stream)| Some((table, stream.as_mut()?)));
        let extents = streams.map(|(table, stream)| Ok((table.name().to_owned(), stream.write_out()?)));
        Ok(InFlight { seq: self.seq, span: self.span, tables: extents.collect::<Result<_>>()? })
    }

    /// The files that hold rows.
    pub(super) fn files(&self) -> Vec<Arc<File>> {
        let filled = self.streams.iter().flatten().filter(|stream| stream.rows > 0);
        filled.map(|stream| Arc::clone(stream.writer.get_ref().out.get_ref())).collect()
    }

    /// The size of its files in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.streams.iter().flatten().map(Stream::bytes).sum()
    }

    fn written_rows(&self) -> u64 {
        self.streams.iter().flatten().map(|stream| stream.rows).sum()
    }

    /// About how many bytes it has grown by since it was begun, with the rows that wait.
    pub(super) fn new_bytes(&self) -> u64 {
        let waiting: usize = Table::ALL.into_iter().map(|table| self.rows.len(table)).sum();
        self.bytes() - self.repeated.bytes + (waiting * BYTES_PER_ROW) as u64
    }

    /// Ends it, after [`Flight::write_out`], which said what is in it: what is needed to seal it.
    pub(super) fn end(self, written: &InFlight) -> Unsealed {
        let (seq, span, bytes) = (self.seq, self.span, self.bytes());
        let new_rows = self.written_rows() - self.repeated.rows;
        let extent = |table: Table| written.tables.get(table.name()).copied().unwrap_or_default();
        let streams = Table::ALL.into_iter().zip(&self.streams);
        let tables = streams.filter_map(|(table, stream)| Some((table, extent(table), stream.as_ref()?.sorted)));
        Unsealed { seq, span, bytes, new_rows, tables: tables.collect() }
    }
}

/// A segment that does not grow any more and is to become Parquet.
#[derive(Debug)]
pub(super) struct Unsealed {
    pub(super) seq: u32,
    pub(super) span: Span,
    /// The size of its streams.
    pub(super) bytes: u64,
    new_rows: u64,
    /// Per table, how much it is and whether it is sorted.
    tables: Vec<(Table, Extent, bool)>,
}

/// A segment at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) seq: u32,
    pub(super) span: Span,
    /// The size of its files.
    pub(super) bytes: u64,
    /// Rows of all its tables, but for those repeated from earlier segments.
    pub(super) rows: u64,
}

/// Turns a segment's streams into Parquet files. Only when all of these are in place are the streams removed, so that
/// there is no moment at which a reader finds neither.
pub(super) fn seal(dir: &Path, segment: &Unsealed) -> Result<Sealed> {
    let mut sealed = Sealed { seq: segment.seq, span: segment.span, bytes: 0, rows: segment.new_rows };
    for &(table, extent, sorted) in &segment.tables {
        let path = parquet_path(dir, table, segment.seq);
        let tmp = path.with_extension("parquet.tmp");
        seal_table(dir, segment, table, extent, sorted, &tmp)?;
        std::fs::rename(&tmp, &path).map_err(Error::io("cannot rename", &tmp))?;
        sync_folder(&dir.join(table.folder()))?;
        sealed.bytes += path.metadata().map_err(Error::io("cannot read", &path))?.len();
    }
    for &(table, ..) in &segment.tables {
        let path = stream_path(dir, table, segment.seq);
        std::fs::remove_file(&path).map_err(Error::io("cannot remove", &path))?;
    }
    Ok(sealed)
}

/// Seals what a recording has left, which does not say whether its tables are sorted.
pub(super) fn seal_left_over(dir: &Path, seq: u32, span: Span, extents: &[(Table, Extent)]) -> Result<Sealed> {
    let is_sorted = |table: Table, extent: Extent| -> Result<bool> {
        let from = stream_path(dir, table, seq);
        let mut stream = open_stream(&from, table, extent)?;
        let mut last = i64::MIN;
        while let Some(batch) = stream.next()? {
            for key in sort_keys(table, &batch).map_err(|why| Error::damaged(&from, why))? {
                if key < last {
                    return Ok(false);
                }
                last = key;
            }
        }
        Ok(true)
    };
    let tables = extents.iter().map(|&(table, extent)| Ok((table, extent, is_sorted(table, extent)?)));
    let tables = tables.collect::<Result<Vec<_>>>()?;
    let bytes = extents.iter().map(|(_, extent)| extent.bytes).sum();
    seal(dir, &Unsealed { seq, span, bytes, new_rows: 0, tables })
}

fn open_stream(path: &Path, table: Table, extent: Extent) -> Result<untrusted::Stream> {
    let stream = untrusted::Stream::open(path.to_owned(), table, extent)?;
    stream.ok_or_else(|| Error::damaged(path, "is gone"))
}

fn seal_table(dir: &Path, segment: &Unsealed, table: Table, extent: Extent, sorted: bool, to: &Path) -> Result<()> {
    let from = stream_path(dir, table, segment.seq);
    let mut stream = open_stream(&from, table, extent)?;
    let file = File::create(to).map_err(Error::io("cannot create", to))?;
    let options =
        ArrowWriterOptions::new().with_properties(properties(table, &segment.span)).with_skip_arrow_metadata(true);
    let mut writer =
        ArrowWriter::try_new_with_options(file, table.schema(), options).map_err(|e| cannot_write(to, e))?;
    // The writer ends pages between writes: a write of long texts must not be larger than a page may be.
    let step = if table.has_long_texts() { TEXT_ROWS_PER_WRITE } else { ROWS_PER_BATCH };
    let mut write = |batch: &RecordBatch| {
        (0..batch.num_rows()).step_by(step).try_for_each(|at| {
            let rows = batch.slice(at, step.min(batch.num_rows() - at));
            writer.write(&rows).map_err(|e| cannot_write(to, e))
        })
    };
    if sorted {
        while let Some(batch) = stream.next()? {
            write(&batch)?;
        }
    } else {
        let mut batches = Vec::new();
        while let Some(batch) = stream.next()? {
            batches.push(batch);
        }
        let order = order(table, &batches).map_err(|why| Error::damaged(&from, why))?;
        let batches: Vec<&RecordBatch> = batches.iter().collect();
        for rows in order.chunks(ROWS_PER_BATCH) {
            let rows: Vec<_> = rows.iter().map(|&(_, batch, row)| (batch as usize, row as usize)).collect();
            write(&interleave_record_batch(&batches, &rows).map_err(|e| cannot_write(to, e))?)?;
        }
    }
    let file = writer.into_inner().map_err(|e| cannot_write(to, e))?;
    file.sync_all().map_err(Error::io("cannot write", to))
}

/// Key, batch and row of all rows in the order in which they are to be at rest; equal ones keep theirs.
fn order(table: Table, batches: &[RecordBatch]) -> Result<Vec<(i64, u32, u32)>, String> {
    let mut keyed = Vec::with_capacity(batches.iter().map(RecordBatch::num_rows).sum());
    for (at, batch) in (0_u32..).zip(batches) {
        keyed.extend((0_u32..).zip(sort_keys(table, batch)?).map(|(row, key)| (key, at, row)));
    }
    keyed.sort_unstable();
    Ok(keyed)
}

fn properties(table: Table, span: &Span) -> WriterProperties {
    // A span is four numbers, which always become JSON; without it a file still reads, only slower to skip.
    let pairs = serde_json::to_string(span).ok().map(|span| vec![KeyValue::new(Span::KEY.to_owned(), span)]);
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("schedtrace ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(COMPRESSION)
        // What comes at once is encoded at once: the library's own steps of 1,024 rows cost a tenth of writing.
        .set_write_batch_size(ROWS_PER_BATCH)
        .set_max_row_group_row_count(Some(if table.has_long_texts() { TEXT_ROWS_PER_GROUP } else { ROWS_PER_GROUP }))
        // Only those of times exclude any rows: every CPU and most tasks are in every row group.
        .set_statistics_enabled(EnabledStatistics::None)
        .set_key_value_metadata(pairs);
    // Times grow with the rows; CPUs, priorities and states are small: differences take few bits, and cost less than a
    // dictionary. Not so ids, of which those of idle tasks are far from the others, and texts.
    for field in table.schema().fields() {
        let name = ColumnPath::from(field.name().as_str());
        let few = matches!(field.data_type(), DataType::UInt32 | DataType::Utf8);
        properties = properties.set_column_dictionary_enabled(name.clone(), few);
        if !few && field.data_type().is_integer() {
            properties = properties.set_column_encoding(name, Encoding::DELTA_BINARY_PACKED);
        }
    }
    if table.is_event() {
        // Pages can be skipped by time.
        properties = properties
            .set_column_statistics_enabled(ColumnPath::from("ts_ns"), EnabledStatistics::Page)
            .set_sorting_columns(Some(vec![SortingColumn { column_idx: 0, descending: false, nulls_first: false }]));
    }
    properties.build()
}

/// What the Arrow or Parquet library says when a file cannot be written.
fn cannot_write(path: &Path, error: impl std::error::Error + 'static) -> Error {
    // A full disk is to be told from the rest.
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(at) = cause {
        if let Some(code) = at.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error) {
            return Error::io("cannot write", path)(std::io::Error::from_raw_os_error(code));
        }
        cause = at.source();
    }
    Error::io("cannot write", path)(std::io::Error::other(error.to_string()))
}
