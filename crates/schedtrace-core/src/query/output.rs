//! Rows as text and as files.

use std::fmt;
use std::io::Write;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::arrow::csv::WriterBuilder;
use datafusion::arrow::json::writer::{ArrayWriter, LineDelimited, WriterBuilder as JsonBuilder};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use super::database::Rows;
use crate::error::{Error, Result};

/// How rows are written.
///
/// ```
/// use schedtrace_core::query::Format;
/// assert_eq!("parquet".parse::<Format>()?, Format::Parquet);
/// assert_eq!("xml".parse::<Format>().unwrap_err().to_string(), "cannot write xml: use one of json, jsonl, csv, parquet");
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON array of objects, a column that is `NULL` as `null`.
    Json,
    /// A JSON object on each line.
    JsonLines,
    /// Comma-separated values with a line of names (RFC 4180); what is `NULL` is empty.
    Csv,
    /// A Parquet file.
    Parquet,
}

impl Format {
    /// All of them, with their names.
    pub const ALL: [(&'static str, Self); 4] =
        [("json", Self::Json), ("jsonl", Self::JsonLines), ("csv", Self::Csv), ("parquet", Self::Parquet)];
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(Self::ALL.iter().find(|(_, format)| format == self).map_or("", |(name, _)| name))
    }
}

impl FromStr for Format {
    type Err = Error;
    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        let names = Self::ALL.map(|(name, _)| name).join(", ");
        found
            .map(|(_, format)| *format)
            .ok_or_else(|| Error::Invalid(format!("cannot write {name}: use one of {names}")))
    }
}

impl Rows {
    /// Writes all rows that are left; returns how many they were.
    ///
    /// # Errors
    ///
    /// What the query fails with; [`Error::Io`] if they cannot be written.
    ///
    /// ```
    /// # use schedtrace_core::query::{Database, Format};
    /// # use schedtrace_core::{MemorySource, Meta};
    /// # let db = Database::of_stream("nothing", || Ok(Box::new(MemorySource::new(Meta::default(), []))))?;
    /// let mut text = Vec::new();
    /// db.query("select 1 as one, null as nothing")?.write(Format::Json, &mut text)?;
    /// assert_eq!(String::from_utf8(text).unwrap(), r#"[{"one":1,"nothing":null}]"#);
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    pub fn write(&mut self, format: Format, to: impl Write + Send) -> Result<u64> {
        match format {
            Format::Json => self.json(to),
            Format::JsonLines => self.json_lines(to),
            Format::Csv => self.csv(to),
            Format::Parquet => self.parquet(to),
        }
    }

    fn json(&mut self, to: impl Write) -> Result<u64> {
        let mut writer: ArrayWriter<_> = JsonBuilder::new().with_explicit_nulls(true).build(to);
        let rows = self.each(|batch| writer.write(batch))?;
        writer.finish().map_err(cannot_write)?;
        Ok(rows)
    }

    fn json_lines(&mut self, to: impl Write) -> Result<u64> {
        let mut writer = JsonBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(to);
        let rows = self.each(|batch| writer.write(batch))?;
        writer.finish().map_err(cannot_write)?;
        Ok(rows)
    }

    fn csv(&mut self, to: impl Write) -> Result<u64> {
        let mut writer = WriterBuilder::new().with_header(true).build(to);
        // The names stand there even if no row does.
        writer.write(&RecordBatch::new_empty(self.schema())).map_err(cannot_write)?;
        self.each(|batch| writer.write(batch))
    }

    fn parquet(&mut self, to: impl Write + Send) -> Result<u64> {
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let parquet = |error: parquet::errors::ParquetError| cannot_write(error.into());
        // Plain texts: others have views, but not all that can be done with texts.
        let fields = self.schema();
        let fields = fields.fields().iter().map(|field| match field.data_type() {
            DataType::Utf8View => Arc::new(Field::new(field.name(), DataType::Utf8, field.is_nullable())),
            _ => Arc::clone(field),
        });
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let mut writer = ArrowWriter::try_new(to, Arc::clone(&schema), Some(properties)).map_err(parquet)?;
        let rows = self.each(|batch| {
            let columns =
                batch.columns().iter().zip(schema.fields()).map(|(column, field)| cast(column, field.data_type()));
            let batch = RecordBatch::try_new(Arc::clone(&schema), columns.collect::<Result<_, _>>()?)?;
            Ok(writer.write(&batch)?)
        })?;
        writer.close().map_err(parquet)?;
        Ok(rows)
    }

    fn each(&mut self, mut write: impl FnMut(&RecordBatch) -> Result<(), arrow::error::ArrowError>) -> Result<u64> {
        let mut rows = 0;
        for batch in self {
            let batch = batch?;
            write(&batch).map_err(cannot_write)?;
            rows += batch.num_rows() as u64;
        }
        Ok(rows)
    }

    /// The names of the columns, and whether they hold numbers.
    ///
    /// ```
    /// # use schedtrace_core::query::Database;
    /// # use schedtrace_core::{MemorySource, Meta};
    /// # let db = Database::of_stream("nothing", || Ok(Box::new(MemorySource::new(Meta::default(), []))))?;
    /// assert_eq!(db.query("select 1 as n, 'x' as t")?.columns(), [("n".to_owned(), true), ("t".to_owned(), false)]);
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    #[must_use]
    pub fn columns(&self) -> Vec<(String, bool)> {
        let schema = self.schema();
        let name = |field: &Field| field.name().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        schema.fields().iter().map(|field| (name(field), field.data_type().is_numeric())).collect()
    }
}

/// The cells of some rows as people read them; what is `NULL` as `-`, and without control characters but for ends of lines.
///
/// ```
/// use schedtrace_core::query::{self, Database};
/// # use schedtrace_core::{MemorySource, Meta};
/// # let db = Database::of_stream("nothing", || Ok(Box::new(MemorySource::new(Meta::default(), []))))?;
/// for batch in db.query("select 1.5 as ratio, null as nothing")? {
///     assert_eq!(query::cells(&batch?)?, [["1.5", "-"]]);
/// }
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Query`] if a column has a type that has no text.
pub fn cells(batch: &RecordBatch) -> Result<Vec<Vec<String>>> {
    let options = FormatOptions::default().with_null("-");
    let columns = batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options));
    let columns = columns.collect::<Result<Vec<_>, _>>().map_err(|error| Error::Query(error.to_string()))?;
    let clean = |text: String| text.chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect();
    Ok((0..batch.num_rows())
        .map(|row| columns.iter().map(|column| clean(column.value(row).to_string())).collect())
        .collect())
}

/// Some rows as JSON, as [`Format::Json`] writes all of them.
///
/// ```
/// use schedtrace_core::query::{self, Database};
/// # use schedtrace_core::{MemorySource, Meta};
/// # let db = Database::of_stream("nothing", || Ok(Box::new(MemorySource::new(Meta::default(), []))))?;
/// for batch in db.query("values (1), (2), (3)")? {
///     assert_eq!(query::json(&batch?.slice(1, 1))?, br#"[{"column1":2}]"#);
/// }
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Query`] if a column has a type that JSON cannot tell.
pub fn json(batch: &RecordBatch) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut writer: ArrayWriter<_> = JsonBuilder::new().with_explicit_nulls(true).build(&mut text);
    writer.write(batch).and_then(|()| writer.finish()).map_err(cannot_write)?;
    drop(writer);
    Ok(text)
}

fn cannot_write(error: arrow::error::ArrowError) -> Error {
    match error {
        arrow::error::ArrowError::IoError(_, source) => {
            Error::Io { what: "cannot write", path: "the rows of a query".into(), source }
        }
        error => Error::Query(format!("its rows cannot be written: {error}")),
    }
}
