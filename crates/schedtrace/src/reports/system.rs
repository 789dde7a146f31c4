//! What the machine counted as a whole: memory, CPU time, load, pressure, network.

use schedtrace_core::analysis::{
    Counter, CpuTimeShares, CpusUse, Gauge, InterfaceUse, LoadUse, MemoryUse, NetworkUse, PressureUse, SampledCpu,
    Samples, SystemUseReport,
};

use super::{CPUS, Page, decimal, if_any, or_none, titled};
use crate::render::{Column, more};
use crate::units::{bytes, count, offset, percent, plural, span};

impl Page<'_> {
    pub(super) fn system(&self, report: &SystemUseReport) -> String {
        let mut text = String::new();
        if let Some(memory) = &report.memory {
            text += &self.memory(memory);
        }
        if let Some(cpus) = &report.cpus {
            text += &self.cpus(cpus);
        }
        if let Some(load) = &report.load {
            text += &self.load(load);
        }
        if let Some(pressure) = &report.pressure {
            text += &self.pressure(pressure);
        }
        if let Some(network) = &report.network {
            text += &self.network(network);
        }
        if text.is_empty() {
            text += "  None of memory, CPUs, load, pressure and network was sampled in this window.\n";
        }
        text + &if_any(report.others, |n| format!("  {n} numbers without a known name, or too many, or out of order\n"))
    }

    /// Of which moments something is.
    fn sampled(&self, what: &str, at: &Samples) -> String {
        let time = |at| offset(at, self.meta.started);
        match at.samples {
            1 => format!("{what}, at {}: no rates of one sample", time(at.last_ns)),
            n => format!("{what}, {} from {} to {}", plural(n, "sample"), time(at.first_ns), time(at.last_ns)),
        }
    }

    fn memory(&self, memory: &MemoryUse) -> String {
        let columns = [Column::Text("memory"), Column::Number("last"), Column::Number("least"), Column::Number("most")];
        let gauges = [
            ("total", memory.total_bytes),
            ("in use", memory.in_use_bytes),
            ("available", memory.available_bytes),
            ("free", memory.free_bytes),
            ("anonymous", memory.anonymous_bytes),
            ("page cache", memory.cached_bytes),
            ("buffers", memory.buffers_bytes),
            ("shared", memory.shared_bytes),
            ("slab", memory.slab_bytes),
            ("dirty", memory.dirty_bytes),
            ("writeback", memory.writeback_bytes),
            ("swap", memory.swap_total_bytes),
            ("swap in use", memory.swap_used_bytes),
        ];
        let row = |(name, gauge): (&str, Option<Gauge>)| {
            let Gauge { now, min, max } = gauge?;
            Some(vec![name.to_owned(), bytes(now), bytes(min), bytes(max)])
        };
        let mut text =
            titled(&self.sampled("Memory", &memory.at), &columns, gauges.into_iter().filter_map(row).collect());
        let counters = [
            ("page faults", memory.page_faults),
            ("major page faults", memory.major_page_faults),
            ("pages swapped in", memory.pages_swapped_in),
            ("pages swapped out", memory.pages_swapped_out),
            ("killed for want of memory", memory.oom_kills),
        ];
        text += &counted("What happened to it", counters);
        text
    }

    fn cpus(&self, cpus: &CpusUse) -> String {
        let names = ["busy", "user", "system", "irq", "stolen", "I/O", "queue", "mean wait", "slices/s"];
        let columns: Vec<_> = [Column::Text("cpu")].into_iter().chain(names.map(Column::Number)).collect();
        let shares = |shares: Option<&CpuTimeShares>| {
            let share = |of: fn(&CpuTimeShares) -> f64| or_none(shares.map(|shares| percent(of(shares))));
            [
                share(|it| it.busy_ratio),
                share(|it| it.user_ratio),
                share(|it| it.system_ratio),
                share(|it| it.irq_ratio + it.softirq_ratio),
                share(|it| it.steal_ratio),
                share(|it| it.iowait_ratio),
            ]
        };
        let row = |cpu: &SampledCpu| {
            let queue = cpu.queue.as_ref();
            let queue = [
                or_none(queue.map(|it| decimal(it.waiting_mean))),
                or_none(queue.and_then(|it| it.wait_mean_ns).map(|ns| span(ns as u64))),
                or_none(queue.map(|it| format!("{:.0}", it.timeslices_per_second))),
            ];
            [cpu.cpu.to_string()].into_iter().chain(shares(cpu.shares.as_ref())).chain(queue).collect()
        };
        let total = cpus.total.as_ref().map(|total| {
            let none = ["-", "-", "-"].map(str::to_owned);
            ["all".to_owned()].into_iter().chain(shares(Some(total))).chain(none).collect()
        });
        let rows = total.into_iter().chain(cpus.cpus.iter().take(CPUS).map(row)).collect();
        let mut text = titled(&self.sampled("CPUs", &cpus.at), &columns, rows);
        text += &more(cpus.cpus.len().min(CPUS), cpus.cpus.len());
        let counters = [
            ("switches", cpus.context_switches),
            ("interrupts", cpus.interrupts),
            ("softirqs", cpus.softirqs),
            ("new tasks", cpus.tasks_created),
        ];
        text + &counted("What happened on them", counters)
    }

    fn load(&self, load: &LoadUse) -> String {
        let columns = [Column::Text("load"), Column::Number("last"), Column::Number("least"), Column::Number("most")];
        let averages =
            [("1 minute", load.one_minute), ("5 minutes", load.five_minutes), ("15 minutes", load.fifteen_minutes)];
        let averages = averages.into_iter().filter_map(|(name, gauge)| {
            let Gauge { now, min, max } = gauge?;
            Some([name.to_owned()].into_iter().chain([now, min, max].map(decimal)).collect())
        });
        let tasks = [("runnable tasks", load.tasks_runnable), ("tasks", load.tasks)];
        let tasks = tasks.into_iter().filter_map(|(name, gauge)| {
            let Gauge { now, min, max } = gauge?;
            Some([name.to_owned()].into_iter().chain([now, min, max].map(count)).collect())
        });
        titled(&self.sampled("Load", &load.at), &columns, averages.chain(tasks).collect())
    }

    fn pressure(&self, pressure: &PressureUse) -> String {
        let columns = [Column::Text("for want of"), Column::Text("waited")].into_iter();
        let columns: Vec<_> = columns.chain(["share", "lost", "since boot"].map(Column::Number)).collect();
        let rows = pressure.resources.iter().flat_map(|row| {
            let both = [("some", row.some), ("all", row.full)].into_iter();
            both.filter_map(|(who, stall)| {
                let stall = stall?;
                let lost = stall.stalled_ratio.map(|_| span(stall.stalled_ns.0));
                let share = or_none(stall.stalled_ratio.map(percent));
                Some(vec![row.resource.to_owned(), who.to_owned(), share, or_none(lost), span(stall.total_ns.0)])
            })
        });
        titled(&self.sampled("Time lost", &pressure.at), &columns, rows.collect())
    }

    fn network(&self, network: &NetworkUse) -> String {
        let numbers = ["in/s", "out/s", "packets in/s", "packets out/s", "errors", "dropped", "all in", "all out"];
        let columns = [Column::Text("interface")].into_iter().chain(numbers.map(Column::Number));
        let columns: Vec<_> = columns.chain([Column::Text("remark")]).collect();
        let rows = self.shown(&network.interfaces).iter().map(interface);
        let mut text = titled(&self.sampled("Network", &network.at), &columns, rows.collect());
        text += &more(self.shown(&network.interfaces).len(), network.interfaces_total);
        text
    }
}

fn interface(interface: &InterfaceUse) -> Vec<String> {
    let rate = |of: Option<Counter>, shown: fn(f64) -> String| or_none(of.and_then(|it| it.per_second).map(shown));
    let times = |both: [Option<Counter>; 2]| {
        let [one, other] = both.map(|it| it.filter(|it| it.per_second.is_some()));
        or_none(one.zip(other).map(|(one, other)| count(one.growth.saturating_add(other.growth))))
    };
    let all = |of: Option<Counter>| or_none(of.map(|it| bytes(it.now)));
    let gone = interface.gone.then(|| "gone".to_owned());
    let anew = (interface.resets > 0).then(|| format!("counted anew {}x", interface.resets));
    let remarks: Vec<_> = gone.into_iter().chain(anew).collect();
    vec![
        interface.name.replace(char::is_control, "?"),
        rate(interface.received_bytes, |rate| bytes(rate as u64)),
        rate(interface.sent_bytes, |rate| bytes(rate as u64)),
        rate(interface.received_packets, |rate| format!("{rate:.1}")),
        rate(interface.sent_packets, |rate| format!("{rate:.1}")),
        times([interface.receive_errors, interface.send_errors]),
        times([interface.receive_dropped, interface.send_dropped]),
        all(interface.received_bytes),
        all(interface.sent_bytes),
        remarks.join(", "),
    ]
}

/// Counters, those that were told.
fn counted<const N: usize>(title: &str, counters: [(&str, Option<Counter>); N]) -> String {
    let columns =
        [Column::Text("what"), Column::Number("per second"), Column::Number("times"), Column::Number("since boot")];
    let row = |(name, counter): (&str, Option<Counter>)| {
        let Counter { now, growth, per_second } = counter?;
        let rate = or_none(per_second.map(|rate| format!("{rate:.1}")));
        Some(vec![name.to_owned(), rate, or_none(per_second.map(|_| count(growth))), count(now)])
    };
    titled(title, &columns, counters.into_iter().filter_map(row).collect())
}
