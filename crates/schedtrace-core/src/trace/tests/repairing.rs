//! What an interrupted recording has left is finished, whatever moment it was, and by nobody who only reads.

use super::lifecycle::{crashed, state};
use super::*;
use crate::trace::commit::{COMMIT, DURABLE, LOCK};
use crate::trace::schema::Table;
use crate::trace::segment::{parquet_path, stream_path};

/// Parquet, the two documents, and nothing else.
fn assert_at_rest(dir: &Path) {
    for path in files(dir) {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(name.ends_with(".parquet") || name == "meta.json" || name == COMMIT, "{} is left over", path.display());
    }
}

fn assert_repaired(dir: &Path, batches: &[Batch], what: &str) {
    assert_eq!(state(dir), TraceState::Repaired, "{what}");
    assert_at_rest(dir);
    let mut reader = TraceReader::open(dir).unwrap();
    let info = reader.info().unwrap();
    assert!(info.completeness.ends_at_last_commit && !info.completeness.complete, "{what}");
    let until = batches.last().unwrap().until;
    assert_eq!((info.window.until_ns, reader.meta().ended), (until, Some(until)), "{what}");
    assert!(content(&drain(&mut reader).unwrap()) == content(batches), "{what}");
}

/// A trace with segments at rest and in flight, as a kill leaves it.
fn dead(folder: &TempDir, batches: &[Batch]) -> PathBuf {
    let (live, dead) = (folder.path().join("live"), folder.path().join("dead.schedtrace"));
    let writer = record(&live, tiny(), batches);
    std::mem::forget(writer);
    crashed(&live, &dead);
    dead
}

#[test]
fn what_was_committed_comes_to_rest() {
    let folder = scratch();
    let batches = stream(7, 150);
    let dir = dead(&folder, &batches);
    // What a crash leaves behind the last commit, and half-written files.
    for path in files(&dir).iter().filter(|path| path.extension().is_some_and(|e| e == "arrows")) {
        use std::io::Write;
        std::fs::OpenOptions::new().append(true).open(path).unwrap().write_all(&[0xff; 77]).unwrap();
    }
    std::fs::write(dir.join("commit.json.tmp"), "{").unwrap();
    std::fs::write(parquet_path(&dir, Table::Switch, 99), "PAR1").unwrap();
    std::fs::write(parquet_path(&dir, Table::Switch, 3).with_extension("parquet.tmp"), "PAR1").unwrap();
    std::fs::write(stream_path(&dir, Table::Switch, 99), "").unwrap();
    let done = repair(&dir).unwrap();
    assert!(done.repaired && done.segments > 0);
    assert_eq!((done.events, done.until_ns), (7 * (150 + DECLARED.len() as u64), batches[6].until));
    assert_repaired(&dir, &batches, "once");
    let before = files(&dir).iter().map(|path| std::fs::read(path).unwrap()).collect::<Vec<_>>();
    let again = repair(&dir).unwrap();
    assert_eq!(again, Repair { repaired: false, segments: 0, ..done });
    assert_eq!(files(&dir).iter().map(|path| std::fs::read(path).unwrap()).collect::<Vec<_>>(), before);
}

#[test]
fn a_repair_that_is_interrupted_is_taken_up_again() {
    let folder = scratch();
    let batches = stream(4, 150);
    let options = WriterOptions { sync_interval: Duration::ZERO, ..WriterOptions::default() };
    let live = folder.path().join("live");
    std::mem::forget(record(&live, options, &batches));
    let whole = folder.path().join("whole");
    crashed(&live, &whole);
    repair(&whole).unwrap();
    // Some tables at rest; all of them, and some streams gone; all, and the documents not.
    let tables = tables();
    for step in 0..=2 * tables.len() {
        let dir = folder.path().join(format!("step{step}"));
        crashed(&live, &dir);
        for table in tables.iter().take(step) {
            std::fs::copy(parquet_path(&whole, *table, 0), parquet_path(&dir, *table, 0)).unwrap();
        }
        for table in tables.iter().take(usize::saturating_sub(step, tables.len())) {
            std::fs::remove_file(stream_path(&dir, *table, 0)).unwrap();
        }
        assert_eq!(content(&read(&dir).unwrap()), content(&batches), "before, at step {step}");
        repair(&dir).unwrap();
        assert_repaired(&dir, &batches, &format!("step {step}"));
    }
    // The last record was written, and the lock was still there.
    std::fs::write(whole.join(LOCK), "").unwrap();
    std::fs::write(whole.join(DURABLE), "{}").unwrap();
    assert!(!repair(&whole).unwrap().repaired);
    assert_repaired(&whole, &batches, "at the end");
}

#[test]
fn a_recording_that_goes_on_is_left_alone() {
    let folder = scratch();
    let dir = folder.path().join("t.schedtrace");
    let batches = stream(5, 150);
    let mut writer = record(&dir, tiny(), &batches[..3]);
    let error = repair(&dir).unwrap_err().to_string();
    assert!(error.contains("is being recorded into"), "{error}");
    assert_eq!(interrupted_in(folder.path()).unwrap(), [] as [PathBuf; 0]);
    batches[3..].iter().for_each(|batch| writer.batch(batch).unwrap());
    writer.finish(&meta()).unwrap();
    assert_eq!(content(&read(&dir).unwrap()), content(&batches));
    assert!(!repair(&dir).unwrap().repaired);
    assert_eq!(state(&dir), TraceState::Finished, "what is finished stays so");
}

#[test]
fn what_is_no_trace_is_refused_and_left_as_it_is() {
    let folder = scratch();
    std::fs::write(folder.path().join("notes"), "mine").unwrap();
    assert!(matches!(repair(folder.path()), Err(Error::NotATrace { .. })));
    assert_eq!(files(folder.path()), [folder.path().join("notes")], "no lock was left behind");
    // Somebody else's files in a trace stay.
    let dir = dead(&folder, &stream(3, 150));
    let notes = dir.join("tasks/notes.arrows");
    std::fs::write(&notes, "mine").unwrap();
    repair(&dir).unwrap();
    assert_eq!(std::fs::read(&notes).unwrap(), b"mine");
}

#[test]
fn interrupted_traces_are_found_beside_others() {
    let folder = scratch();
    let interrupted = dead(&folder, &stream(3, 150));
    write(&folder.path().join("finished.schedtrace"), tiny(), &stream(1, 10));
    std::fs::create_dir(folder.path().join("empty.schedtrace")).unwrap();
    std::fs::write(folder.path().join("file.schedtrace"), "").unwrap();
    std::os::unix::fs::symlink(&interrupted, folder.path().join("link.schedtrace")).unwrap();
    assert_eq!(interrupted_in(folder.path()).unwrap(), [interrupted]);
}

/// As after a power cut, or on a copy elsewhere: another boot than the one it was written in.
fn rebooted(dir: &Path) {
    let path = dir.join(COMMIT);
    let mut commit: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert!(commit["boot_id"].is_string());
    commit["boot_id"] = "another".into();
    std::fs::write(&path, commit.to_string()).unwrap();
}

/// How many of the batches the record of what is on the disk counts.
fn durable(dir: &Path, batches: &[Batch]) -> usize {
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(dir.join(DURABLE)).unwrap()).unwrap();
    let until = Nanos(record["complete_until_ns"].as_u64().unwrap());
    batches.iter().take_while(|batch| batch.until <= until).count()
}

#[test]
fn after_a_power_cut_only_what_was_on_the_disk_counts() {
    let folder = scratch();
    let batches = stream(9, 150);
    let dir = folder.path().join("live");
    let mut writer = record(&dir, tiny(), &batches[..3]);
    // The disk comes after a while, and then stalls for the rest.
    let deadline = Instant::now() + Duration::from_secs(60);
    while durable(&dir, &batches) < 3 {
        assert!(Instant::now() < deadline, "the disk never came");
        std::thread::sleep(Duration::from_millis(1));
        writer.batch(&Batch { until: batches[2].until, ..Batch::default() }).unwrap();
    }
    let record = std::fs::read(dir.join(DURABLE)).unwrap();
    batches[3..].iter().for_each(|batch| writer.batch(batch).unwrap());
    std::mem::forget(writer);
    let dead = folder.path().join("dead");
    crashed(&dir, &dead);
    std::fs::write(dead.join(DURABLE), record).unwrap();
    assert_eq!(content(&read(&dead).unwrap()), content(&batches), "as long as the machine runs");
    for damage in ["another boot", "cut off", "gone"] {
        let cut = folder.path().join(damage);
        crashed(&dead, &cut);
        match damage {
            "another boot" => rebooted(&cut),
            "cut off" => std::fs::write(cut.join(COMMIT), "").unwrap(),
            _ => std::fs::remove_file(cut.join(COMMIT)).unwrap(),
        }
        // What had come to rest meanwhile is there as well.
        let until = TraceReader::open(&cut).unwrap().info().unwrap().window.until_ns;
        let there: Vec<_> = batches.iter().take_while(|batch| batch.until <= until).cloned().collect();
        assert!((3..=4).contains(&there.len()), "{damage}: {} batches", there.len());
        assert!(content(&read(&cut).unwrap()) == content(&there), "{damage}");
        repair(&cut).unwrap();
        assert_repaired(&cut, &there, damage);
    }
}
