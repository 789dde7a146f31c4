//! What each kind of events costs, and what it says: writes the tables of docs/events.md. events TRACE FOLDER GUIDE
//!
//! Everything is recorded at once, into TRACE, while a bit of everything happens, some of it to files in FOLDER. The kernel
//! measures the programs (`bpf_enable_stats()` in `kernel/bpf/syscall.c`); what an empty one takes by that is told beside.
#![allow(missing_docs, reason = "a bench")]

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicU32;
use std::thread;
use std::time::Duration;

use libbpf_rs::query::ProgInfoIter;
use rustix::thread::futex;
use schedtrace_core::live::{Collector, catalog_fields, catalog_row, events};
use schedtrace_core::trace::{TraceReader, TraceWriter, WriterOptions};
use schedtrace_core::{Kind, OnFull, Pipeline};

const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";
/// Of fewer runs an average says little.
const RUNS: u64 = 20;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let [trace, folder, guide] = &args[..] else { return Err("events TRACE FOLDER GUIDE".into()) };
    let trace = PathBuf::from(trace);
    let kinds = Kind::selectable();
    let mut collector = Collector::builder().events_where_possible(kinds).calls([0, 1]).start()?;
    let stopper = collector.stopper();
    let mut writer = TraceWriter::create(&trace, WriterOptions::default())?;
    fs::write(STATS, "1")?;
    let measured = thread::scope(|scope| {
        let recording = scope.spawn(|| Pipeline::new().sink("trace", OnFull::Block, &mut writer).run(&mut collector));
        let worked = (0..3).try_for_each(|_| work(Path::new(folder)));
        let measured = Measured::now();
        stopper.stop();
        let recorded = recording.join().map_err(|_| "the recording panicked")?;
        recorded?.into_result()?;
        worked.map(|()| measured)
    });
    fs::write(STATS, "0")?;
    let text = fs::read_to_string(guide)?;
    let text = between(&text, "table", &table(&trace, &measured?)?)?;
    fs::write(guide, between(&text, "fields", &catalog_fields())?)?;
    Ok(())
}

/// The guide with something else between two marks.
fn between(guide: &str, mark: &str, what: &str) -> Result<String, Box<dyn Error>> {
    let (from, until) = (format!("<!-- {mark} -->\n"), format!("<!-- end of {mark} -->"));
    let (before, rest) = guide.split_once(&from).ok_or("the guide has no such mark")?;
    let (_, after) = rest.split_once(&until).ok_or("the guide has no end of the mark")?;
    Ok(format!("{before}{from}{what}{until}{after}"))
}

/// The time and the number of the runs of each program, by its name, of which the kernel keeps 15 bytes: programs that have
/// the same were loaded in the order of the events.
struct Measured(HashMap<String, Vec<(u64, u64)>>);

impl Measured {
    fn now() -> Self {
        let mut all: HashMap<String, Vec<(u64, u64)>> = HashMap::new();
        for program in ProgInfoIter::default() {
            let runs = all.entry(program.name.to_string_lossy().into_owned()).or_default();
            runs.push((program.run_time_ns, program.run_cnt));
        }
        Self(all)
    }

    fn of(&self, kind: Kind) -> Option<(u64, u64)> {
        let cut = |name: &str| name.chars().take(15).collect::<String>();
        let all = events();
        let mut names: Vec<&str> = all.iter().flat_map(|event| &event.probes).map(String::as_str).collect();
        let mut known = std::collections::HashSet::new();
        names.retain(|name| known.insert(*name));
        let probes = &all.iter().find(|event| event.kind == kind)?.probes;
        let probe = ["sys_exit", kind.name()].into_iter().find(|name| probes.iter().any(|probe| probe == name));
        let probe = probe.or_else(|| probes.first().map(String::as_str)).filter(|probe| !probe.contains('('))?;
        let of_perf = if kind == Kind::MajorFault { kind.name() } else { probe };
        let nth = names.iter().filter(|name| cut(name) == cut(probe)).position(|name| *name == probe)?;
        self.0.get(&cut(of_perf))?.get(nth).copied().filter(|(_, runs)| *runs >= RUNS)
    }
}

fn table(trace: &Path, measured: &Measured) -> Result<String, Box<dyn Error>> {
    let tables = TraceReader::open(trace)?.info()?.tables;
    let mut text = "| event | group | recorded by | Linux | bytes in a log | on a ring | on disk | ns |\n".to_owned();
    text += "|---|---|---|---|---|---|---|---|\n";
    for event in events() {
        let of_kind = |table: &&schedtrace_core::trace::TableInfo| table.name == table_of(event.kind);
        let on_disk = tables.iter().find(of_kind).filter(|table| table.rows >= RUNS);
        let on_disk = on_disk.map_or("-".to_owned(), |table| format!("{:.1}", table.bytes as f64 / table.rows as f64));
        let run = measured.of(event.kind).map_or("-".to_owned(), |(time, runs)| (time / runs).to_string());
        text += &format!("{} {on_disk} | {run} |\n", catalog_row(&event));
    }
    Ok(text)
}

fn table_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Fork | Kind::Exec | Kind::Exit | Kind::Free | Kind::Rename => "task_lifecycle",
        kind => kind.name(),
    }
}

/// A bit of everything.
fn work(folder: &Path) -> Result<(), Box<dyn Error>> {
    let run = |program: &str, args: &[&str]| {
        Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status()
    };
    run("hackbench", &["-p", "-g", "1", "-f", "4", "-l", "2000"])?;
    for _ in 0..30 {
        run("renice", &["-n", "1", "-p", &std::process::id().to_string()])?;
        run("setpriv", &["--reuid", "65534", "true"])?;
        let mut file = tempfile::tempfile_in(folder)?;
        file.write_all(&[1; 256 << 10])?;
        file.sync_all()?;
        let _ = fs::File::open("/no/such/file");
        // A program that has to be read where it faults.
        let program = folder.join(".schedtrace-faulty");
        fs::copy("/usr/bin/stat", &program)?;
        let pages = fs::File::open(&program)?;
        pages.sync_all()?;
        rustix::fs::fadvise(&pages, 0, None, rustix::fs::Advice::DontNeed)?;
        run(&program.to_string_lossy(), &["/"])?;
        fs::remove_file(&program)?;
    }
    let word = AtomicU32::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            (0..200).for_each(|_| {
                // It is over in time, or it was woken.
                let _ = futex::wait(&word, futex::Flags::PRIVATE, 0, Some(&SHORT));
            })
        });
        for _ in 0..200 {
            let _ = futex::wake(&word, futex::Flags::PRIVATE, 1);
            thread::sleep(Duration::from_micros(200));
        }
    });
    thread::sleep(Duration::from_millis(1200));
    Ok(())
}

const SHORT: futex::Timespec = futex::Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
