//! The tables of the kinds that are declared with their fields: one for each, whose columns are the fields.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, UInt8Array, UInt16Array, UInt32Array,
};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use hashbrown::HashMap;

use super::column::{Column, Flag, Id, Text, Time, U8, U16, U32};
use super::schema::ColumnInfo;
use crate::event::{self, Cpu, Event, EventKind, FieldType, Kind, Name, NameId, Nanos};

/// The most names of a trace that are kept: more than any machine has.
const MAX_NAMES: usize = 1 << 16;

/// The columns of a kind's table.
pub(super) fn columns(kind: Kind) -> Vec<ColumnInfo> {
    let column = |name, data_type| ColumnInfo { name, data_type, nullable: false };
    let fields = kind.fields().iter().map(|field| column(field.name, data_type(field.ty)));
    [column("ts_ns", Time::TYPE), column("cpu", U16::TYPE)].into_iter().chain(fields).collect()
}

fn data_type(ty: FieldType) -> DataType {
    match ty {
        FieldType::Task | FieldType::Unsigned(32) => DataType::UInt32,
        FieldType::Cpu | FieldType::Unsigned(16) => DataType::UInt16,
        FieldType::Unsigned(8) => DataType::UInt8,
        FieldType::Unsigned(_) | FieldType::Signed | FieldType::Id | FieldType::Duration => DataType::Int64,
        FieldType::Flag => DataType::Boolean,
        FieldType::Name | FieldType::Choice(_) => DataType::Utf8,
    }
}

/// What names read, for a writer.
#[derive(Debug, Default)]
pub(super) struct Texts(HashMap<NameId, Arc<str>>);

impl Texts {
    pub(super) fn learn(&mut self, name: &Name) {
        if self.0.len() < MAX_NAMES {
            self.0.insert(name.id, Arc::clone(&name.text));
        }
    }

    fn get(&self, id: NameId) -> Option<&str> {
        self.0.get(&id).map(|text| &**text)
    }
}

/// Rows of one kind that wait.
#[derive(Debug)]
pub(super) struct Rows {
    kind: Kind,
    ts: Vec<i64>,
    cpu: Vec<u16>,
    values: Vec<Vec<u64>>,
}

impl Rows {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, ts: Vec::new(), cpu: Vec::new(), values: vec![Vec::new(); kind.fields().len()] }
    }

    pub(super) fn len(&self) -> usize {
        self.ts.len()
    }

    pub(super) fn push(&mut self, event: &Event) {
        Time::push(&mut self.ts, event.ts);
        self.cpu.push(event.cpu.0);
        for (column, value) in self.values.iter_mut().zip(&*event.kind.values()) {
            column.push(*value);
        }
    }

    /// Takes the rows out.
    pub(super) fn take(&mut self, schema: SchemaRef, texts: &Texts) -> Result<RecordBatch, ArrowError> {
        let values = self.values.iter_mut().map(std::mem::take);
        let fields = self.kind.fields().iter().zip(values).map(|(field, values)| array(field.ty, &values, texts));
        let head = [Time::array(&mut self.ts), U16::array(&mut self.cpu)];
        RecordBatch::try_new(schema, head.into_iter().chain(fields).collect())
    }
}

fn array(ty: FieldType, values: &[u64], texts: &Texts) -> ArrayRef {
    let each = values.iter().copied();
    // Each value is one of its field's type.
    match data_type(ty) {
        DataType::UInt32 => Arc::new(UInt32Array::from_iter_values(each.map(|value| value as u32))),
        DataType::UInt16 => Arc::new(UInt16Array::from_iter_values(each.map(|value| value as u16))),
        DataType::UInt8 => Arc::new(UInt8Array::from_iter_values(each.map(|value| value as u8))),
        DataType::Boolean => Arc::new(each.map(|value| Some(value != 0)).collect::<BooleanArray>()),
        DataType::Utf8 => {
            let text = |value| event::text(ty, value, |id| texts.get(id));
            Arc::new(StringArray::from_iter_values(each.map(text)))
        }
        _ => Arc::new(Int64Array::from_iter_values(each.map(|value| value as i64))),
    }
}

/// Gives numbers to the names of a trace.
#[derive(Debug, Default)]
pub(super) struct Interner {
    ids: HashMap<Arc<str>, NameId>,
    /// Those that were not told yet.
    pub(super) fresh: Vec<Name>,
}

impl Interner {
    fn id(&mut self, text: &str, since: Nanos) -> Result<NameId, String> {
        if text.is_empty() {
            return Ok(NameId::NONE);
        }
        if let Some(&id) = self.ids.get(text) {
            return Ok(id);
        }
        if self.ids.len() >= MAX_NAMES {
            return Err(format!("has more than {MAX_NAMES} names"));
        }
        let name = Name::new(NameId(self.ids.len() as u32 + 1), since, text.as_bytes());
        self.ids.insert(text.into(), name.id);
        self.fresh.push(name.clone());
        Ok(name.id)
    }
}

/// Reads the rows of a kind's table; the error says what is wrong with them.
pub(super) fn read_events(
    kind: Kind,
    batch: &RecordBatch,
    names: &mut Interner,
    out: &mut Vec<Event>,
) -> Result<(), String> {
    let mut columns = kind_columns(kind, batch)?.into_iter();
    let (Some(times), Some(cpus)) = (columns.next(), columns.next()) else { return Err("has no times".to_owned()) };
    let (ts, cpu) = (Time::view(times), U16::view(cpus));
    let (Some(ts), Some(cpu)) = (ts, cpu) else { return Err("column ts_ns or cpu has the wrong type".to_owned()) };
    let mut rows = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let at = Time::value(&ts, row).map_err(|why| format!("column ts_ns {why} in row {row}"))?;
        rows.push((at, Cpu(cpu.value(row))));
    }
    let mut values = Vec::new();
    for (field, column) in kind.fields().iter().zip(columns) {
        let read = self::values(field.ty, column, &rows, names);
        values.push(read.map_err(|why| format!("column {} {why}", field.name))?);
    }
    let mut event = Vec::with_capacity(values.len());
    for (row, (ts, cpu)) in rows.into_iter().enumerate() {
        event.clear();
        event.extend(values.iter().map(|column| column[row]));
        let what =
            EventKind::from_values(kind, &event).ok_or_else(|| format!("has a value beyond its type in row {row}"))?;
        out.push(Event { ts, cpu, kind: what });
    }
    Ok(())
}

/// Its columns, of which none may have nulls.
fn kind_columns(kind: Kind, batch: &RecordBatch) -> Result<Vec<&ArrayRef>, String> {
    let column = |info: ColumnInfo| {
        let found = batch.column_by_name(info.name).ok_or_else(|| format!("has no column {}", info.name))?;
        if found.null_count() != 0 { Err(format!("column {} has nulls", info.name)) } else { Ok(found) }
    };
    columns(kind).into_iter().map(column).collect()
}

/// The cells of a column as numbers.
fn values(ty: FieldType, column: &ArrayRef, rows: &[(Nanos, Cpu)], names: &mut Interner) -> Result<Vec<u64>, String> {
    const WRONG: &str = "has the wrong type";
    let each = 0..rows.len();
    Ok(match data_type(ty) {
        DataType::UInt32 => {
            let view = U32::view(column).ok_or(WRONG)?;
            each.map(|row| view.value(row).into()).collect()
        }
        DataType::UInt16 => {
            let view = U16::view(column).ok_or(WRONG)?;
            each.map(|row| view.value(row).into()).collect()
        }
        DataType::UInt8 => {
            let view = U8::view(column).ok_or(WRONG)?;
            each.map(|row| view.value(row).into()).collect()
        }
        DataType::Boolean => {
            let view = Flag::view(column).ok_or(WRONG)?;
            each.map(|row| view.value(row).into()).collect()
        }
        DataType::Utf8 => {
            let view = Text::view(column).ok_or(WRONG)?;
            let mut cell = |row: usize| {
                let text = Text::value(&view, row)?;
                match ty {
                    FieldType::Choice(all) => {
                        event::choice(all, text).ok_or_else(|| super::schema::unknown_value(text))
                    }
                    _ => names.id(text, rows[row].0).map(|id| id.0.into()),
                }
            };
            each.map(&mut cell).collect::<Result<_, _>>()?
        }
        _ => {
            let view = Id::view(column).ok_or(WRONG)?;
            each.map(|row| view.value(row) as u64).collect()
        }
    })
}
