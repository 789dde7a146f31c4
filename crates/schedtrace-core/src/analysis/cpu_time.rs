//! Who used the CPUs: CPU time per group, and what each CPU did with the window.

use serde::Serialize;

use super::groups::{Gone, Group, GroupIx, Merge, Rows};
use super::states::{Ran, Seen, Span};
use super::study::Scope;
use crate::event::Cpu;

/// CPU time by group, and the utilisation of the CPUs. All times are clipped to the window.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CpuTimeReport {
    /// All CPUs together: busy, idle and unknown make up the number of CPUs times the window.
    pub total: CpuUse,
    /// CPU time of the recorder's own threads: what recording took. Part of the busy time.
    pub recorder_ns: u64,
    /// Each CPU, by number.
    pub cpus: Vec<CpuRow>,
    /// The groups that used most CPU time, most first.
    pub groups: Vec<CpuTimeRow>,
    /// How many groups used any.
    pub groups_total: usize,
}

/// What one or more CPUs did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct CpuUse {
    /// A task ran.
    pub busy_ns: u64,
    /// Nothing ran.
    pub idle_ns: u64,
    /// It is not known what ran: events are missing, or the recording's filters left them out.
    pub unknown_ns: u64,
    /// Of all three: intervals during which events are missing.
    pub in_loss_ns: u64,
    /// Busy time as a share of the whole, unknown time included: a lower bound where some of it is unknown.
    pub utilisation_ratio: f64,
}

/// One CPU.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CpuRow {
    /// Which.
    pub cpu: Cpu,
    /// What it did.
    #[serde(flatten)]
    pub used: CpuUse,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CpuTimeRow {
    /// Which.
    pub group: Group,
    /// Time on CPUs.
    pub cpu_time_ns: u64,
    /// The same as a share of all CPUs' time.
    pub share_ratio: f64,
    /// How often its tasks had a CPU in the window.
    pub runs: u64,
    /// The longest of these without a switch.
    pub longest_run_ns: u64,
    /// Part of the CPU time: runs during which events are missing.
    pub in_loss_ns: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Used {
    ns: u64,
    runs: u64,
    longest: u64,
    in_loss: u64,
}

impl Merge for Used {
    fn merge(&mut self, other: &Self) {
        self.ns.merge(&other.ns);
        self.runs.merge(&other.runs);
        self.longest = self.longest.max(other.longest);
        self.in_loss.merge(&other.in_loss);
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Use {
    busy: u64,
    idle: u64,
    unknown: u64,
    in_loss: u64,
}

impl Merge for Use {
    fn merge(&mut self, other: &Self) {
        self.busy.merge(&other.busy);
        self.idle.merge(&other.idle);
        self.unknown.merge(&other.unknown);
        self.in_loss.merge(&other.in_loss);
    }
}

impl Use {
    fn all(&self) -> u64 {
        self.busy.saturating_add(self.idle).saturating_add(self.unknown)
    }

    fn report(&self) -> CpuUse {
        CpuUse {
            busy_ns: self.busy,
            idle_ns: self.idle,
            unknown_ns: self.unknown,
            in_loss_ns: self.in_loss,
            utilisation_ratio: ratio(self.busy, self.all()),
        }
    }
}

/// A part as a share of the whole; 0 of nothing.
pub(super) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Adds up who had the CPUs.
#[derive(Clone, Debug, Default)]
pub(super) struct CpuTime {
    rows: Rows<Used>,
    /// By the CPUs' places.
    cpus: Vec<Use>,
    recorder: u64,
}

impl CpuTime {
    pub(super) fn ran(&mut self, ran: &Ran, scope: &Scope, seen: &Seen<'_>) {
        let Some((from, until)) = scope.clip(ran.span.from, ran.span.until) else { return };
        let ns = (until - from).0;
        let recorder = seen.tasks.is_recorder(ran.task);
        let selected = !seen.tasks.filtered() || recorder || !seen.tasks.left_out(ran.task);
        let used = self.cpu(&ran.span, ns);
        if !selected {
            // Switches among tasks that were not selected were not recorded.
            used.unknown.merge(&ns);
            return;
        }
        used.busy.merge(&ns);
        self.recorder.merge(if recorder { &ns } else { &0 });
        if let Some(row) = scope.row(ran.task, ran.span.cpu, seen) {
            let in_loss = if ran.span.doubtful { ns } else { 0 };
            self.rows.at(row).merge(&Used { ns, runs: 1, longest: ns, in_loss });
        }
    }

    pub(super) fn idled(&mut self, span: &Span, scope: &Scope, seen: &Seen<'_>) {
        if seen.tasks.filtered() {
            // Switches to and from tasks that were not selected were not recorded.
            return self.unseen(span, scope);
        }
        if let Some((from, until)) = scope.clip(span.from, span.until) {
            self.cpu(span, (until - from).0).idle.merge(&(until - from).0);
        }
    }

    pub(super) fn unseen(&mut self, span: &Span, scope: &Scope) {
        if let Some((from, until)) = scope.clip(span.from, span.until) {
            self.cpu(span, (until - from).0).unknown.merge(&(until - from).0);
        }
    }

    fn cpu(&mut self, span: &Span, ns: u64) -> &mut Use {
        let at = span.cpu.at as usize;
        if at >= self.cpus.len() {
            self.cpus.resize_with(at + 1, Use::default);
        }
        let used = &mut self.cpus[at];
        used.in_loss.merge(if span.doubtful { &ns } else { &0 });
        used
    }

    /// CPU time of a group.
    pub(super) fn ns(&self, group: GroupIx) -> u64 {
        self.rows.get(group).map_or(0, |used| used.ns)
    }

    pub(super) fn fold(&mut self, gone: &Gone) {
        self.rows.fold(gone);
    }

    /// `open` holds what is not over yet.
    pub(super) fn report(&self, open: &Self, top: usize, seen: &Seen<'_>) -> CpuTimeReport {
        let mut all = self.clone();
        all.rows.merge(&open.rows);
        for (at, used) in open.cpus.iter().enumerate() {
            if at >= all.cpus.len() {
                all.cpus.resize_with(at + 1, Use::default);
            }
            all.cpus[at].merge(used);
        }
        let mut total = Use::default();
        let mut cpus: Vec<CpuRow> = Vec::new();
        for cpu in seen.cpus.watched() {
            let used = all.cpus.get(cpu.cpu.at as usize).copied().unwrap_or_default();
            total.merge(&used);
            cpus.push(CpuRow { cpu: cpu.cpu.cpu, used: used.report() });
        }
        cpus.sort_unstable_by_key(|row| row.cpu);
        let rows = all.rows.ranked(|used| used.ns);
        let row = |&(ix, used): &(GroupIx, &Used)| CpuTimeRow {
            group: seen.tasks.group(ix),
            cpu_time_ns: used.ns,
            share_ratio: ratio(used.ns, total.all()),
            runs: used.runs,
            longest_run_ns: used.longest,
            in_loss_ns: used.in_loss,
        };
        CpuTimeReport {
            total: total.report(),
            recorder_ns: self.recorder.saturating_add(open.recorder),
            cpus,
            groups: rows.iter().take(top).map(row).collect(),
            groups_total: rows.len(),
        }
    }
}
