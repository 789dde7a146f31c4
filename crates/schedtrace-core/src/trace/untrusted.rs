//! Reads the files of a trace, of which none is trusted: it may be cut short, of another table, or made to do harm.
//!
//! What may go wrong ends in [`Error::Damaged`] with the file's name. Sizes are checked before anything is reserved for
//! them, links and what is no plain file are refused, and a panic of the Arrow or Parquet library is contained in one
//! place, [`contain`].

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::ipc::MessageHeader;
use arrow::ipc::reader::StreamDecoder;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
#[cfg(feature = "sql")]
use parquet::file::metadata::PageIndexPolicy;
use parquet::file::metadata::{
    ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataReader, ParquetStatisticsPolicy,
};

use super::commit::Extent;
use super::footer;
use super::schema::{Table, viewed};
use super::segment::{ROWS_PER_BATCH, Span};
use crate::error::{Error, Result};

/// The largest metadata of a message of a stream, in bytes; a schema takes less than 2 KiB.
const MAX_MESSAGE: u32 = 64 << 10;
/// The largest body of a message, in bytes: [`ROWS_PER_BATCH`] rows of the widest table.
const MAX_BODY: u64 = 64 << 20;
/// The most rows in a record batch of a stream.
const MAX_BATCH_ROWS: i64 = 64 << 10;

/// Opens a plain file for reading; none if there is none. Links are not followed.
pub(super) fn open(path: &Path) -> Result<Option<File>> {
    // A named pipe would block without NONBLOCK.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            return Err(Error::damaged(path, "is a symbolic link, which is not followed"));
        }
        Err(e) => return Err(Error::io("cannot open", path)(e)),
    };
    let kind = file.metadata().map_err(Error::io("cannot read", path))?;
    if !kind.is_file() {
        return Err(Error::damaged(path, "is not a plain file"));
    }
    Ok(Some(file))
}

/// Reads a small file whole; none if there is none.
pub(super) fn read_small(path: &Path, max_bytes: u64) -> Result<Option<Vec<u8>>> {
    let Some(file) = open(path)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(max_bytes + 1).read_to_end(&mut bytes).map_err(Error::io("cannot read", path))?;
    if bytes.len() as u64 > max_bytes {
        return Err(Error::damaged(path, format_args!("is larger than {max_bytes} bytes")));
    }
    Ok(Some(bytes))
}

/// Runs code of the Arrow or Parquet library over bytes that nobody vouches for: its errors and its panics both become
/// [`Error::Damaged`]. Whatever `read` worked on is not to be used again after an error.
///
/// The panic still reaches the process's panic hook; with `panic = "abort"` it cannot be contained.
fn contain<T, E: std::fmt::Display>(path: &Path, read: impl FnOnce() -> Result<T, E>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(why)) => Err(Error::damaged(path, one_line(&why.to_string()))),
        Err(_) => Err(Error::damaged(path, "cannot be decoded")),
    }
}

/// A library's message may quote the file: one line, of bounded length, without control characters.
pub(super) fn one_line(text: &str) -> String {
    text.chars().take(300).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The rows of one table in one segment, as record batches of a bounded size.
pub(super) enum Rows {
    Stream(Box<Stream>),
    Parquet(Box<Parquet>),
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Rows").field(&self.path()).finish()
    }
}

impl Rows {
    /// The next rows; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>> {
        match self {
            Self::Stream(stream) => stream.next(),
            Self::Parquet(parquet) => parquet.next(),
        }
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Stream(stream) => &stream.path,
            Self::Parquet(parquet) => &parquet.path,
        }
    }
}

/// A table in flight: an Arrow IPC stream, read up to what was committed.
pub(super) struct Stream {
    path: PathBuf,
    file: BufReader<File>,
    left: Extent,
    decoder: StreamDecoder,
    schema: SchemaRef,
    /// The message with the schema was read.
    started: bool,
    /// The schema is this table's.
    checked: bool,
}

impl Stream {
    /// Opens a table in flight, of which `committed` counts; none if there is no such file.
    pub(super) fn open(path: PathBuf, table: Table, committed: Extent) -> Result<Option<Self>> {
        let Some(file) = open(&path)? else { return Ok(None) };
        let bytes = file.metadata().map_err(Error::io("cannot read", &path))?.len();
        if bytes < committed.bytes {
            let why = format!("has {bytes} bytes, but {} were committed", committed.bytes);
            return Err(Error::damaged(&path, why));
        }
        let (file, decoder) = (BufReader::new(file), StreamDecoder::new());
        Ok(Some(Self { path, file, left: committed, decoder, schema: table.schema(), started: false, checked: false }))
    }

    /// The next rows; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>> {
        while let Some(message) = self.message()? {
            let mut message = Buffer::from_vec(message);
            if self.started && !self.checked {
                // The decoder finishes the schema with the first byte that follows it.
                self.decode(&mut message.slice_with_length(0, 1))?;
                message.advance(1);
                self.check_schema()?;
            }
            self.started = true;
            let Some(batch) = self.decode(&mut message)? else { continue };
            let rows = batch.num_rows() as u64;
            let left = self.left.rows.checked_sub(rows);
            self.left.rows = left.ok_or_else(|| Error::damaged(&self.path, "has more rows than were committed"))?;
            return Ok(Some(batch));
        }
        if self.left.rows > 0 {
            return Err(Error::damaged(&self.path, format_args!("lacks {} committed rows", self.left.rows)));
        }
        Ok(None)
    }

    fn decode(&mut self, message: &mut Buffer) -> Result<Option<RecordBatch>> {
        contain(&self.path, || self.decoder.decode(message))
    }

    fn check_schema(&mut self) -> Result<()> {
        let found = self.decoder.schema().ok_or_else(|| Error::damaged(&self.path, "has no schema"))?;
        if found.fields() != self.schema.fields() {
            return Err(Error::damaged(&self.path, "has other columns than this table"));
        }
        self.checked = true;
        Ok(())
    }

    /// The bytes of the next message: eight bytes of head, its metadata and its body.
    fn message(&mut self) -> Result<Option<Vec<u8>>> {
        if self.left.bytes == 0 {
            return Ok(None);
        }
        let mut message = self.take(Vec::new(), 8)?;
        let size = u32::from_le_bytes([message[4], message[5], message[6], message[7]]);
        if message[..4] != [0xff; 4] || size == 0 || size > MAX_MESSAGE {
            return Err(Error::damaged(&self.path, "has a message of an unexpected size"));
        }
        message = self.take(message, u64::from(size))?;
        let body_bytes = contain(&self.path, || check_message(&message[8..], self.started))?;
        self.take(message, body_bytes).map(Some)
    }

    fn take(&mut self, mut bytes: Vec<u8>, count: u64) -> Result<Vec<u8>> {
        let left = self.left.bytes.checked_sub(count);
        self.left.bytes = left.ok_or_else(|| Error::damaged(&self.path, "ends in the middle of a message"))?;
        let read = self.file.by_ref().take(count).read_to_end(&mut bytes);
        match read.map_err(Error::io("cannot read", &self.path))? {
            read if read as u64 == count => Ok(bytes),
            _ => Err(Error::damaged(&self.path, "ends in the middle of a message")),
        }
    }
}

/// Checks the metadata of a message; returns the size of its body.
fn check_message(bytes: &[u8], batch_expected: bool) -> Result<u64, String> {
    let message = arrow::ipc::root_as_message(bytes).map_err(|e| e.to_string())?;
    let header = message.header_type();
    if header != if batch_expected { MessageHeader::RecordBatch } else { MessageHeader::Schema } {
        return Err(format!("has an unexpected message {header:?}"));
    }
    let body_bytes = u64::try_from(message.bodyLength()).ok().filter(|bytes| *bytes <= MAX_BODY);
    let body_bytes = body_bytes.ok_or("has a message of an unexpected size")?;
    if let Some(batch) = message.header_as_record_batch() {
        if batch.compression().is_some() {
            return Err("is compressed".into());
        }
        let rows = batch.length();
        let nodes = batch.nodes().ok_or("has a message without columns")?;
        let counts_fit = nodes.iter().all(|node| node.length() == rows && (0..=rows).contains(&node.null_count()));
        if !(0..=MAX_BATCH_ROWS).contains(&rows) || !counts_fit {
            return Err("has an absurd number of rows".into());
        }
        let fits = |(offset, length): (i64, i64)| {
            let end = u64::try_from(offset).ok().zip(u64::try_from(length).ok()).map(|(a, b)| a.saturating_add(b));
            end.is_some_and(|end| end <= body_bytes)
        };
        let buffers = batch.buffers().ok_or("has a message without columns")?;
        if !buffers.iter().all(|buffer| fits((buffer.offset(), buffer.length()))) {
            return Err("has columns beyond the end of a message".into());
        }
    }
    Ok(body_bytes)
}

/// A table at rest.
pub(super) struct Parquet {
    path: PathBuf,
    file: File,
    bytes: u64,
    metadata: ArrowReaderMetadata,
    next_group: usize,
    reader: Option<ParquetRecordBatchReader>,
}

impl Parquet {
    /// Opens a table at rest; none if there is no such file. Statistics are for others; passed over, they cannot be wrong.
    pub(super) fn open(path: PathBuf, table: Table) -> Result<Option<Self>> {
        Self::open_with(path, table, ParquetStatisticsPolicy::SkipAll)
    }

    /// The same for queries, with the statistics by which row groups are passed over.
    #[cfg(feature = "sql")]
    pub(super) fn open_for_queries(path: PathBuf, table: Table) -> Result<Option<Self>> {
        Self::open_with(path, table, ParquetStatisticsPolicy::KeepAll)
    }

    fn open_with(path: PathBuf, table: Table, statistics: ParquetStatisticsPolicy) -> Result<Option<Self>> {
        let Some(file) = open(&path)? else { return Ok(None) };
        let bytes = file.metadata().map_err(Error::io("cannot read", &path))?.len();
        let footer = footer_of(&file, bytes, &path)?;
        let metadata = contain(&path, || decode_footer(&footer, bytes, table, statistics))?;
        Ok(Some(Self { path, file, bytes, metadata, next_group: 0, reader: None }))
    }

    /// The file, its size, and its metadata with the index of its pages, once all their heads have been checked: whoever
    /// reads it then need not trust what it says of sizes.
    #[cfg(feature = "sql")]
    pub(super) fn into_checked(self) -> Result<(File, u64, Arc<ParquetMetaData>)> {
        for group in self.metadata().row_groups() {
            footer::check_pages(&self.file, group, self.bytes).map_err(|why| Error::damaged(&self.path, why))?;
        }
        let mut reader = ParquetMetaDataReader::new_with_metadata(self.metadata().clone())
            .with_page_index_policy(PageIndexPolicy::Optional);
        let metadata = contain(&self.path, || {
            reader.read_page_indexes_sized(&self.file, self.bytes)?;
            reader.finish()
        })?;
        Ok((self.file, self.bytes, Arc::new(metadata)))
    }

    fn metadata(&self) -> &ParquetMetaData {
        self.metadata.metadata()
    }

    /// How many bytes and rows it has.
    pub(super) fn extent(&self) -> Extent {
        let rows = u64::try_from(self.metadata().file_metadata().num_rows()).unwrap_or(0);
        Extent { bytes: self.bytes, rows }
    }

    /// Which time its segment covers, if it says.
    pub(super) fn span(&self) -> Option<Span> {
        let pairs = self.metadata().file_metadata().key_value_metadata()?;
        let text = pairs.iter().find(|pair| pair.key == Span::KEY)?.value.as_ref()?;
        serde_json::from_str(text).ok()
    }

    fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(reader) = &mut self.reader {
                if let Some(batch) = contain(&self.path, || reader.next().transpose())? {
                    return Ok(Some(batch));
                }
                self.reader = None;
            }
            let Some(group) = self.metadata().row_groups().get(self.next_group) else { return Ok(None) };
            footer::check_pages(&self.file, group, self.bytes).map_err(|why| Error::damaged(&self.path, why))?;
            let file = self.file.try_clone().map_err(Error::io("cannot open", &self.path))?;
            let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
                .with_row_groups(vec![self.next_group])
                .with_batch_size(ROWS_PER_BATCH);
            self.reader = Some(contain(&self.path, || builder.build())?);
            self.next_group += 1;
        }
    }
}

/// The metadata at the end of a Parquet file.
fn footer_of(file: &File, bytes: u64, path: &Path) -> Result<Vec<u8>> {
    let mut tail = [0; 8];
    let at = bytes.checked_sub(tail.len() as u64).ok_or_else(|| Error::damaged(path, "is not a Parquet file"))?;
    file.read_exact_at(&mut tail, at).map_err(Error::io("cannot read", path))?;
    let size = u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]);
    if tail[4..] != *b"PAR1" {
        return Err(Error::damaged(path, "is not a Parquet file, or was cut short"));
    }
    let start = at.checked_sub(u64::from(size)).filter(|_| size <= footer::MAX_FOOTER);
    let start = start.ok_or_else(|| Error::damaged(path, "has metadata of an absurd size"))?;
    let mut footer = vec![0; size as usize];
    file.read_exact_at(&mut footer, start).map_err(Error::io("cannot read", path))?;
    Ok(footer)
}

fn decode_footer(
    footer: &[u8],
    file_bytes: u64,
    table: Table,
    statistics: ParquetStatisticsPolicy,
) -> Result<ArrowReaderMetadata, String> {
    let expected = ArrowSchemaConverter::new().convert(&table.schema()).map_err(|e| e.to_string())?;
    let expected = Arc::new(expected);
    footer::check_footer(footer, &expected)?;
    let options = ParquetMetaDataOptions::new()
        .with_schema(expected)
        .with_column_stats_policy(statistics)
        .with_encoding_stats_policy(ParquetStatisticsPolicy::SkipAll)
        .with_size_stats_policy(ParquetStatisticsPolicy::SkipAll);
    let metadata = ParquetMetaDataReader::decode_metadata_with_options(footer, Some(&options));
    let metadata = metadata.map_err(|e| e.to_string())?;
    footer::check_metadata(&metadata, file_bytes)?;
    // Views point into the pages: a short page cannot be blown up by repeating a long text.
    let options = ArrowReaderOptions::new().with_schema(viewed(&table.schema()));
    ArrowReaderMetadata::try_new(Arc::new(metadata), options).map_err(|e| e.to_string())
}
