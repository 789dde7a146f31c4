//! Interrupts and software interrupts, by source.

use std::collections::HashMap;
use std::path::Path;

use serde::Serialize;

use super::{monotonic_now, per_second, text};
use crate::error::Result;
use crate::event::{Cpu, Nanos};

/// How often each interrupt came since boot.
///
/// ```
/// use schedtrace_core::system::stats::SystemInterrupts;
/// if let Some(most) = SystemInterrupts::read("/".as_ref())?.sources.first() {
///     println!("{} came most often: {} times", most.name, most.count);
/// }
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SystemInterrupts {
    /// When it was read, by `CLOCK_MONOTONIC`.
    pub read_at_ns: Nanos,
    /// Those that came at least once, the most frequent first.
    pub sources: Vec<Interrupt>,
    /// How many sources never were heard of.
    pub silent_sources: usize,
}

/// What kind of interrupt it is.
///
/// ```
/// use schedtrace_core::system::stats::InterruptKind;
/// assert_eq!(serde_json::to_string(&InterruptKind::Softirq)?, "\"softirq\"");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InterruptKind {
    /// Of a device, or of the CPU itself.
    #[default]
    Interrupt,
    /// Put off by a handler, and run right behind it or by `ksoftirqd`.
    Softirq,
}

/// One source of interrupts.
///
/// ```
/// use schedtrace_core::system::stats::Interrupt;
/// assert_eq!(Interrupt::default().busiest_cpu, None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Interrupt {
    /// Interrupt or software interrupt.
    pub kind: InterruptKind,
    /// Its number or short name: `24`, `LOC`, `NET_RX`.
    pub name: String,
    /// What the kernel says of it: the chip and the device, or `Local timer interrupts`.
    pub description: String,
    /// How often it came, on all CPUs together.
    pub count: u64,
    /// The CPU on which it came most often; none where it is not counted by CPU.
    pub busiest_cpu: Option<Cpu>,
    /// How often it came there.
    pub busiest_cpu_count: u64,
    /// By CPU, in the order of the file.
    #[serde(skip)]
    per_cpu: Vec<(Cpu, u64)>,
}

/// How often each interrupt came between two readings.
///
/// ```
/// use schedtrace_core::system::stats::InterruptRates;
/// assert!(InterruptRates::default().sources.is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct InterruptRates {
    /// How long it was from the first to the second.
    pub window_ns: Nanos,
    /// Those that came at least once, the most frequent first.
    pub sources: Vec<InterruptActivity>,
}

/// How often one interrupt came between two readings.
///
/// ```
/// use schedtrace_core::system::stats::InterruptActivity;
/// assert_eq!(InterruptActivity::default().per_second, 0.0);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct InterruptActivity {
    /// Interrupt or software interrupt.
    pub kind: InterruptKind,
    /// Its number or short name: `24`, `LOC`, `NET_RX`.
    pub name: String,
    /// What the kernel says of it.
    pub description: String,
    /// How often it came, on all CPUs together.
    pub per_second: f64,
    /// The CPU on which it came most often meanwhile.
    pub busiest_cpu: Option<Cpu>,
    /// How often it came there.
    pub busiest_cpu_per_second: f64,
}

impl SystemInterrupts {
    /// Reads `proc/interrupts` and, where it is, `proc/softirqs` below `root`.
    ///
    /// ```
    /// use schedtrace_core::system::stats::SystemInterrupts;
    /// assert!(SystemInterrupts::read("/no/such/folder".as_ref()).is_err());
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if `proc/interrupts` cannot be read.
    pub fn read(root: &Path) -> Result<Self> {
        let hard = text(root, "proc/interrupts")?;
        let read_at_ns = monotonic_now();
        let soft = text(root, "proc/softirqs").unwrap_or_default();
        let mut sources = parse(&hard, InterruptKind::Interrupt);
        sources.extend(parse(&soft, InterruptKind::Softirq));
        let all = sources.len();
        sources.retain(|source| source.count > 0);
        sources.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.name.cmp(&b.name)));
        Ok(Self { read_at_ns, silent_sources: all - sources.len(), sources })
    }

    /// What happened since an earlier reading of the same machine.
    ///
    /// ```
    /// use schedtrace_core::system::stats::SystemInterrupts;
    /// let before = SystemInterrupts::read("/".as_ref())?;
    /// let rates = SystemInterrupts::read("/".as_ref())?.since(&before);
    /// assert!(rates.sources.iter().all(|source| source.per_second > 0.0));
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    #[must_use]
    pub fn since(&self, before: &Self) -> InterruptRates {
        let window_ns = self.read_at_ns - before.read_at_ns;
        let key = |source: &Interrupt| (source.kind, source.name.clone());
        let earlier: HashMap<_, &Interrupt> = before.sources.iter().map(|source| (key(source), source)).collect();
        let grown = self.sources.iter().filter_map(|now| {
            let then = earlier.get(&key(now)).copied();
            let rate = |before: u64, after: u64| per_second(before, after, window_ns);
            let activity_per_second = rate(then.map_or(0, |then| then.count), now.count);
            let on =
                |cpu: Cpu| then.and_then(|then| then.per_cpu.iter().find(|one| one.0 == cpu)).map_or(0, |one| one.1);
            let cpus = now.per_cpu.iter().map(|&(cpu, count)| (cpu, rate(on(cpu), count)));
            let busiest = cpus.filter(|one| one.1 > 0.0).reduce(|best, one| if one.1 > best.1 { one } else { best });
            (activity_per_second > 0.0).then(|| InterruptActivity {
                kind: now.kind,
                name: now.name.clone(),
                description: now.description.clone(),
                per_second: activity_per_second,
                busiest_cpu: busiest.map(|one| one.0),
                busiest_cpu_per_second: busiest.map_or(0.0, |one| one.1),
            })
        });
        let mut sources: Vec<_> = grown.collect();
        sources.sort_by(|a, b| b.per_second.total_cmp(&a.per_second));
        InterruptRates { window_ns, sources }
    }
}

/// `show_interrupts()` in `kernel/irq/proc.c` and `show_softirqs()` in `fs/proc/softirqs.c`: a heading that names the
/// CPUs, and lines with a number for each. Some of the CPU's own have one number in all.
fn parse(text: &str, kind: InterruptKind) -> Vec<Interrupt> {
    let mut lines = text.lines();
    let heading = lines.next().unwrap_or_default();
    let cpus: Vec<Option<Cpu>> = heading
        .split_ascii_whitespace()
        .map(|word| word.strip_prefix("CPU").and_then(|number| number.parse().ok()).map(Cpu))
        .collect();
    let source = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let mut rest = rest.trim_start();
        let mut counts = Vec::new();
        while counts.len() < cpus.len() {
            let (word, behind) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            let Ok(count) = word.parse::<u64>() else { break };
            counts.push(count);
            rest = behind.trim_start();
        }
        // What is counted in one number is not that of the first CPU.
        let by_cpu = counts.len() == cpus.len();
        let per_cpu = cpus.iter().zip(&counts).filter_map(|(&cpu, &count)| Some((cpu?, count)));
        let per_cpu: Vec<_> = per_cpu.filter(|_| by_cpu).collect();
        let busiest =
            per_cpu.iter().copied().filter(|one| one.1 > 0).reduce(|best, one| if one.1 > best.1 { one } else { best });
        (!counts.is_empty()).then(|| Interrupt {
            kind,
            name: name.trim().to_owned(),
            description: rest.split_ascii_whitespace().collect::<Vec<_>>().join(" "),
            count: counts.iter().fold(0, |sum, count| count.saturating_add(sum)),
            busiest_cpu: busiest.map(|one| one.0),
            busiest_cpu_count: busiest.map_or(0, |one| one.1),
            per_cpu,
        })
    };
    lines.filter_map(source).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::write;
    use super::*;

    fn read(hard: &str, soft: &str, at: u64) -> SystemInterrupts {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "proc/interrupts", hard);
        write(root.path(), "proc/softirqs", soft);
        SystemInterrupts { read_at_ns: Nanos(at), ..SystemInterrupts::read(root.path()).unwrap() }
    }

    #[test]
    fn sources_come_most_frequent_first() {
        let hard = "           CPU0       CPU7\n 24:  1  0  IO-APIC   5-edge      ACPI:Ged\nLOC:  10  30   Local timer interrupts\nERR:   0\nMIS: 2\n";
        let before = read(hard, "   CPU0  CPU7\n NET_RX: 5 100\n HI: 0 0\n", 0);
        let names: Vec<_> = before.sources.iter().map(|source| (source.name.as_str(), source.count)).collect();
        assert_eq!(names, [("NET_RX", 105), ("LOC", 40), ("MIS", 2), ("24", 1)]);
        assert_eq!(before.silent_sources, 2);
        assert_eq!((before.sources[0].kind, before.sources[0].busiest_cpu), (InterruptKind::Softirq, Some(Cpu(7))));
        assert_eq!((before.sources[2].busiest_cpu, before.sources[2].busiest_cpu_count), (None, 0), "not by CPU");
        assert_eq!(before.sources[3].description, "IO-APIC 5-edge ACPI:Ged");
        assert_eq!(before.sources[3].busiest_cpu, Some(Cpu(0)));

        let hard = "           CPU0       CPU7\n 24:  1  0  x\n 25: 3 0 new\nLOC:  60  30   Local timer interrupts\n";
        let rates = read(hard, "   CPU0  CPU7\n NET_RX: 5 100\n", 500_000_000).since(&before);
        let names: Vec<_> = rates.sources.iter().map(|source| (source.name.as_str(), source.per_second)).collect();
        assert_eq!(names, [("LOC", 100.0), ("25", 6.0)]);
        assert_eq!((rates.sources[0].busiest_cpu, rates.sources[0].busiest_cpu_per_second), (Some(Cpu(0)), 100.0));
    }

    #[test]
    fn this_machine_is_read() {
        let before = SystemInterrupts::read("/".as_ref()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(30));
        let rates = SystemInterrupts::read("/".as_ref()).unwrap().since(&before);
        assert!(before.sources.iter().any(|source| source.kind == InterruptKind::Softirq));
        assert!(!rates.sources.is_empty() && before.sources.is_sorted_by(|a, b| a.count >= b.count));
    }
}
