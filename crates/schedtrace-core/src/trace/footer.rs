//! Checks the metadata of a Parquet file before the Parquet library sees it.
//!
//! The library trusts counts and sizes that stand in the file: it reserves as many row groups, dictionary entries and page
//! bytes as they say, and recurses as deep as the schema does. A few bytes could thus take gigabytes or the stack, which
//! no `catch_unwind` contains. So the metadata (Thrift's compact encoding, `parquet.thrift` of the Parquet format) is
//! walked here first, along the shapes below: what has another shape, or asks for more than a trace ever needs, is refused.

use std::fs::File;
use std::os::unix::fs::FileExt;

use parquet::basic::{Compression, Type};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use parquet::schema::types::SchemaDescriptor;

/// The largest page, in bytes: the writer's pages and dictionaries end at 1 MiB and a little.
const MAX_PAGE: i64 = 8 << 20;
/// The most that the pages of one row group may hold, uncompressed, in bytes.
const MAX_ROW_GROUP: u64 = 64 << 20;
/// The most rows in one file: the largest segment holds a third of it.
pub(super) const MAX_ROWS: u64 = 1 << 26;
/// The most bytes of metadata at the end of a file.
pub(super) const MAX_FOOTER: u32 = 2 << 20;
/// The most bytes of metadata before a page.
const MAX_PAGE_HEADER: usize = 4096;
/// The most pages of one column in one row group.
const MAX_PAGES: usize = 4096;

/// What a value is, where that matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tag {
    Other,
    ElementType,
    ElementRepetition,
    ElementName,
    ElementChildren,
    PageKind,
    PageBytes,
    PageBytesCompressed,
    DataValues,
    DataEncoding,
    DictionaryValues,
}

/// What may stand in a field.
enum Shape {
    /// A number of any width, not negative.
    Number(Tag),
    Bytes(Tag),
    Flag,
    List(&'static Shape),
    Struct(&'static [(i16, Shape)]),
    /// Nothing: what would be here is not supported.
    Refused,
}

use Shape::{Bytes, Flag, List, Number, Refused, Struct};
use Tag::Other;

static FILE: &[(i16, Shape)] = &[
    (1, Number(Other)),
    (2, List(&Struct(SCHEMA_ELEMENT))),
    (3, Number(Other)),
    (4, List(&Struct(ROW_GROUP))),
    (5, List(&Struct(KEY_VALUE))),
    (6, Bytes(Other)),
    (7, List(&Struct(&[(1, Struct(&[]))]))),
    (8, Refused),
    (9, Refused),
];
const SCHEMA_ELEMENT: &[(i16, Shape)] = &[
    (1, Number(Tag::ElementType)),
    (3, Number(Tag::ElementRepetition)),
    (4, Bytes(Tag::ElementName)),
    (5, Number(Tag::ElementChildren)),
];
const KEY_VALUE: &[(i16, Shape)] = &[(1, Bytes(Other)), (2, Bytes(Other))];
const ROW_GROUP: &[(i16, Shape)] = &[
    (1, List(&Struct(COLUMN_CHUNK))),
    (2, Number(Other)),
    (3, Number(Other)),
    (4, List(&Struct(&[(1, Number(Other)), (2, Flag), (3, Flag)]))),
    (5, Number(Other)),
    (6, Number(Other)),
    (7, Number(Other)),
];
const COLUMN_CHUNK: &[(i16, Shape)] = &[
    (1, Refused),
    (2, Number(Other)),
    (3, Struct(COLUMN_META)),
    (4, Number(Other)),
    (5, Number(Other)),
    (6, Number(Other)),
    (7, Number(Other)),
    (8, Refused),
    (9, Refused),
];
const COLUMN_META: &[(i16, Shape)] = &[
    (1, Number(Other)),
    (2, List(&Number(Other))),
    (3, List(&Bytes(Other))),
    (4, Number(Other)),
    (5, Number(Other)),
    (6, Number(Other)),
    (7, Number(Other)),
    (8, List(&Struct(KEY_VALUE))),
    (9, Number(Other)),
    (10, Number(Other)),
    (11, Number(Other)),
    (14, Number(Other)),
    (15, Number(Other)),
    (17, Refused),
];
static PAGE: &[(i16, Shape)] = &[
    (1, Number(Tag::PageKind)),
    (2, Number(Tag::PageBytes)),
    (3, Number(Tag::PageBytesCompressed)),
    (
        5,
        Struct(&[(1, Number(Tag::DataValues)), (2, Number(Tag::DataEncoding)), (3, Number(Other)), (4, Number(Other))]),
    ),
    (6, Refused),
    (7, Struct(&[(1, Number(Tag::DictionaryValues)), (2, Number(Tag::DataEncoding)), (3, Flag)])),
    // A version 2 data page: the writer makes none.
    (8, Refused),
];

/// Walks Thrift's compact encoding.
struct Walk<'a, 'v> {
    bytes: &'a [u8],
    at: usize,
    /// Is told of every tagged value: a number, or bytes.
    visit: &'v mut dyn FnMut(Tag, u64, &'a [u8]) -> Result<(), String>,
}

impl<'a> Walk<'a, '_> {
    fn byte(&mut self) -> Result<u8, String> {
        let byte = *self.bytes.get(self.at).ok_or("ends early")?;
        self.at += 1;
        Ok(byte)
    }

    fn skip(&mut self, count: u64) -> Result<&'a [u8], String> {
        let end = usize::try_from(count).ok().and_then(|count| self.at.checked_add(count)).ok_or("ends early")?;
        let bytes = self.bytes.get(self.at..end).ok_or("ends early")?;
        self.at = end;
        Ok(bytes)
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("holds a number of more than 64 bits".into())
    }

    /// A number, which is stored as `0, -1, 1, -2, ...`.
    fn number(&mut self) -> Result<Option<u64>, String> {
        let stored = self.varint()?;
        Ok((stored & 1 == 0).then_some(stored >> 1))
    }

    fn structure(&mut self, fields: &[(i16, Shape)], depth: usize) -> Result<(), String> {
        let mut id = 0_i16;
        loop {
            let head = self.byte()?;
            if head & 0xf == 0 {
                return Ok(());
            }
            id = match head >> 4 {
                0 => {
                    let stored = self.number()?.and_then(|id| i16::try_from(id).ok());
                    stored.ok_or("has a field without a number")?
                }
                delta => id.checked_add(i16::from(delta)).ok_or("has a field without a number")?,
            };
            match fields.iter().find(|(known, _)| *known == id) {
                Some((_, shape)) => self.known(shape, head & 0xf, true, depth)?,
                None => self.unknown(head & 0xf, true, depth)?,
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<(u64, u8), String> {
        let head = self.byte()?;
        let size = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
        // Every element of a shape that is let through here takes a byte at least.
        if size > (self.bytes.len() - self.at) as u64 || depth == 0 {
            return Err("has a list longer than the file".into());
        }
        Ok((size, head & 0xf))
    }

    fn known(&mut self, shape: &Shape, wire: u8, field: bool, depth: usize) -> Result<(), String> {
        let depth = depth.checked_sub(1).ok_or("is nested too deeply")?;
        match (shape, wire) {
            (Number(tag), 4..=6) => {
                let number = self.number()?.ok_or("has a negative size")?;
                (self.visit)(*tag, number, &[])
            }
            (Bytes(tag), 8) => {
                let size = self.varint()?;
                let bytes = self.skip(size)?;
                (self.visit)(*tag, size, bytes)
            }
            (Flag, 1 | 2) if field => Ok(()),
            (List(element), 9) => {
                let (size, wire) = self.list(depth)?;
                (0..size).try_for_each(|_| self.known(element, wire, false, depth))
            }
            (Struct(fields), 12) => self.structure(fields, depth),
            _ => Err("has metadata of an unexpected kind".into()),
        }
    }

    /// Passes over a field that does not matter, as the library does.
    fn unknown(&mut self, wire: u8, field: bool, depth: usize) -> Result<(), String> {
        let depth = depth.checked_sub(1).ok_or("is nested too deeply")?;
        match wire {
            1 | 2 if field => Ok(()),
            3 => self.byte().map(drop),
            4..=6 => self.varint().map(drop),
            7 => self.skip(8).map(drop),
            8 => {
                let size = self.varint()?;
                self.skip(size).map(drop)
            }
            9 => {
                let (size, wire) = self.list(depth)?;
                (0..size).try_for_each(|_| self.unknown(wire, false, depth))
            }
            12 => self.structure(&[], depth),
            _ => Err("has metadata of an unexpected kind".into()),
        }
    }
}

/// How deep metadata may be nested; the deepest known, a statistic of a column chunk, is half of it.
const MAX_DEPTH: usize = 16;

/// Checks the metadata at the end of a file; its columns must be `expected`.
pub(super) fn check_footer(bytes: &[u8], expected: &SchemaDescriptor) -> Result<(), String> {
    let mut elements: Vec<Element<'_>> = Vec::new();
    // The fields of an element come in the order of their ids, the name after type and repetition, before the children.
    let mut next = Element::default();
    let mut children = Vec::new();
    let mut visit = |tag, number, bytes| {
        match tag {
            Tag::ElementType => next.physical = Some(number),
            Tag::ElementRepetition => next.repetition = Some(number),
            Tag::ElementName => {
                elements.push(Element { name: bytes, ..std::mem::take(&mut next) });
                if elements.len() > expected.num_columns() + 1 {
                    return Err("has too many columns".to_owned());
                }
            }
            Tag::ElementChildren if number > 0 => children.push((elements.len(), number)),
            _ => {}
        }
        Ok(())
    };
    Walk { bytes, at: 0, visit: &mut visit }.structure(FILE, MAX_DEPTH)?;
    let columns = expected.num_columns();
    if elements.len() != columns + 1 || children != [(1, columns as u64)] {
        return Err("has other columns than this table".into());
    }
    for (found, column) in elements[1..].iter().zip(expected.columns()) {
        let physical = match column.physical_type() {
            Type::BOOLEAN => 0,
            Type::INT32 => 1,
            Type::INT64 => 2,
            _ => 6,
        };
        let optional = u64::from(column.max_def_level() > 0);
        let same = found.name == column.name().as_bytes()
            && found.physical == Some(physical)
            && found.repetition == Some(optional);
        if !same {
            return Err(format!("has another column where {} should be", column.name()));
        }
    }
    Ok(())
}

#[derive(Default)]
struct Element<'a> {
    name: &'a [u8],
    physical: Option<u64>,
    repetition: Option<u64>,
}

/// Checks what the metadata says of a file of `file_bytes` bytes.
pub(super) fn check_metadata(metadata: &ParquetMetaData, file_bytes: u64) -> Result<(), String> {
    let rows: Option<u64> = metadata
        .row_groups()
        .iter()
        .map(|group| u64::try_from(group.num_rows()).ok())
        .try_fold(0, |sum: u64, rows| sum.checked_add(rows?).filter(|sum| *sum <= MAX_ROWS));
    if rows.is_none() || rows != u64::try_from(metadata.file_metadata().num_rows()).ok() {
        return Err("has an absurd number of rows".into());
    }
    for column in metadata.row_groups().iter().flat_map(RowGroupMetaData::columns) {
        range(column, file_bytes)?;
        if !matches!(column.compression(), Compression::SNAPPY | Compression::GZIP(_) | Compression::UNCOMPRESSED) {
            return Err(format!("is compressed with {}: use snappy or gzip", column.compression()));
        }
    }
    Ok(())
}

/// Where the pages of a column chunk begin, and how many bytes they are.
fn range(column: &ColumnChunkMetaData, file_bytes: u64) -> Result<(u64, u64), String> {
    let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
    let range = u64::try_from(start).ok().zip(u64::try_from(column.compressed_size()).ok());
    range
        .filter(|(start, bytes)| start.checked_add(*bytes).is_some_and(|end| end <= file_bytes))
        .ok_or_else(|| "has pages beyond its end".into())
}

/// Checks the pages of a row group before they are read: their sizes, and that they hold as many rows as was said.
///
/// Whoever rewrites the file between this look and the reading can still do harm; a trace that is read lies still.
pub(super) fn check_pages(file: &File, group: &RowGroupMetaData, file_bytes: u64) -> Result<(), String> {
    let mut group_bytes = 0_u64;
    for column in group.columns() {
        let (mut at, mut left) = range(column, file_bytes)?;
        let (mut rows, mut pages) = (0_u64, 0);
        while left > 0 {
            pages += 1;
            if pages > MAX_PAGES {
                return Err("has more pages than it may have".into());
            }
            let page = page(file, at, left)?;
            group_bytes += page.bytes;
            rows += page.rows;
            let taken = page.header_bytes + page.bytes_compressed;
            if taken > left || group_bytes > MAX_ROW_GROUP {
                return Err("has pages larger than they may be".into());
            }
            at += taken;
            left -= taken;
        }
        if Some(rows) != u64::try_from(group.num_rows()).ok() {
            return Err("has pages with another number of rows than it says".into());
        }
    }
    Ok(())
}

struct Page {
    header_bytes: u64,
    bytes: u64,
    bytes_compressed: u64,
    /// None for a dictionary.
    rows: u64,
}

fn page(file: &File, at: u64, left: u64) -> Result<Page, String> {
    let mut buffer = [0; MAX_PAGE_HEADER];
    let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
    let mut filled = 0;
    while filled < want {
        match file.read_at(&mut buffer[filled..want], at + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(format!("cannot be read: {e}")),
        }
    }
    let (mut kind, mut bytes, mut bytes_compressed, mut rows, mut entries) = (None, None, None, None, None);
    let mut visit = |tag, number: u64, _: &[u8]| {
        // Each may stand once only: the library takes the last.
        let slot = match tag {
            Tag::PageKind => &mut kind,
            Tag::PageBytes => &mut bytes,
            Tag::PageBytesCompressed => &mut bytes_compressed,
            Tag::DataValues => &mut rows,
            Tag::DictionaryValues => &mut entries,
            // PLAIN, PLAIN_DICTIONARY, RLE, DELTA_BINARY_PACKED, RLE_DICTIONARY; the others multiply their input.
            Tag::DataEncoding if [0, 2, 3, 5, 8].contains(&number) => return Ok(()),
            Tag::DataEncoding => return Err("has pages in an unsupported encoding".to_owned()),
            _ => return Ok(()),
        };
        if slot.replace(number).is_some() || number > MAX_PAGE as u64 {
            return Err("has pages larger than they may be".to_owned());
        }
        Ok(())
    };
    let mut walk = Walk { bytes: &buffer[..filled], at: 0, visit: &mut visit };
    walk.structure(PAGE, MAX_DEPTH)?;
    let header_bytes = walk.at as u64;
    let (Some(bytes), Some(bytes_compressed)) = (bytes, bytes_compressed) else {
        return Err("has pages without a size".into());
    };
    let rows = match (kind, rows, entries) {
        (Some(0), Some(rows), None) => rows,
        // Every entry takes four bytes at least.
        (Some(2), None, Some(entries)) if entries * 4 <= bytes => 0,
        _ => return Err("has pages of an unsupported kind".into()),
    };
    Ok(Page { header_bytes, bytes, bytes_compressed, rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(bytes: &[u8]) -> Result<(), String> {
        Walk { bytes, at: 0, visit: &mut |_, _, _| Ok(()) }.structure(FILE, MAX_DEPTH)
    }

    #[test]
    fn a_list_longer_than_the_file_is_refused_before_anything_is_reserved() {
        // Field 4 (row groups), a list of two billion structs.
        let error = walk(&[0x49, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0x00]).unwrap_err();
        assert!(error.contains("list longer"), "{error}");
    }

    #[test]
    fn a_field_of_another_type_cannot_hide_what_follows() {
        // Field 4 as bytes: the library would read its length as the head of a list.
        assert!(walk(&[0x48, 0x00, 0x00]).is_err());
        // A list of flags, which take no byte each when the library passes over them.
        assert!(walk(&[0x09, 0x28, 0x11, 0x00, 0x00]).is_err());
    }

    #[test]
    fn deep_nesting_is_refused() {
        // Unknown structs within each other.
        let error = walk(&[0x1c; 300]).unwrap_err();
        assert!(error.contains("unexpected kind") || error.contains("deeply"), "{error}");
        let mut bytes = vec![0xac];
        bytes.extend([0x1c; 300]);
        assert!(walk(&bytes).unwrap_err().contains("deeply"));
    }
}
