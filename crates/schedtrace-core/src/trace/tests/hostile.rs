//! Files from strangers: an error that names the file, never a panic, a hang or unbounded memory.

use std::os::unix::fs::symlink;

use super::*;
use crate::trace::schema::Table;
use crate::trace::segment::{parquet_path, stream_path};

fn finished(folder: &TempDir) -> PathBuf {
    let dir = folder.path().join("t");
    write(&dir, WriterOptions::default(), &rich());
    dir
}

fn in_flight(folder: &TempDir) -> PathBuf {
    let dir = folder.path().join("t");
    let options = WriterOptions { sync_interval: Duration::ZERO, ..WriterOptions::default() };
    drop(record(&dir, options, &rich()));
    dir
}

/// Every table has rows.
fn rich() -> Vec<Batch> {
    let mut batches = stream(3, 40);
    let event = |ts, kind| Event { ts: Nanos(ts), cpu: Cpu(1), kind };
    let (a, b, cpu) = (TaskId(1), TaskId(2), Cpu(300));
    batches[0].events.extend([
        event(60_000, EventKind::Snapshot(Snapshot { task: a, running: true })),
        event(60_001, EventKind::Fork(Fork { parent: a, child: b })),
        event(60_002, EventKind::Exec(Exec { task: b, old_tid: 9 })),
        event(60_003, EventKind::WakeupNew(WakeupNew { task: b, parent: a, target_cpu: cpu, prio: 120 })),
        event(60_004, EventKind::Migrate(Migrate { task: b, from: Cpu(1), to: cpu, placed: true, prio: 120 })),
        event(
            60_005,
            EventKind::Waking(Waking {
                task: b,
                current: a,
                context: Context::Softirq,
                prev_cpu: cpu,
                on_cpu: false,
                prio: 120,
            }),
        ),
        event(60_006, EventKind::Exit(Exit { task: b, group_dead: true })),
    ]);
    batches[0].events.retain(|event| event.ts < Nanos(50_000) || event.ts >= Nanos(60_000));
    batches[0].until = Nanos(60_010);
    for batch in &mut batches[1..] {
        batch.until = batch.until + Nanos(50_000);
        batch.events.iter_mut().for_each(|event| event.ts = event.ts + Nanos(50_000));
    }
    batches[1].lost = vec![Loss {
        place: LossPlace::Nested,
        kind: Some(Kind::Waking),
        count: 4,
        from: Nanos(60_000),
        until: Nanos(70_000),
    }];
    batches
}

/// Reads all of it, the summary too; whatever comes, it does not panic.
fn try_read(dir: &Path) -> Result<Vec<Batch>> {
    TraceReader::open(dir)?.info()?;
    read(dir)
}

fn assert_damaged(result: Result<Vec<Batch>>, file: &Path, what: &str) {
    let error = result.err().unwrap_or_else(|| panic!("{what}: {} was read", file.display()));
    assert!(matches!(&error, Error::Damaged { path, .. } if path == file), "{what}: {error}");
    assert!(!error.to_string().contains(['\n', '\x1b']), "one line: {error:?}");
}

#[test]
fn tables_at_rest_cut_short_are_refused() {
    let folder = scratch();
    let dir = finished(&folder);
    for table in tables() {
        let path = parquet_path(&dir, table, 0);
        let bytes = std::fs::read(&path).unwrap();
        for end in (0..bytes.len()).step_by(7).chain([bytes.len() - 1]) {
            std::fs::write(&path, &bytes[..end]).unwrap();
            assert_damaged(try_read(&dir), &path, &format!("cut at {end}"));
        }
        std::fs::write(&path, &bytes).unwrap();
    }
    assert_eq!(content(&try_read(&dir).unwrap()), content(&rich()));
}

#[test]
fn tables_in_flight_cut_below_the_commit_are_refused() {
    let folder = scratch();
    let dir = in_flight(&folder);
    // A table without rows is not looked at: nothing was committed of it.
    for table in tables().into_iter().filter(|table| *table != Table::States) {
        let path = stream_path(&dir, table, 0);
        let bytes = std::fs::read(&path).unwrap();
        for end in (0..bytes.len()).step_by(7).chain([bytes.len() - 1]) {
            std::fs::write(&path, &bytes[..end]).unwrap();
            assert_damaged(try_read(&dir), &path, &format!("cut at {end}"));
        }
        std::fs::write(&path, &bytes).unwrap();
    }
    assert_eq!(content(&try_read(&dir).unwrap()), content(&rich()));
}

#[test]
fn documents_cut_short_are_refused() {
    let folder = scratch();
    let dir = finished(&folder);
    for name in ["meta.json", "commit.json"] {
        let path = dir.join(name);
        let bytes = std::fs::read(&path).unwrap();
        for end in (0..bytes.len() - 1).step_by(5) {
            std::fs::write(&path, &bytes[..end]).unwrap();
            let error = try_read(&dir).unwrap_err();
            match name {
                "meta.json" => assert!(matches!(&error, Error::NotATrace { path, .. } if *path == dir), "{error}"),
                _ => assert!(matches!(&error, Error::Damaged { path: at, .. } if *at == path), "{error}"),
            }
        }
        std::fs::write(&path, &bytes).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    /// Flipped bytes: an error or other data, and nothing worse.
    #[test]
    fn damage_never_panics(
        at_rest in any::<bool>(),
        table in 0..tables().len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        near_end in any::<bool>(),
    ) {
        thread_local! {
            static DIRS: [(TempDir, PathBuf); 2] = [finished, in_flight].map(|make| {
                let folder = scratch();
                let dir = make(&folder);
                (folder, dir)
            });
        }
        DIRS.with(|dirs| {
            let dir = &dirs[usize::from(!at_rest)].1;
            let table = tables()[table];
            let path = if at_rest { parquet_path(dir, table, 0) } else { stream_path(dir, table, 0) };
            let bytes = std::fs::read(&path).unwrap();
            let mut damaged = bytes.clone();
            for (index, byte) in &changes {
                // Most of what can go wrong stands in the metadata.
                let within = if near_end { bytes.len() * 2 / 3 } else { bytes.len() };
                let at = bytes.len() - 1 - index.index(within);
                damaged[at] = *byte;
            }
            std::fs::write(&path, &damaged).unwrap();
            // The rules of the stream hold for whatever is read.
            let _ = try_read(dir);
            std::fs::write(&path, &bytes).unwrap();
        });
    }

    /// Bytes that are no table at all.
    #[test]
    fn garbage_never_panics(garbage in prop::collection::vec(any::<u8>(), 0..400), magic in any::<bool>()) {
        thread_local! {
            static DIR: (TempDir, PathBuf) = {
                let folder = scratch();
                let dir = finished(&folder);
                (folder, dir)
            };
        }
        DIR.with(|(_, dir)| {
            let path = parquet_path(dir, Table::Switch, 0);
            let mut bytes = garbage.clone();
            if magic {
                let size = bytes.len() as u32;
                bytes.extend(size.to_le_bytes());
                bytes.extend(b"PAR1");
            }
            std::fs::write(&path, &bytes).unwrap();
            let refused = matches!(try_read(dir), Err(Error::Damaged { .. }));
            prop_assert!(refused);
            Ok(())
        })?;
    }
}

#[test]
fn a_table_in_place_of_another_is_refused() {
    let folder = scratch();
    let dir = finished(&folder);
    let path = parquet_path(&dir, Table::Migrate, 0);
    std::fs::copy(parquet_path(&dir, Table::WakeupNew, 0), &path).unwrap();
    assert_damaged(try_read(&dir), &path, "another table");

    let folder = scratch();
    let dir = in_flight(&folder);
    let path = stream_path(&dir, Table::Migrate, 0);
    let other = std::fs::read(stream_path(&dir, Table::Switch, 0)).unwrap();
    std::fs::write(&path, other).unwrap();
    assert_damaged(try_read(&dir), &path, "another table");
}

#[test]
fn a_missing_table_is_named() {
    let folder = scratch();
    let dir = finished(&folder);
    let path = parquet_path(&dir, Table::Waking, 0);
    std::fs::remove_file(&path).unwrap();
    assert_damaged(try_read(&dir), &path, "missing");
}

#[test]
fn links_and_pipes_are_not_followed() {
    let folder = scratch();
    let dir = finished(&folder);
    let path = parquet_path(&dir, Table::Switch, 0);
    let aside = folder.path().join("aside");
    std::fs::rename(&path, &aside).unwrap();
    symlink(&aside, &path).unwrap();
    assert_damaged(try_read(&dir), &path, "a link");
    std::fs::remove_file(&path).unwrap();
    // Opening a pipe that nobody writes to would wait for ever.
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    assert_damaged(try_read(&dir), &path, "a pipe");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert_damaged(try_read(&dir), &path, "a folder");
    std::fs::remove_dir(&path).unwrap();
    std::fs::rename(&aside, &path).unwrap();
    assert!(try_read(&dir).is_ok());

    let tasks = dir.join("tasks");
    std::fs::rename(&tasks, folder.path().join("tasks")).unwrap();
    symlink(folder.path().join("tasks"), &tasks).unwrap();
    assert_damaged(try_read(&dir), &tasks, "a linked folder");
}

fn edit(path: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let mut document = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    change(&mut document);
    std::fs::write(path, serde_json::to_vec(&document).unwrap()).unwrap();
}

#[test]
fn a_newer_trace_says_so() {
    let folder = scratch();
    let dir = finished(&folder);
    edit(&dir.join("meta.json"), |meta| *meta = serde_json::json!({"schema": 7, "what": "ever"}));
    assert!(matches!(TraceReader::open(&dir), Err(Error::NewerTrace { found: 7, known: 2, .. })));
}

#[test]
fn what_is_no_trace_says_why() {
    let folder = scratch();
    for (name, what) in [("nothing", "no such directory"), ("", "no meta.json")] {
        let error = TraceReader::open(folder.path().join(name)).unwrap_err();
        assert!(matches!(&error, Error::NotATrace { why, .. } if why.contains(what)), "{error}");
    }
    let file = folder.path().join("file");
    std::fs::write(&file, b"PAR1").unwrap();
    let error = TraceReader::open(&file).unwrap_err();
    assert!(matches!(&error, Error::NotATrace { why, .. } if why.contains("directory")), "{error}");
    let dir = finished(&folder);
    std::fs::remove_file(dir.join("commit.json")).unwrap();
    let error = TraceReader::open(&dir).unwrap_err();
    assert!(matches!(&error, Error::NotATrace { why, .. } if why.contains("commit.json")), "{error}");
    edit(&dir.join("meta.json"), |meta| *meta = serde_json::json!({"schema": "\u{1b}[31m\n"}));
    let error = TraceReader::open(&dir).unwrap_err();
    assert!(matches!(&error, Error::NotATrace { .. }) && !error.to_string().contains(['\n', '\x1b']), "{error:?}");
}

#[test]
fn a_commit_that_promises_what_is_not_there_is_refused() {
    let folder = scratch();
    let dir = in_flight(&folder);
    let commit = dir.join("commit.json");
    let good = std::fs::read(&commit).unwrap();
    let path = stream_path(&dir, Table::Switch, 0);
    for (column, value) in [("bytes", 1_u64 << 60), ("bytes", 5), ("rows", 1 << 60), ("rows", 3)] {
        edit(&commit, |c| c["segments"][0]["tables"]["sched_switch"][column] = value.into());
        assert_damaged(try_read(&dir), &path, column);
        std::fs::write(&commit, &good).unwrap();
    }
    edit(&commit, |c| c["segments"] = vec![c["segments"][0].clone(); 1000].into());
    let durable = std::fs::read(dir.join("durable.json")).unwrap();
    assert!(try_read(&dir).is_ok(), "there is another record");
    std::fs::remove_file(dir.join("durable.json")).unwrap();
    assert_damaged(try_read(&dir), &commit, "many segments");
    std::fs::write(dir.join("durable.json"), durable).unwrap();
    std::fs::write(&commit, &good).unwrap();
    // Times that cannot be leave the rules of the stream intact.
    for time in [0, 1, i64::MAX as u64, u64::MAX] {
        for field in ["from_ns", "until_ns", "first_ns", "last_ns"] {
            edit(&commit, |c| c["segments"][0][field] = time.into());
            edit(&commit, |c| c["complete_until_ns"] = time.into());
            let _ = try_read(&dir);
        }
    }
}

mod crafted {
    //! Tables that are well-formed and lie.

    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, UInt32Array};
    use arrow::datatypes::{Field, Schema};
    use parquet::arrow::ArrowWriter;
    use parquet::basic::{Compression, Encoding, GzipLevel};
    use parquet::file::properties::{WriterProperties, WriterVersion};
    use parquet::schema::types::ColumnPath;

    use super::*;

    fn gzip() -> parquet::file::properties::WriterPropertiesBuilder {
        WriterProperties::builder().set_compression(Compression::GZIP(GzipLevel::default()))
    }

    /// Writes a table with some columns replaced.
    fn craft(dir: &Path, table: Table, rows: usize, columns: &[(&str, ArrayRef)], properties: WriterProperties) {
        let schema = table.schema();
        let arrays = schema.fields().iter().map(|field| {
            let replaced = columns.iter().find(|(name, _)| name == field.name()).map(|(_, array)| Arc::clone(array));
            replaced.unwrap_or_else(|| match field.data_type() {
                arrow::datatypes::DataType::Utf8 if !field.is_nullable() => {
                    Arc::new(StringArray::from(vec!["fork"; rows]))
                }
                data_type if field.is_nullable() => arrow::array::new_null_array(data_type, rows),
                data_type => arrow::compute::cast(&Int64Array::from(vec![1; rows]), data_type).unwrap(),
            })
        });
        let arrays: Vec<ArrayRef> = arrays.collect();
        let fields = schema.fields().iter().zip(&arrays).map(|(field, array)| {
            Field::new(field.name(), array.data_type().clone(), field.is_nullable() || array.null_count() > 0)
        });
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let batch = RecordBatch::try_new(Arc::clone(&schema), arrays).unwrap();
        let file = std::fs::File::create(parquet_path(dir, table, 0)).unwrap();
        let mut writer = ArrowWriter::try_new(file, schema, Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    fn refused(table: Table, columns: &[(&str, ArrayRef)], properties: WriterProperties, what: &str) {
        let folder = scratch();
        let dir = finished(&folder);
        let rows = columns[0].1.len();
        craft(&dir, table, rows, columns, properties);
        let result = try_read(&dir);
        let why = result.as_ref().err().map(ToString::to_string).unwrap_or_default();
        assert!(why.contains(what), "{why} does not say {what}");
        assert_damaged(result, &parquet_path(&dir, table, 0), what);
    }

    #[test]
    fn values_that_cannot_be_are_refused() {
        let text = |value: &str| Arc::new(StringArray::from(vec![value])) as ArrayRef;
        let fields = || gzip().build();
        refused(Table::Lifecycle, &[("event", text("bang\x1b"))], fields(), "unknown value \"bang\\u{1b}\"");
        refused(Table::Lifecycle, &[("event", text("fork"))], fields(), "parent_task is null");
        refused(Table::Waking, &[("context", text("dream"))], fields(), "context has the unknown value");
        refused(Table::Loss, &[("place", text("ring:999999"))], fields(), "place has the unknown value");
        let (kind, place) = (text("sched_dance"), text("late"));
        refused(Table::Loss, &[("place", place), ("kind", kind)], fields(), "kind has the unknown value");
        let negative = Arc::new(Int64Array::from(vec![-5])) as ArrayRef;
        refused(Table::Switch, &[("ts_ns", Arc::clone(&negative))], fields(), "ts_ns is a time before");
        refused(Table::Loss, &[("place", text("late")), ("count", negative)], fields(), "count is a negative");
        refused(Table::Cgroups, &[("path", text(&"x".repeat(5000)))], fields(), "path is too long");
    }

    #[test]
    fn other_columns_are_refused() {
        let nulls = Arc::new(Int64Array::from(vec![Some(1), None])) as ArrayRef;
        refused(Table::Switch, &[("ts_ns", nulls)], gzip().build(), "another column where ts_ns");
        let narrow = Arc::new(UInt32Array::from(vec![1])) as ArrayRef;
        refused(Table::Switch, &[("ts_ns", narrow)], gzip().build(), "another column where ts_ns");
    }

    #[test]
    fn encodings_that_multiply_their_input_are_refused() {
        let texts = Arc::new(StringArray::from(vec!["task"; 100])) as ArrayRef;
        let properties = gzip()
            .set_dictionary_enabled(false)
            .set_column_encoding(ColumnPath::from("context"), Encoding::DELTA_BYTE_ARRAY)
            .build();
        refused(Table::Waking, &[("context", Arc::clone(&texts))], properties, "unsupported encoding");
        let properties = gzip().set_writer_version(WriterVersion::PARQUET_2_0).build();
        refused(Table::Waking, &[("context", texts)], properties, "unexpected kind");
    }

    /// A few kilobytes that unpack to a gigabyte.
    #[test]
    fn bombs_are_refused_before_they_go_off() {
        let large = "x".repeat(3 << 20);
        let texts = Arc::new(StringArray::from(vec![large.as_str(); 40])) as ArrayRef;
        let properties = gzip().set_dictionary_enabled(false).build();
        refused(Table::Cgroups, &[("path", texts)], properties, "larger than they may be");
        // The same text 8,000 times over, through a dictionary: one page, and views into it.
        let folder = scratch();
        let dir = finished(&folder);
        let path = "x".repeat(4096);
        let texts = Arc::new(StringArray::from(vec![path.as_str(); 8000])) as ArrayRef;
        craft(&dir, Table::Cgroups, 8000, &[("path", texts)], gzip().build());
        let file = parquet_path(&dir, Table::Cgroups, 0);
        assert!(file.metadata().unwrap().len() < 20_000);
        assert_eq!(read(&dir).unwrap().iter().map(|batch| batch.cgroups.len()).sum::<usize>(), 8000);
    }

    #[test]
    fn a_table_out_of_order_is_read_in_order() {
        let folder = scratch();
        let dir = finished(&folder);
        let times: Vec<i64> = (0..30_000).map(|k| 1 + (k * 7919) % 30_000).collect();
        let rows = times.len();
        craft(&dir, Table::Switch, rows, &[("ts_ns", Arc::new(Int64Array::from(times)))], gzip().build());
        let read = read(&dir).unwrap();
        let is_switch = |event: &&Event| event.kind.kind() == Kind::Switch;
        let count = |events: &[Event]| events.iter().filter(is_switch).count();
        assert_eq!(read.iter().map(|batch| count(&batch.events) + count(&batch.late)).sum::<usize>(), rows);
    }
}
