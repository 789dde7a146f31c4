//! From the first byte to the last: locks, commits, crashes, rotation, limits.

use std::collections::BTreeSet;
use std::io::Write;

use super::*;
use crate::trace::schema::Table;
use crate::trace::segment::{parquet_path, stream_path};

/// A copy of one moment, as a crash leaves it: nobody holds its lock.
pub(super) fn crashed(dir: &Path, to: &Path) {
    // Segments may be on their way to rest: until two looks see the same files, it is not one moment.
    loop {
        let _ = std::fs::remove_dir_all(to);
        let before = files(dir);
        let mut whole = true;
        for path in &before {
            let copy = to.join(path.strip_prefix(dir).unwrap());
            std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
            whole &= std::fs::copy(path, &copy).is_ok();
        }
        if whole && files(dir) == before {
            return;
        }
    }
}

pub(super) fn state(dir: &Path) -> TraceState {
    TraceReader::open(dir).unwrap().info().unwrap().state
}

#[test]
fn what_was_not_committed_is_not_read() {
    let folder = scratch();
    let dir = folder.path().join("t");
    let batches = stream(6, 200);
    let options = WriterOptions { sync_interval: Duration::MAX, ..WriterOptions::default() };
    let mut writer = record(&dir, options, &batches);
    assert_eq!(content(&read(&dir).unwrap()), content(&[]));
    let info = TraceReader::open(&dir).unwrap().info().unwrap();
    assert_eq!(info.state, TraceState::Recording);
    assert_eq!(info.window.duration_ns, Nanos(0));
    writer.finish(&meta()).unwrap();
    assert_eq!(content(&read(&dir).unwrap()), content(&batches));
}

#[test]
fn a_reader_of_a_trace_in_flight_changes_nothing() {
    let folder = scratch();
    let dir = folder.path().join("t");
    let batches = stream(3, 50);
    let options = WriterOptions { sync_interval: Duration::ZERO, ..WriterOptions::default() };
    let mut writer = record(&dir, options, &batches);
    // The thread that syncs may write its record at any moment.
    let look = || {
        let files = files(&dir).into_iter().filter(|path| !path.to_string_lossy().contains("durable.json"));
        files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect::<Vec<_>>()
    };
    let before = look();
    let mut reader = TraceReader::open(&dir).unwrap();
    assert_eq!(content(&drain(&mut reader).unwrap()), content(&batches));
    let info = reader.info().unwrap();
    assert_eq!(info.state, TraceState::Recording);
    assert!(info.completeness.ends_at_last_commit && !info.completeness.complete);
    assert_eq!(info.window.until_ns, batches[2].until);
    assert_eq!(before, look());
    // The lock was given back, and the recording goes on.
    writer.batch(&Batch { until: batches[2].until, ..Batch::default() }).unwrap();
    writer.finish(&meta()).unwrap();
    assert!(TraceReader::open(&dir).unwrap().info().unwrap().completeness.complete);
}

#[test]
fn after_a_kill_everything_up_to_the_last_commit_is_there() {
    let folder = scratch();
    for killed_after in [0, 1, 3, 9] {
        let dir = folder.path().join(format!("live{killed_after}"));
        let batches = stream(killed_after, 150);
        let writer = record(&dir, tiny(), &batches);
        // A kill runs no destructor.
        std::mem::forget(writer);
        let dead = folder.path().join(format!("dead{killed_after}"));
        crashed(&dir, &dead);
        // What was on its way to the disk after the last commit.
        for path in files(&dead).iter().filter(|path| path.extension().is_some_and(|e| e == "arrows")) {
            std::fs::OpenOptions::new().append(true).open(path).unwrap().write_all(&[0xff; 77]).unwrap();
        }
        let mut reader = TraceReader::open(&dead).unwrap();
        let info = reader.info().unwrap();
        assert_eq!(info.state, TraceState::Interrupted);
        assert!(info.completeness.ends_at_last_commit);
        let until = batches.last().map_or(Nanos(1_000), |batch| batch.until);
        assert_eq!((info.window.until_ns, reader.meta().ended), (until, Some(until)));
        assert_eq!(content(&drain(&mut reader).unwrap()), content(&batches));
    }
}

#[test]
fn a_writer_that_is_dropped_leaves_an_interrupted_trace() {
    let folder = scratch();
    let dir = folder.path().join("t");
    let batches = stream(5, 150);
    drop(record(&dir, tiny(), &batches));
    assert_eq!(state(&dir), TraceState::Interrupted);
    assert_eq!(content(&read(&dir).unwrap()), content(&batches));
}

#[test]
fn a_crash_in_the_middle_of_sealing_costs_nothing() {
    let folder = scratch();
    let dir = folder.path().join("t");
    let batches = stream(4, 100);
    let options = WriterOptions { sync_interval: Duration::ZERO, ..WriterOptions::default() };
    let mut writer = record(&dir, options, &batches);
    let flight = folder.path().join("flight");
    crashed(&dir, &flight);
    writer.finish(&meta()).unwrap();
    let tables = tables();
    for done in 0..tables.len() {
        let dead = folder.path().join(format!("dead{done}"));
        crashed(&flight, &dead);
        for table in &tables[..done] {
            std::fs::copy(parquet_path(&dir, *table, 0), parquet_path(&dead, *table, 0)).unwrap();
            // Streams go only after all tables are at rest.
            if done == tables.len() {
                std::fs::remove_file(stream_path(&dead, *table, 0)).unwrap();
            }
        }
        std::fs::write(parquet_path(&dead, tables[done], 0).with_extension("parquet.tmp"), b"half").unwrap();
        assert_eq!(content(&read(&dead).unwrap()), content(&batches), "with {done} tables at rest");
    }
}

#[test]
fn only_one_writes() {
    let folder = scratch();
    let dir = folder.path().join("t");
    let first = TraceWriter::create(&dir, tiny()).unwrap();
    let error = TraceWriter::create(&dir, tiny()).unwrap_err().to_string();
    assert!(error.contains("being recorded") && error.contains("-o"), "{error}");
    drop(first);
    // It never began: the directory is as good as empty.
    let mut second = record(&dir, tiny(), &stream(1, 1));
    let error = TraceWriter::create(&dir, tiny()).unwrap_err().to_string();
    assert!(error.contains("not empty") && error.contains("-o"), "{error}");
    second.finish(&meta()).unwrap();
    let error = TraceWriter::create(&dir, tiny()).unwrap_err().to_string();
    assert!(error.contains("exists already") && error.contains("-o"), "{error}");
    assert_eq!(content(&read(&dir).unwrap()), content(&stream(1, 1)), "nothing was touched");

    let file = folder.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let error = TraceWriter::create(&file, tiny()).unwrap_err().to_string();
    assert!(error.contains("no directory"), "{error}");
}

#[test]
fn what_cannot_be_written_says_where() {
    let folder = scratch();
    let dir = folder.path().join("no such folder/t");
    let error = TraceWriter::create(&dir, tiny()).unwrap_err();
    assert!(matches!(&error, Error::Io { path, .. } if *path == dir), "{error}");
    let options = WriterOptions { max_bytes: Some(1000), ..WriterOptions::default() };
    assert!(matches!(TraceWriter::create(folder.path().join("t"), options), Err(Error::Invalid(_))));
}

#[test]
fn a_failure_leaves_what_was_committed() {
    let folder = scratch();
    let dir = folder.path().join("t");
    let batches = stream(20, 200);
    let mut writer = record(&dir, tiny(), &[]);
    // The second segment cannot be created: something is in its way.
    let obstacle = stream_path(&dir, Table::Snapshot, 1);
    std::fs::write(&obstacle, b"").unwrap();
    let written = batches.iter().position(|batch| writer.batch(batch).is_err()).unwrap();
    let error = writer.batch(&batches[0]).unwrap_err().to_string();
    assert!(error.contains("failed before"), "{error}");
    assert!(writer.finish(&meta()).is_err());
    drop(writer);
    assert_eq!(state(&dir), TraceState::Interrupted);
    // The batch that failed had come to the disk before the next segment was begun.
    assert_eq!(content(&read(&dir).unwrap()), content(&batches[..=written]));
}

#[test]
fn steps_out_of_order_are_refused() {
    let folder = scratch();
    let mut writer = TraceWriter::create(folder.path().join("t"), tiny()).unwrap();
    assert!(writer.batch(&Batch::default()).is_err());
    assert!(writer.finish(&meta()).is_err());
    writer.begin(&meta()).unwrap();
    assert!(writer.begin(&meta()).is_err());
    writer.finish(&meta()).unwrap();
    assert!(writer.batch(&Batch::default()).is_err());
    assert!(writer.finish(&meta()).is_err());
}

/// Tasks that are announced once, at the start, and switch for ever.
pub(super) fn long_lived(count: u64, size: u64) -> Vec<Batch> {
    let mut batches = stream(count, size);
    let tasks: Vec<Task> = (1..=count as u32).map(|id| task(id, 500, "old")).collect();
    for batch in &mut batches {
        batch.tasks.clear();
        batch.events.retain(|event| event.kind.kind() == Kind::Switch);
        for (k, event) in batch.events.iter_mut().enumerate() {
            // A value that is not the same in each row: it must not compress to nothing.
            let noise = (event.ts.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u32;
            let task = TaskId(1 + noise % count as u32);
            let (a, b) = if k % 2 == 0 { (TaskId::idle(Cpu(7)), task) } else { (task, TaskId::idle(Cpu(7))) };
            *event = switch(event.ts.0 + u64::from(noise % 900), noise as u16, a, b);
        }
        batch.events.sort_by_key(|event| event.ts);
    }
    batches[0].tasks = tasks;
    batches
}

#[test]
fn the_oldest_go_when_a_trace_grows_too_large() {
    let folder = scratch();
    let limit = 1 << 20;
    let batches = long_lived(400, 1_000);
    // Where the machine does not keep up, cut segments wait as streams, which take several times the room.
    for keeps_up in [true, false] {
        let dir = folder.path().join(format!("keeps_up_{keeps_up}"));
        let options =
            WriterOptions { max_bytes: Some(limit), sync_interval: Duration::ZERO, ..WriterOptions::default() };
        let mut writer = record(&dir, options, &[]);
        let mut most = 0;
        for batch in &batches {
            writer.batch(batch).unwrap();
            most = most.max(writer.bytes());
            if keeps_up {
                writer.settle().unwrap();
            }
        }
        assert!(most <= limit, "{most} bytes");
        writer.finish(&Meta { ended: batches.last().map(|batch| batch.until), ..meta() }).unwrap();
        assert!(size(&dir) <= limit, "{} bytes", size(&dir));
        // Room is left for the segment in flight and for the one on its way to rest.
        let least = if keeps_up { limit / 2 } else { 1 };
        assert!(size(&dir) >= least, "{} bytes: more was removed than needed", size(&dir));
        assert_is_the_end_of(&dir, &batches);
    }
}

/// The oldest segments of a trace are gone, and what is left is the end of what was written, whole.
pub(super) fn assert_is_the_end_of(dir: &Path, batches: &[Batch]) {
    let mut reader = TraceReader::open(dir).unwrap();
    let info = reader.info().unwrap();
    let removed = info.completeness.removed;
    assert!(removed.segments > 0 && !info.completeness.complete);
    assert_eq!(info.window.from_ns, removed.until_ns);
    assert_eq!(reader.meta().started, removed.until_ns);
    let read = drain(&mut reader).unwrap();
    assert_self_contained(&read);
    let left: Vec<Event> = read.iter().flat_map(|batch| batch.events.clone()).collect();
    let all: Vec<Event> = batches.iter().flat_map(|batch| batch.events.clone()).collect();
    assert!(!left.is_empty() && left.len() < all.len());
    assert_eq!(left[..], all[all.len() - left.len()..]);
    assert_eq!(info.completeness.events, left.len() as u64);
}

#[test]
fn any_run_of_segments_can_be_read_alone() {
    let folder = scratch();
    let dir = folder.path().join("t");
    let batches = long_lived(30, 300);
    write(&dir, tiny(), &batches);
    let whole = read(&dir).unwrap();
    assert_self_contained(&whole);
    let announced = |batches: &[Batch]| batches.iter().map(|batch| batch.tasks.len()).sum::<usize>();
    assert_eq!(announced(&whole), 30, "what is known already is not said again");
    // The first segments never wait for each other, so that they end where batches do.
    let mid = batches[4].events[0].ts;
    let late = drain(&mut TraceReader::open(&dir).unwrap().between(Some(mid), None)).unwrap();
    assert_self_contained(&late);
    assert_eq!(announced(&late), 30);
    let first = |batches: &[Batch]| batches.iter().flat_map(|batch| &batch.events).next().unwrap().ts;
    assert!(first(&late) > first(&whole) && first(&late) <= mid);
    let count = |batches: &[Batch], from| {
        batches.iter().flat_map(|batch| &batch.events).filter(|event| event.ts >= from).count()
    };
    assert_eq!(count(&late, mid), count(&whole, mid));
    let early = drain(&mut TraceReader::open(&dir).unwrap().between(None, Some(mid))).unwrap();
    assert_eq!(count(&early, Nanos(0)) - count(&early, mid), count(&whole, Nanos(0)) - count(&whole, mid));
    assert!(count(&early, mid) < count(&whole, mid));
    let none = drain(&mut TraceReader::open(&dir).unwrap().between(Some(Nanos::MAX), None)).unwrap();
    assert!(none.is_empty());
}

#[test]
fn what_is_too_old_goes() {
    let folder = scratch();
    let dir = folder.path().join("t");
    let batches = stream(100, 100);
    let age = Duration::from_nanos(batches[99].until.0 - batches[79].until.0);
    let options = WriterOptions { max_age: Some(age), sync_interval: Duration::ZERO, ..WriterOptions::default() };
    write(&dir, options, &batches);
    let info = TraceReader::open(&dir).unwrap().info().unwrap();
    assert!(info.completeness.removed.segments > 0);
    assert_self_contained(&read(&dir).unwrap());
    let (kept, limit) = (info.window.duration_ns, Nanos::from(age));
    assert!(kept >= limit, "{kept} is less than {limit}");
    assert!(kept.0 <= limit.0 * 5 / 4, "{kept} is more than {limit} and a segment");
}

#[test]
fn a_segment_that_is_removed_while_it_is_read_is_passed_over() {
    let folder = scratch();
    let dir = folder.path().join("t");
    let batches = long_lived(200, 1_000);
    let options = WriterOptions { max_bytes: Some(1 << 20), sync_interval: Duration::ZERO, ..WriterOptions::default() };
    let mut writer = record(&dir, options, &batches[..20]);
    let mut reader = TraceReader::open(&dir).unwrap();
    for batch in &batches[20..] {
        writer.batch(batch).unwrap();
    }
    let read = drain(&mut reader).unwrap();
    assert_self_contained(&read);
    let until = batches[19].until;
    assert!(read.iter().flat_map(|batch| &batch.events).all(|event| event.ts <= batches[199].until));
    assert!(read.last().is_none_or(|batch| batch.until >= until || batch.events.is_empty()));
    writer.finish(&meta()).unwrap();
}

#[test]
fn losses_add_up_and_survive() {
    let folder = scratch();
    let dir = folder.path().join("t");
    let ring = LossPlace::Ring(ShardId(3));
    let loss = |kind, count| Loss { place: ring.clone(), kind, count, from: Nanos(1_100), until: Nanos(1_200) };
    let lost = vec![loss(Some(Kind::Switch), 5), loss(None, 1), loss(Some(Kind::Switch), 2)];
    let batches = [Batch { until: Nanos(2_000), lost, ..Batch::default() }];
    let mut writer = record(&dir, tiny(), &batches);
    for finished in [false, true] {
        if finished {
            writer.finish(&meta()).unwrap();
        }
        let completeness = TraceReader::open(&dir).unwrap().info().unwrap().completeness;
        let counts: Vec<_> = completeness.lost.iter().map(|l| (l.place.clone(), l.kind, l.count)).collect();
        assert_eq!(counts, [(ring.clone(), None, 1), (ring.clone(), Some(Kind::Switch), 7)]);
        assert!(!completeness.complete);
        assert_eq!(content(&read(&dir).unwrap()), content(&batches));
    }
    let meta: serde_json::Value = serde_json::from_slice(&std::fs::read(dir.join("meta.json")).unwrap()).unwrap();
    assert_eq!(meta["schema"], 2);
    assert_eq!(meta["meta"]["host"]["hostname"], "box");
    assert_eq!(meta["totals"]["lost"][1]["count"], 7);
    assert_eq!(meta["totals"]["rows"]["loss"], 3);
}

#[test]
fn at_rest_numbers_are_packed_and_ids_dictionary_coded() {
    use parquet::basic::{Compression, Encoding};
    use parquet::file::reader::{FileReader, SerializedFileReader};

    let folder = scratch();
    let dir = folder.path().join("t");
    write(&dir, WriterOptions::default(), &stream(3, 60_000));
    let file = std::fs::File::open(parquet_path(&dir, Table::Switch, 0)).unwrap();
    let reader = SerializedFileReader::new(file).unwrap();
    let metadata = reader.metadata();
    assert_eq!(metadata.file_metadata().num_rows(), 180_000);
    assert_eq!(metadata.num_row_groups(), 2);
    for group in metadata.row_groups() {
        assert!(group.num_rows() <= 128 << 10);
        for column in group.columns() {
            let encodings: Vec<Encoding> = column.encodings().collect();
            assert_eq!(column.compression(), Compression::SNAPPY);
            let name = column.column_path().string();
            assert_eq!(column.statistics().is_some(), name == "ts_ns", "{name}");
            let (flag, id) = (name == "preempted", name.ends_with("_task"));
            assert_eq!(encodings.contains(&Encoding::DELTA_BINARY_PACKED), !flag && !id, "{name}: {encodings:?}");
            assert_eq!(encodings.contains(&Encoding::RLE_DICTIONARY), id, "{name}: {encodings:?}");
        }
    }
    assert!(size(&dir) < 180_000 * 3, "{} bytes", size(&dir));
}

#[test]
fn the_newest_events_begin_with_a_segment() {
    let folder = scratch();
    let dir = folder.path().join("run.schedtrace");
    write(&dir, tiny(), &stream(40, 200));
    let trace = TraceReader::open(&dir).unwrap();
    let count = |from: Option<Nanos>| {
        let mut from_there = TraceReader::open(&dir).unwrap().between(from, None);
        events(&drain(&mut from_there).unwrap()).len() as u64
    };
    let all = count(None);
    assert_eq!(trace.begin_of_newest(all).unwrap(), None, "that is the whole of it");
    let mut begins = BTreeSet::new();
    for asked in (1..all).step_by(97) {
        let begin = trace.begin_of_newest(asked).unwrap();
        assert!(begin.is_some(), "{asked} of {all}");
        begins.insert((begin, count(begin)));
        // A segment is read whole, so the newest may hold more.
        let (_, least) = begins.last().unwrap();
        assert!(count(begin) <= asked.max(*least), "{} for {asked}", count(begin));
    }
    assert!(begins.len() > 2, "several segments: {begins:?}");
}
