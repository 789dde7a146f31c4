//! Folders of traces: limits over all of them, by size, by age and by what is free; runs that were killed; and what somebody
//! else has put there.

use std::os::unix::fs::{chown, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::lifecycle::{assert_is_the_end_of, long_lived, state};
use super::*;
use crate::system::ClockSnapshot;
use crate::trace::archive::Surroundings;
use crate::trace::archive::testing::Machine;
use crate::trace::commit::{Commit, MetaFile};
use crate::trace::segment::parquet_path;
use crate::trace::writer::lock;

const HOUR_NS: u64 = 3_600_000_000_000;
/// 2026-11-22 10:51:17 UTC.
const BEGIN_NS: u64 = 1_795_344_677_000_000_000;
const PLENTY: u64 = 1 << 39;

fn machine() -> Arc<Machine> {
    Arc::new(Machine { now_ns: AtomicU64::new(BEGIN_NS), room_bytes: AtomicU64::new(PLENTY) })
}

fn set(value: &AtomicU64, to: u64) {
    value.store(to, Ordering::Relaxed);
}

/// Small segments, everything committed at once.
fn options(max_bytes: u64) -> ArchiveOptions {
    ArchiveOptions {
        max_bytes: Some(max_bytes),
        min_free_bytes: Some(1 << 20),
        segment_bytes: 64 << 10,
        sync_interval: Duration::ZERO,
        ..ArchiveOptions::default()
    }
}

fn open(folder: &Path, options: &ArchiveOptions, machine: &Arc<Machine>) -> Result<Archive> {
    Archive::open_in(folder, options, Surroundings::Test(Arc::clone(machine)))
}

/// The setting of a run that begins now: its clock begins anew, as after a boot.
fn meta_of(machine: &Machine) -> Meta {
    let realtime_ns = Nanos(machine.now_ns.load(Ordering::Relaxed));
    let clocks = vec![ClockSnapshot { monotonic_ns: Nanos(1_000), boottime_ns: Nanos(1_000), realtime_ns }];
    Meta { clocks, ..meta() }
}

/// Records a run; the writer is still recording.
fn run(folder: &Path, options: &ArchiveOptions, machine: &Arc<Machine>, batches: &[Batch]) -> ArchiveWriter {
    let mut writer = open(folder, options, machine).unwrap().record().unwrap();
    writer.begin(&meta_of(machine)).unwrap();
    for batch in batches {
        writer.batch(batch).unwrap();
    }
    writer
}

fn finish(mut writer: ArchiveWriter, machine: &Machine, batches: &[Batch]) -> PathBuf {
    let ended = batches.last().map(|batch| batch.until);
    writer.finish(&Meta { ended, ..meta_of(machine) }).unwrap();
    writer.trace().to_owned()
}

/// Batches an hour apart, each as large as a segment.
fn hourly(count: u64) -> Vec<Batch> {
    let mut batches = stream(count, 4_000);
    for (n, batch) in batches.iter_mut().enumerate() {
        let later = Nanos(n as u64 * HOUR_NS);
        batch.until = batch.until + later;
        batch.events.iter_mut().for_each(|event| event.ts = event.ts + later);
        batch.tasks.iter_mut().for_each(|task| task.since = task.since + later);
        batch.names.iter_mut().for_each(|name| name.since = name.since + later);
    }
    batches
}

fn events_of(dir: &Path) -> usize {
    read(dir).unwrap().iter().map(|batch| batch.events.len() + batch.late.len()).sum()
}

/// What was removed and what is there is what was recorded, in all tables.
fn assert_rows_add_up(dir: &Path) {
    let (commit, _) = Commit::read(dir).unwrap();
    let reader = TraceReader::open(dir).unwrap();
    let mut there = 0;
    for table in reader.info().unwrap().tables {
        for rows in reader.table(&table.name).unwrap() {
            there += crate::trace::schema::new_rows(&rows.unwrap());
        }
    }
    let recorded: u64 = commit.totals.rows.values().sum();
    assert_eq!(there + commit.totals.removed.rows, recorded, "{}", dir.display());
    assert_eq!(MetaFile::read(dir).unwrap().totals, commit.totals);
}

#[test]
fn a_run_that_has_not_begun_is_none_yet() {
    let folder = scratch();
    let run = folder.path().join("20261122T125337Z.schedtrace");
    std::fs::create_dir(&run).unwrap();
    assert_eq!(traces_in(folder.path()).unwrap(), Listing::default());
    std::fs::write(run.join("lock"), "").unwrap();
    assert_eq!(traces_in(folder.path()).unwrap(), Listing::default());
    for table in ["events/sched_switch", "tasks", "loss"] {
        std::fs::create_dir_all(run.join(table)).unwrap();
    }
    for file in ["commit.json", "durable.json", "meta.json.tmp"] {
        std::fs::write(run.join(file), "").unwrap();
    }
    assert_eq!(traces_in(folder.path()).unwrap(), Listing::default());
    for file in ["other", "tasks/0.parquet"] {
        std::fs::write(run.join(file), "").unwrap();
        assert_eq!(traces_in(folder.path()).unwrap().unreadable.len(), 1, "{file}: that is no trace");
        std::fs::remove_file(run.join(file)).unwrap();
    }
}

#[test]
fn runs_that_begin_meanwhile_are_none_yet_or_traces() {
    let folder = scratch();
    let begins = std::thread::spawn({
        let folder = folder.path().to_owned();
        move || {
            for run in 0..100 {
                let mut writer = TraceWriter::create(folder.join(format!("{run}.schedtrace")), tiny()).unwrap();
                writer.begin(&meta()).unwrap();
                writer.finish(&Meta { ended: Some(meta().started), ..meta() }).unwrap();
            }
        }
    });
    while !begins.is_finished() {
        assert_eq!(traces_in(folder.path()).unwrap().unreadable, [], "a run that begins");
    }
    begins.join().unwrap();
    assert_eq!(traces_in(folder.path()).unwrap().traces.len(), 100);
}

#[test]
fn the_limit_of_size_holds_over_all_traces() {
    let scratch = scratch();
    let folder = scratch.path();
    let (machine, options) = (machine(), options(4 << 20));
    let batches = long_lived(200, 1_000);
    let mut traces = Vec::new();
    for hour in 0..8 {
        set(&machine.now_ns, BEGIN_NS + hour * HOUR_NS);
        let mut writer = run(folder, &options, &machine, &[]);
        for (n, batch) in batches.iter().enumerate() {
            writer.batch(batch).unwrap();
            if n % 50 == 0 {
                assert!(writer.bytes() <= 4 << 20, "{} bytes", writer.bytes());
            }
        }
        traces.push(finish(writer, &machine, &batches));
        assert!(size(folder) <= 4 << 20, "{} bytes", size(folder));
    }
    // Each run alone is below the limit, and all together are not.
    let newest = traces.last().unwrap();
    assert_eq!(content(&read(newest).unwrap()), content(&batches), "the newest is whole");
    let left: Vec<_> = traces_in(folder).unwrap().traces.into_iter().map(|trace| trace.path).collect();
    assert!(left.len() < traces.len(), "the oldest are gone as a whole");
    assert_eq!(left[..], traces[traces.len() - left.len()..], "the oldest go first");
    for dir in &left {
        assert_rows_add_up(dir);
        assert_eq!(state(dir), TraceState::Finished);
    }
    // Of the oldest that is there, the end is.
    let removed = TraceReader::open(&left[0]).unwrap().info().unwrap().completeness.removed;
    if removed.segments > 0 {
        assert_is_the_end_of(&left[0], &batches);
    }
    // While segments wait to come to rest they take several times the room.
    assert!(size(folder) >= 1 << 20, "{} bytes: more was removed than needed", size(folder));
}

#[test]
fn a_run_that_is_larger_than_the_limit_keeps_to_it_too() {
    let scratch = scratch();
    let (machine, options) = (machine(), options(4 << 20));
    let batches = long_lived(1_200, 1_000);
    let mut writer = run(scratch.path(), &options, &machine, &[]);
    for batch in &batches {
        writer.batch(batch).unwrap();
        assert!(writer.bytes() <= 4 << 20, "{} bytes", writer.bytes());
    }
    let trace = finish(writer, &machine, &batches);
    assert!(size(scratch.path()) <= 4 << 20);
    assert_is_the_end_of(&trace, &batches);
}

#[test]
fn what_is_too_old_goes_by_the_wall_clock() {
    let scratch = scratch();
    let folder = scratch.path();
    let (machine, options) = (machine(), options(1 << 30));
    let batches = hourly(6);
    // Two runs with the same times of their own, ten hours apart.
    let first = finish(run(folder, &options, &machine, &batches), &machine, &batches);
    set(&machine.now_ns, BEGIN_NS + 10 * HOUR_NS);
    let second = finish(run(folder, &options, &machine, &batches), &machine, &batches);
    let all = events_of(&second);

    set(&machine.now_ns, BEGIN_NS + 71 * HOUR_NS);
    drop(open(folder, &options, &machine).unwrap());
    assert_eq!((events_of(&first), events_of(&second)), (all, all), "nothing is 72 hours old");

    // 2.5 hours more: the segments of hours 0 to 2 are older than that.
    set(&machine.now_ns, BEGIN_NS + 74 * HOUR_NS + HOUR_NS / 2);
    drop(open(folder, &options, &machine).unwrap());
    assert_eq!((events_of(&first), events_of(&second)), (all / 2, all));
    let left = read(&first).unwrap();
    assert_self_contained(&left);
    assert_eq!(events(&left), events(&batches[3..]));
    assert_rows_add_up(&first);
    let info = TraceReader::open(&first).unwrap().info().unwrap();
    assert_eq!((info.completeness.removed.segments, info.window.from_ns), (3, batches[2].until));

    set(&machine.now_ns, BEGIN_NS + 81 * HOUR_NS);
    drop(open(folder, &options, &machine).unwrap());
    assert!(!first.exists(), "a trace with nothing left goes as a whole");
    assert_eq!(events_of(&second), all);
}

#[test]
fn a_run_that_was_killed_is_brought_to_rest_by_the_next() {
    let scratch = scratch();
    let folder = scratch.path();
    let (machine, options) = (machine(), options(1 << 30));
    let batches = stream(40, 300);
    let killed = run(folder, &options, &machine, &batches).trace().to_owned();
    assert_eq!(state(&killed), TraceState::Interrupted);

    let archive = open(folder, &options, &machine).unwrap();
    let [(path, repair)] = archive.repaired() else { panic!("{:?}", archive.repaired()) };
    assert_eq!((path, repair.repaired, repair.until_ns), (&killed, true, batches[39].until));
    let mut writer = archive.record().unwrap();
    writer.begin(&meta_of(&machine)).unwrap();
    writer.batch(&batches[0]).unwrap();
    let growing = writer.trace().to_owned();
    assert_ne!(growing, killed, "in the same second, and yet another trace");
    let states = |folder| {
        let listing = traces_in(folder).unwrap();
        assert!(listing.unreadable.is_empty());
        listing.traces.into_iter().map(|trace| (trace.path, trace.state)).collect::<Vec<_>>()
    };
    let mut found = states(folder);
    found.sort_by_key(|(path, _)| *path == growing);
    assert_eq!(found, [(killed.clone(), TraceState::Repaired), (growing.clone(), TraceState::Recording)]);
    assert_eq!(content(&read(&growing).unwrap()), content(&batches[..1]), "it can be read while it grows");
    finish(writer, &machine, &batches[..1]);
    assert_eq!(content(&read(&killed).unwrap()), content(&batches));
    assert_eq!(state(&growing), TraceState::Finished);

    // Of a run that was killed before it began, nothing stays.
    let nothing = open(folder, &options, &machine).unwrap().record().unwrap().trace().to_owned();
    assert!(nothing.exists());
    drop(open(folder, &options, &machine).unwrap());
    assert!(!nothing.exists());
}

#[test]
fn enough_of_the_disk_stays_free() {
    let scratch = scratch();
    let folder = scratch.path();
    let machine = machine();
    let options = ArchiveOptions { min_free_bytes: Some(100 << 20), ..options(1 << 30) };
    let batches = long_lived(100, 1_000);
    let first = finish(run(folder, &options, &machine, &batches), &machine, &batches);
    let before = size(&first);

    // A part of the first run has to go.
    set(&machine.room_bytes, (100 << 20) + before / 2);
    set(&machine.now_ns, BEGIN_NS + HOUR_NS);
    let mut writer = open(folder, &options, &machine).unwrap().record().unwrap();
    let now = size(&first);
    assert!(now < before * 3 / 4 && now > before / 4, "{now} of {before} bytes");
    assert_is_the_end_of(&first, &batches);

    // Somebody else fills the disk: first the earlier run goes, then the older part of this one, and then it ends.
    writer.begin(&meta_of(&machine)).unwrap();
    set(&machine.room_bytes, PLENTY);
    batches.iter().for_each(|batch| writer.batch(batch).unwrap());
    assert!(first.exists());
    set(&machine.room_bytes, 0);
    let last = Batch { until: batches[99].until, ..Batch::default() };
    let error = (0..10_000).find_map(|_| {
        std::thread::sleep(Duration::from_millis(1));
        writer.batch(&last).err()
    });
    let error = error.unwrap().to_string();
    assert!(error.contains("are free") && error.contains("let it leave less"), "{error}");
    assert!(!first.exists());
    let second = writer.trace().to_owned();
    drop(writer);
    assert!(TraceReader::open(&second).unwrap().info().unwrap().completeness.removed.segments > 0);

    let error = open(folder, &options, &machine).unwrap_err().to_string();
    assert!(error.contains("are free"), "{error}");
    assert!(!second.exists());
}

#[test]
fn one_recorder_per_folder() {
    let scratch = scratch();
    let folder = scratch.path().join("recordings");
    let (machine, options) = (machine(), options(1 << 30));
    let first = open(&folder, &options, &machine).unwrap();
    for _ in 0..2 {
        let error = open(&folder, &options, &machine).unwrap_err().to_string();
        assert!(error.contains("being recorded into") && error.contains("-o"), "{error}");
    }
    let writer = first.record().unwrap();
    assert!(open(&folder, &options, &machine).is_err());
    drop(writer);
    drop(open(&folder, &options, &machine).unwrap());

    let trace = scratch.path().join("run.schedtrace");
    write(&trace, tiny(), &stream(1, 10));
    let error = open(&trace, &options, &machine).unwrap_err().to_string();
    assert!(error.contains("is a trace itself"), "{error}");
    let error = open(&folder, &ArchiveOptions { max_bytes: Some(1000), ..options.clone() }, &machine).unwrap_err();
    assert!(error.to_string().contains("smallest limit"), "{error}");
    let error = open(&scratch.path().join("no such/folder"), &options, &machine).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
}

/// Everything below a folder, and what is in it.
fn snapshot(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    files(dir).into_iter().map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect()
}

#[test]
fn what_is_not_ours_is_left_alone_and_told() {
    let outside = scratch();
    let elsewhere = outside.path().join("20200101T000000Z.schedtrace");
    write(&elsewhere, tiny(), &stream(3, 100));
    let before = snapshot(&elsewhere);

    let scratch = scratch();
    let folder = scratch.path();
    let (machine, everything) = (machine(), options(1 << 30));
    let ours = finish(run(folder, &everything, &machine, &stream(3, 100)), &machine, &stream(3, 100));
    let at = |name: &str| folder.join(name);
    symlink(&elsewhere, at("20200101T000000Z.schedtrace")).unwrap();
    write(&at("mine.schedtrace"), tiny(), &stream(3, 100));
    std::fs::write(at("notes.txt"), "notes").unwrap();
    std::fs::create_dir(at("20200102T000000Z.schedtrace")).unwrap();
    std::fs::write(at("20200102T000000Z.schedtrace/meta.json"), "{\"schema\": \"\u{1b}[2J\"").unwrap();
    std::fs::create_dir(at("20200103T000000Z.schedtrace")).unwrap();
    std::fs::write(at("20200103T000000Z.schedtrace/precious"), "").unwrap();
    // A trace whose table leads outside, one that is locked, and one that belongs to somebody else.
    write(&at("20200104T000000Z.schedtrace"), tiny(), &stream(3, 100));
    std::fs::remove_dir_all(at("20200104T000000Z.schedtrace/loss")).unwrap();
    symlink(elsewhere.join("loss"), at("20200104T000000Z.schedtrace/loss")).unwrap();
    write(&at("20200105T000000Z.schedtrace"), tiny(), &stream(3, 100));
    let _held = lock(&at("20200105T000000Z.schedtrace")).unwrap();
    write(&at("20200106T000000Z.schedtrace"), tiny(), &stream(3, 100));
    let foreign = chown(at("20200106T000000Z.schedtrace"), Some(12_345), None).is_ok();

    // Nothing may stay, as far as it is ours.
    set(&machine.room_bytes, 0);
    let kept = snapshot(folder);
    let left_alone = {
        let mut options = everything.clone();
        options.min_free_bytes = Some(0);
        options.max_age = Some(Duration::from_nanos(1));
        set(&machine.now_ns, BEGIN_NS + 1000 * HOUR_NS);
        let archive = open(folder, &options, &machine).unwrap();
        let told = archive.left_alone().iter();
        let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
        told.map(|left| (name(&left.path), left.why.clone())).collect::<HashMap<_, _>>()
    };
    assert!(!ours.exists(), "what is ours was removed");
    let after = snapshot(folder);
    let untouched = |path: &Path| !path.starts_with(&ours) && path != at("lock");
    let stays =
        |files: Vec<(PathBuf, Vec<u8>)>| files.into_iter().filter(|(path, _)| untouched(path)).collect::<Vec<_>>();
    // Traces without clocks are of no age: they go for want of room, not for their age.
    assert_eq!(stays(after), stays(kept));
    assert_eq!(snapshot(&elsewhere), before, "links are not followed");
    for name in ["20200101T000000Z.schedtrace", "mine.schedtrace", "notes.txt"] {
        assert_eq!(left_alone.get(name).map(String::as_str), Some("is no trace of an earlier run"), "{name}");
    }
    for name in ["20200102T000000Z.schedtrace", "20200103T000000Z.schedtrace", "20200104T000000Z.schedtrace"] {
        let why = &left_alone[name];
        assert!(why.contains("meta.json") || why.contains("symbolic link"), "{name}: {why}");
        assert!(!why.contains(char::is_control), "{why}");
    }
    assert_eq!(left_alone.contains_key("20200106T000000Z.schedtrace"), foreign);

    // For want of room, what is at rest and ours goes, and what is locked does not.
    let options = ArchiveOptions { min_free_bytes: Some(1 << 20), ..everything };
    let error = open(folder, &options, &machine).unwrap_err().to_string();
    assert!(error.contains("are free"), "{error}");
    assert!(at("20200105T000000Z.schedtrace").join("meta.json").exists());
    assert_eq!(at("20200106T000000Z.schedtrace").exists(), foreign);
    assert!(at("mine.schedtrace").exists() && elsewhere.exists());
}

#[test]
fn a_removal_that_was_cut_short_goes_on() {
    let scratch = scratch();
    let folder = scratch.path();
    let (machine, options) = (machine(), options(1 << 30));
    let batches = hourly(6);
    let trace = finish(run(folder, &options, &machine, &batches), &machine, &batches);
    // Killed when the record was written, and before any file was gone.
    let (mut commit, _) = Commit::read(&trace).unwrap();
    commit.first_seq = 2;
    commit.totals.removed.segments = 2;
    commit.write_last(&trace).unwrap();
    let count = |seq: u32| files(&trace).iter().filter(|path| path.ends_with(format!("{seq:08}.parquet"))).count();
    assert!(count(0) > 0 && count(2) > 0);
    drop(open(folder, &options, &machine).unwrap());
    assert_eq!((count(0), count(1)), (0, 0));
    assert!(count(2) > 0);
    assert_eq!(events_of(&trace), 4 * 4_003);

    // Files that cannot be read do not keep their segment from going.
    for seq in [2, 3] {
        std::fs::write(parquet_path(&trace, Table::Tasks, seq), "garbage").unwrap();
        std::fs::write(parquet_path(&trace, Table::Switch, seq), "").unwrap();
    }
    set(&machine.now_ns, BEGIN_NS + 79 * HOUR_NS);
    drop(open(folder, &options, &machine).unwrap());
    assert!(!trace.exists());
}

#[test]
fn somebody_elses_file_in_a_trace_outlives_it() {
    let scratch = scratch();
    let folder = scratch.path();
    let (machine, options) = (machine(), options(1 << 30));
    let batches = hourly(3);
    let trace = finish(run(folder, &options, &machine, &batches), &machine, &batches);
    let note = trace.join("events/sched_switch/note.txt");
    std::fs::write(&note, "note").unwrap();
    set(&machine.now_ns, BEGIN_NS + 1000 * HOUR_NS);
    let archive = open(folder, &options, &machine).unwrap();
    let [left] = archive.left_alone() else { panic!("{:?}", archive.left_alone()) };
    assert_eq!(left.path, trace);
    assert!(left.why.contains("not of a trace"), "{}", left.why);
    assert!(note.exists());
    assert_eq!(events_of(&trace), 0);
}

#[test]
fn a_trace_that_loses_its_oldest_part_while_it_is_read_is_passed_over() {
    let scratch = scratch();
    let folder = scratch.path();
    let (machine, options) = (machine(), options(1 << 30));
    let batches = hourly(6);
    let trace = finish(run(folder, &options, &machine, &batches), &machine, &batches);
    let mut reader = TraceReader::open(&trace).unwrap();
    set(&machine.now_ns, BEGIN_NS + 74 * HOUR_NS + HOUR_NS / 2);
    drop(open(folder, &options, &machine).unwrap());
    let read = drain(&mut reader).unwrap();
    assert_self_contained(&read);
    assert_eq!(read.iter().map(|batch| batch.events.len()).sum::<usize>(), 3 * 4_003);
}

#[test]
fn whoever_names_the_folder_is_told_its_traces() {
    let scratch = scratch();
    let folder = scratch.path();
    let (machine, options) = (machine(), options(1 << 30));
    let error = TraceReader::open(folder).unwrap_err().to_string();
    assert!(error.ends_with("is not a schedtrace trace: it has no meta.json"), "{error}");
    let batches = hourly(2);
    for hour in 0..10 {
        set(&machine.now_ns, BEGIN_NS + hour * HOUR_NS);
        finish(run(folder, &options, &machine, &batches), &machine, &batches);
    }
    std::fs::create_dir(folder.join("bad.schedtrace")).unwrap();
    std::fs::write(folder.join("bad.schedtrace/meta.json"), "{}").unwrap();
    let error = TraceReader::open(folder).unwrap_err().to_string();
    for part in [
        "it holds traces: 20261122T195117Z.schedtrace (2026-11-22 19:51:17 UTC, 3600s)",
        "and 2 older ones; name one of them",
    ] {
        assert!(error.contains(part), "`{part}` in {error}");
    }
    assert!(!error.contains('\n'));
    let listing = traces_in(folder).unwrap();
    assert_eq!((listing.traces.len(), listing.unreadable.len()), (10, 1));
    assert!(listing.traces.is_sorted_by_key(|trace| trace.from_wall_ns));
    let first = &listing.traces[0];
    assert_eq!(first.from_wall_ns, Some(Nanos(BEGIN_NS)));
    assert_eq!(first.until_wall_ns, Some(Nanos(BEGIN_NS - 1_000) + batches[1].until));
}
