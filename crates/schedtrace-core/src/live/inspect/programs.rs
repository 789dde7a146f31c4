//! The programs that are loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use libbpf_rs::query::{ProgInfoIter, ProgInfoQueryOptions, ProgramInfo};
use serde::Serialize;

use super::attachments::{self, Attachment};
use super::holders::{self, Holder};
use super::types::{self, Types};
use super::{clean, hex, may_look, words};
use crate::error::Result;
use crate::event::Nanos;
use crate::system::{ClockSnapshot, read_text};

/// The kernel keeps so many bytes of a name.
const CUT_NAME: usize = 15;

/// The loaded programs, and what is known of all of them.
///
/// ```
/// use schedtrace_core::live::inspect::Programs;
/// let found = Programs { run_times_known: false, ..Programs::default() };
/// assert!(found.programs.is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Programs {
    /// Whether the kernel counts runs and their time now (`sysctl kernel.bpf_stats_enabled=1`). It costs each run some
    /// nanoseconds, and is off by default.
    pub run_times_known: bool,
    /// Whether every process could be looked into for the programs that it holds.
    pub holders_known: bool,
    /// All of them, by their ids.
    pub programs: Vec<Program>,
}

impl Programs {
    /// Puts the program first that has run longest in all.
    ///
    /// ```
    /// use schedtrace_core::live::inspect::{Program, Programs, Runs};
    /// let of = |id, run_count| Program { id, runs: Runs { run_count, ..Runs::default() }, ..Program::default() };
    /// let mut found = Programs { programs: vec![of(1, 10), of(2, 20)], ..Programs::default() };
    /// found.sort_busiest_first();
    /// assert_eq!(found.programs[0].id, 2);
    /// ```
    pub fn sort_busiest_first(&mut self) {
        let busy = |program: &Program| (program.runs.run_time_ns, program.runs.run_count);
        self.programs.sort_by_key(|program| (std::cmp::Reverse(busy(program)), program.id));
    }
}

/// A loaded program.
///
/// ```
/// use schedtrace_core::live::inspect::Program;
/// let program = Program { id: 7, name: "sched_switch".into(), ty: "tracing".into(), ..Program::default() };
/// assert_eq!(serde_json::to_value(&program)?["type"], "tracing");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Program {
    /// Its number, which no other program gets until the machine is started again, or the numbers are used up.
    pub id: u32,
    /// Its name. The kernel keeps 15 bytes; where the program has types, this is the whole of it.
    pub name: String,
    /// What kind it is: `tracing`, `kprobe`, `struct_ops`, `sched_cls`, ...
    #[serde(rename = "type")]
    pub ty: String,
    /// Whether it is one of schedtrace's own, of this process or another, told by its types.
    pub is_schedtrace: bool,
    /// A hash of its instructions: programs that do the same have the same.
    pub tag: String,
    /// Where it is attached by links. Programs without any may be attached in older ways, which the kernel does not tell,
    /// or called by others.
    pub attachments: Vec<Attachment>,
    /// How often it ran.
    #[serde(flatten)]
    pub runs: Runs,
    /// Bytes of machine code; 0 if it is interpreted.
    pub jited_bytes: u64,
    /// Bytes of BPF instructions, as the verifier left them.
    pub translated_bytes: u64,
    /// Instructions that the verifier went through to take it. 0 on kernels before 5.16.
    pub verified_instructions: u32,
    /// When it was loaded, in nanoseconds since 1970-01-01 UTC.
    pub loaded_realtime_ns: Nanos,
    /// The user who loaded it.
    pub uid: u32,
    /// The maps it uses, by their ids.
    pub map_ids: Vec<u32>,
    /// Its types, if it has any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub btf_id: Option<u32>,
    /// Processes that hold it or a link of it open: eight at most.
    pub holders: Vec<Holder>,
}

/// How often a program ran, and for how long: counted while the kernel was asked to.
///
/// ```
/// use schedtrace_core::Nanos;
/// use schedtrace_core::live::inspect::Runs;
/// let runs = Runs { run_count: 4, run_time_ns: Nanos(1_000), run_time_known: true, recursion_misses: 0 };
/// assert_eq!(runs.mean_ns(), Some(250.0));
/// assert_eq!(Runs::default().mean_ns(), None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Runs {
    /// Runs that were counted.
    pub run_count: u64,
    /// What they took together.
    pub run_time_ns: Nanos,
    /// Whether runs of it are counted now, or were: otherwise the two say nothing.
    pub run_time_known: bool,
    /// Runs that the kernel left out, since the program was running on that CPU already.
    pub recursion_misses: u64,
}

impl Runs {
    /// Nanoseconds of a run, on average; none if none was counted.
    ///
    /// ```
    /// use schedtrace_core::live::inspect::Runs;
    /// assert_eq!(Runs::default().mean_ns(), None);
    /// ```
    #[must_use]
    pub fn mean_ns(&self) -> Option<f64> {
        (self.run_count > 0).then(|| self.run_time_ns.0 as f64 / self.run_count as f64)
    }
}

/// Every program that is loaded, with where it is attached and who holds it.
///
/// ```no_run
/// use schedtrace_core::live::inspect;
/// let ours = inspect::programs()?.programs.into_iter().filter(|program| program.is_schedtrace);
/// println!("{} programs of schedtrace are loaded", ours.count());
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::NotShown`](crate::Error::NotShown) without `CAP_SYS_ADMIN`.
pub fn programs() -> Result<Programs> {
    may_look()?;
    let options = ProgInfoQueryOptions::default()
        .include_jited_prog_insns(true)
        .include_xlated_prog_insns(true)
        .include_map_ids(true)
        .include_func_info(true);
    let infos: Vec<_> = ProgInfoIter::with_query_opts(options).map(without_code).collect();
    let ids: BTreeSet<u32> = infos.iter().map(|(info, _)| info.btf_id).filter(|&id| id != 0).collect();
    let types = Types::read(&ids);
    let ours: BTreeSet<u32> = ids.into_iter().filter(|&id| types.get(id).is_some_and(types::are_ours)).collect();
    let mut attachments = attachments::find(&types);
    let mut holders = holders::find(Path::new("/proc"));
    let run_times_known = are_runs_counted(Path::new("/proc"));
    let clocks = ClockSnapshot::now();
    let program = |(info, sizes): (ProgramInfo, Sizes)| Program {
        id: info.id,
        name: name_of(&info, &types),
        ty: words::of(info.ty),
        is_schedtrace: ours.contains(&info.btf_id),
        tag: hex(&info.tag.0),
        attachments: attachments.remove(&info.id).unwrap_or_default(),
        runs: runs_of(&info, run_times_known),
        jited_bytes: sizes.jited,
        translated_bytes: sizes.translated,
        verified_instructions: info.verified_insns,
        loaded_realtime_ns: clocks.realtime_ns - (clocks.boottime_ns - Nanos::from(info.load_time)),
        uid: info.created_by_uid,
        map_ids: info.map_ids,
        btf_id: (info.btf_id != 0).then_some(info.btf_id),
        holders: holders.by_program.remove(&info.id).unwrap_or_default(),
    };
    let programs = infos.into_iter().map(program).collect();
    Ok(Programs { run_times_known, holders_known: holders.complete, programs })
}

/// Reads the loaded programs again and again: how often they ran each time, and the rest when programs came or went, or some
/// seconds after it was read last. What they are attached to and who holds them takes the most time, and changes seldom.
///
/// ```no_run
/// use schedtrace_core::live::inspect::ProgramWatch;
/// let mut watch = ProgramWatch::default();
/// let before = watch.read()?;
/// std::thread::sleep(std::time::Duration::from_secs(1));
/// let now = watch.read()?;
/// println!("{} programs, then {}", before.programs.len(), now.programs.len());
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct ProgramWatch {
    known: Option<(Instant, Programs)>,
}

impl ProgramWatch {
    /// All is read again after this.
    pub const WHOLE_AFTER: Duration = Duration::from_secs(10);

    /// Every program that is loaded, by id.
    ///
    /// ```no_run
    /// use schedtrace_core::live::inspect::ProgramWatch;
    /// println!("{} programs are loaded", ProgramWatch::default().read()?.programs.len());
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotShown`](crate::Error::NotShown) without `CAP_SYS_ADMIN`.
    pub fn read(&mut self) -> Result<Programs> {
        if let Some((at, mut known)) = self.known.take().filter(|(at, _)| at.elapsed() < Self::WHOLE_AFTER) {
            may_look()?;
            let run_times_known = are_runs_counted(Path::new("/proc"));
            let runs = ProgInfoIter::default().map(|info| (info.id, runs_of(&info, run_times_known)));
            if known.ran(&runs.collect(), run_times_known) {
                self.known = Some((at, known.clone()));
                return Ok(known);
            }
        }
        let found = programs()?;
        self.known = Some((Instant::now(), found.clone()));
        Ok(found)
    }
}

impl Programs {
    /// Takes how often they ran now; false if these are others.
    fn ran(&mut self, runs: &BTreeMap<u32, Runs>, run_times_known: bool) -> bool {
        let is_same = runs.len() == self.programs.len()
            && self.programs.iter_mut().all(|program| match runs.get(&program.id) {
                Some(runs) => {
                    program.runs = *runs;
                    true
                }
                None => false,
            });
        self.run_times_known = run_times_known;
        is_same
    }
}

fn runs_of(info: &ProgramInfo, run_times_known: bool) -> Runs {
    Runs {
        run_count: info.run_cnt,
        run_time_ns: Nanos(info.run_time_ns),
        run_time_known: run_times_known || info.run_cnt > 0,
        recursion_misses: info.recursion_misses,
    }
}

struct Sizes {
    jited: u64,
    translated: u64,
}

/// The code itself is of no use here, and may be megabytes.
fn without_code(mut info: ProgramInfo) -> (ProgramInfo, Sizes) {
    let sizes = Sizes { jited: info.jited_prog_insns.len() as u64, translated: info.xlated_prog_insns.len() as u64 };
    (info.jited_prog_insns, info.xlated_prog_insns) = (Vec::new(), Vec::new());
    (info, sizes)
}

fn name_of(info: &ProgramInfo, types: &Types) -> String {
    let kept = info.name.to_string_lossy();
    let whole = || {
        let first = info.func_info.first()?.type_id;
        types::function(types.get(info.btf_id)?, first).filter(|whole| whole.starts_with(&*kept))
    };
    let is_cut = kept.len() >= CUT_NAME;
    clean(if is_cut { whole().unwrap_or(&kept) } else { &kept })
}

/// Whether the kernel counts what programs do (`kernel.bpf_stats_enabled`).
fn are_runs_counted(proc: &Path) -> bool {
    read_text(&proc.join("sys/kernel/bpf_stats_enabled")).is_ok_and(|text| text != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_programs_are_told_by_their_ids_and_run_on() {
        let program = |id| Program { id, name: format!("p{id}"), ..Program::default() };
        let ran = |run_count| Runs { run_count, run_time_known: true, ..Runs::default() };
        let mut known = Programs { programs: vec![program(2), program(5)], ..Programs::default() };
        assert!(known.ran(&[(2, ran(7)), (5, ran(8))].into(), true));
        let told: Vec<_> = known.programs.iter().map(|program| (&*program.name, program.runs.run_count)).collect();
        assert_eq!(told, [("p2", 7), ("p5", 8)]);
        assert!(known.run_times_known);
        assert!(!known.clone().ran(&[(2, ran(7)), (6, ran(1))].into(), true), "one went, another came");
        assert!(!known.clone().ran(&[(2, ran(7))].into(), true), "one went");
        assert!(!known.clone().ran(&[(2, ran(7)), (5, ran(8)), (6, ran(1))].into(), true), "one came");
    }

    #[test]
    fn live_what_is_watched_is_what_is_there() {
        let mut watch = ProgramWatch::default();
        let whole = watch.read().unwrap();
        let again = watch.read().unwrap();
        let ids = |found: &Programs| found.programs.iter().map(|program| program.id).collect::<Vec<_>>();
        // Others may load programs meanwhile.
        assert!(ids(&whole).iter().any(|id| ids(&again).contains(id)) || ids(&whole).is_empty());
        assert!(watch.known.is_some());
    }
}
