//! What events beyond the default ones tell: interrupts, disks, futexes, dispatch queues, idle states, system calls.

use schedtrace_core::analysis::{
    BlockIoReport, DispatchReport, DsqCounts, FutexesReport, InterruptSource, InterruptTimes, InterruptsReport,
    IpiCounts, IpisReport, PowerReport, SyscallsReport,
};

use super::{CPUS, Page, decimal, if_any, or_none, row, titled, with_latency};
use crate::render::{Column, more, table};
use crate::units::{bytes, count, percent, plural, span};

/// Wakers of a futex that are named in its row.
const WAKERS: usize = 2;

impl Page<'_> {
    pub(super) fn interrupts(&self, report: &InterruptsReport) -> String {
        let total = &report.total;
        let mut text = format!(
            "  {} for devices, {} in software interrupts, {} for other CPUs; {} of that when nothing else wanted the CPU.\n",
            span(total.hardirq_ns),
            span(total.softirq_ns),
            span(total.ipi_ns),
            span(report.idle_ns)
        );
        text += &self.worst(report.sources.iter().map(|row| (source(&row.source), &row.latency)));
        let columns = [Column::Text("interrupt"), Column::Number("time"), Column::Number("of one CPU")];
        let rows = self.shown(&report.sources).iter().map(|interrupt| {
            let (time, share) = (span(interrupt.time_ns), percent(interrupt.share_ratio));
            row([source(&interrupt.source), time, share], &interrupt.latency)
        });
        text += &titled("What took most time", &with_latency(&columns), rows.collect());
        text += &more(self.shown(&report.sources).len(), report.sources_total);
        let columns = [Column::Text(self.by.name()), Column::Number("times"), Column::Number("lost")];
        let rows = self.shown(&report.interrupted).iter();
        let rows = rows.map(|row| vec![row.group.to_string(), count(row.count), span(row.stolen_ns)]);
        text += &titled("Whom they interrupted", &columns, rows.collect());
        text += &more(self.shown(&report.interrupted).len(), report.interrupted_total);
        let rows = self.shown(&report.raised).iter().map(|raised| row([raised.vector.clone()], &raised.delay));
        let columns = with_latency(&[Column::Text("softirq")]);
        text += &titled("How long software interrupts waited to be served", &columns, rows.collect());
        let names = ["cpu", "devices", "software", "other CPUs", "of its time"].map(Column::Number);
        let rows = report.cpus.iter().take(CPUS).map(|row| {
            let InterruptTimes { hardirq_ns, softirq_ns, ipi_ns } = row.times;
            let all = hardirq_ns.saturating_add(softirq_ns).saturating_add(ipi_ns);
            vec![row.cpu.to_string(), span(hardirq_ns), span(softirq_ns), span(ipi_ns), self.of_window(all)]
        });
        text += &titled("Where", &names, rows.collect());
        text += &more(report.cpus.len().min(CPUS), report.cpus.len());
        text += &if_any(report.others, |n| format!("  {n} more of sources that were too many to keep apart\n"));
        text + &if_any(report.unpaired, |n| {
            format!("  {n} of which the beginning or the end is missing: not counted\n")
        })
    }

    pub(super) fn ipis(&self, report: &IpisReport) -> String {
        let sent = &report.sent;
        let mut text = format!(
            "  {} were sent, {:.0} per second, to {}; {} from idle CPUs.\n",
            count(sent.count),
            sent.rate_per_second,
            plural(sent.targets, "CPU"),
            count(report.from_idle)
        );
        text += &self.worst(report.handled.iter().map(|row| (row.ipi.clone(), &row.latency)));
        let columns = |names: &[Column<'static>]| -> Vec<Column<'static>> {
            let counts = ["sent", "to CPUs", "per second"].map(Column::Number);
            names.iter().copied().chain(counts).collect()
        };
        let cells = |names: Vec<String>, counts: &IpiCounts| -> Vec<String> {
            let rate = format!("{:.1}", counts.rate_per_second);
            names.into_iter().chain([count(counts.count), count(counts.targets), rate]).collect()
        };
        let rows = self.shown(&report.callbacks).iter().map(|row| cells(vec![row.callback.clone()], &row.counts));
        text += &titled("What for", &columns(&[Column::Text("function")]), rows.collect());
        text += &more(self.shown(&report.callbacks).len(), report.callbacks_total);
        let rows = self.shown(&report.pairs).iter().map(|row| {
            let names = vec![row.from.to_string(), row.to.to_string(), row.callback.clone()];
            cells(names, &row.counts)
        });
        let names = [Column::Number("from CPU"), Column::Number("to CPU"), Column::Text("function")];
        text += &titled("From where to where", &columns(&names), rows.collect());
        text += &more(self.shown(&report.pairs).len(), report.pairs_total);
        let rows = self.shown(&report.senders).iter().map(|row| cells(vec![row.group.to_string()], &row.counts));
        text +=
            &titled("Who had the CPU when they were sent", &columns(&[Column::Text(self.by.name())]), rows.collect());
        text += &more(self.shown(&report.senders).len(), report.senders_total);
        let rows = self.shown(&report.handled).iter();
        let rows = rows.map(|handled| row([handled.ipi.clone(), span(handled.time_ns)], &handled.latency));
        let columns = with_latency(&[Column::Text("interrupt"), Column::Number("time")]);
        text += &titled("What serving them took", &columns, rows.collect());
        text += &more(self.shown(&report.handled).len(), report.handled.len());
        text += &if_any(report.others, |n| format!("  {n} of functions and pairs that were too many to keep apart\n"));
        text + &if_any(report.unpaired, |n| {
            format!("  {n} of which the beginning or the end is missing: not counted\n")
        })
    }

    pub(super) fn block_io(&self, report: &BlockIoReport) -> String {
        let total = &report.total;
        let mut text = format!(
            "  {}, {} in all, {:.0} and {} per second; {} failed.\n",
            plural(total.requests, "request"),
            bytes(total.bytes),
            total.requests_per_second,
            bytes(total.bytes_per_second as u64),
            count(total.failed)
        );
        let operation =
            |device: &str, operation: &str| format!("{operation} on {}", name_or(device, "an unknown disk"));
        text += &self.worst(report.operations.iter().map(|row| (operation(&row.device, &row.operation), &row.latency)));
        let columns = ["requests", "moved", "failed"].map(Column::Number);
        let names = [Column::Text("disk"), Column::Text("operation")];
        let columns: Vec<_> = names.into_iter().chain(columns).collect();
        let rows = self.shown(&report.operations).iter().map(|it| {
            let (device, operation) = (name_or(&it.device, "unknown"), it.operation.clone());
            let totals = &it.totals;
            row([device, operation, count(totals.requests), bytes(totals.bytes), count(totals.failed)], &it.latency)
        });
        text += &titled("How long the disks took", &with_latency(&columns), rows.collect());
        text += &more(self.shown(&report.operations).len(), report.operations_total);
        let rows = self.shown(&report.operations).iter().filter(|it| it.scheduler.summary.count > 0);
        let rows = rows.map(|it| row([name_or(&it.device, "unknown"), it.operation.clone()], &it.scheduler));
        text += &titled("How long requests were in the I/O scheduler before", &with_latency(&names), rows.collect());
        let columns = [Column::Text("disk"), Column::Number("mean"), Column::Number("max")];
        let rows = self.shown(&report.devices).iter().map(|row| {
            let most = or_none(row.in_flight_max.map(count));
            vec![name_or(&row.device, "unknown"), decimal(row.in_flight_mean), most]
        });
        text += &titled("How many requests at once", &columns, rows.collect());
        text += &more(self.shown(&report.devices).len(), report.devices_total);
        let numbers = ["requests", "moved", "in the disk"].map(Column::Number);
        let columns: Vec<_> = [Column::Text(self.by.name())].into_iter().chain(numbers).collect();
        let rows = self.shown(&report.groups).iter();
        let rows =
            rows.map(|row| vec![row.group.to_string(), count(row.requests), bytes(row.bytes), span(row.latency_ns)]);
        text += &titled("Who wanted it done", &columns, rows.collect());
        text += &more(self.shown(&report.groups).len(), report.groups_total);
        text += &if_any(report.others, |n| format!("  {n} events of disks that were too many to keep apart\n"));
        text + &if_any(report.unpaired, |n| format!("  {n} given to an I/O scheduler and not issued, or merged\n"))
    }

    pub(super) fn futexes(&self, report: &FutexesReport) -> String {
        let total = &report.total;
        let mut text = format!(
            "  {} until somebody woke, {} until a timeout, {} ended by a signal; {} that did not wait, {} that failed.\n",
            plural(total.waits, "wait"),
            count(total.timeouts),
            count(total.interrupted),
            plural(total.value_changed, "call"),
            count(total.failed)
        );
        text += &self.worst([(String::new(), &total.latency)]);
        text += &table(&with_latency(&[Column::Text("waited until woken")]), [row(["all".to_owned()], &total.latency)]);
        let columns = [
            Column::Text("process"),
            Column::Text("address"),
            Column::Number("threads"),
            Column::Number("waits"),
            Column::Number("timeouts"),
            Column::Text("woken by"),
        ];
        let rows = self.shown(&report.futexes).iter().map(|futex| {
            let wakers = futex.wakers.iter().take(WAKERS);
            let wakers: Vec<_> = wakers.map(|waker| format!("{} {}", waker.task, count(waker.wakes))).collect();
            let wakers = if wakers.is_empty() { "-".to_owned() } else { wakers.join(", ") };
            let process = format!("{}[{}]", futex.comm, futex.pid);
            let counts = &futex.counts;
            let numbers = [futex.waiters, counts.waits, counts.timeouts].map(count);
            let [waiters, waits, timeouts] = numbers;
            row([process, futex.address.to_string(), waiters, waits, timeouts, wakers], &counts.latency)
        });
        text += &titled("Where threads waited longest in all", &with_latency(&columns), rows.collect());
        text += &more(self.shown(&report.futexes).len(), report.futexes_total);
        text += &if_any(report.others, |n| format!("  {n} of futexes that were too many to keep apart\n"));
        text + &if_any(report.unidentified, |n| format!("  {n} of threads whose process is not known\n"))
    }

    pub(super) fn dispatch(&self, report: &DispatchReport) -> String {
        let total = &report.total;
        let mut text = format!(
            "  {} into {}, {} from there onto a CPU; {} of {} found nothing to take.\n",
            plural(total.inserts, "insert"),
            plural(report.queues_total as u64, "queue"),
            count(total.dispatches),
            count(total.moves_empty),
            plural(total.moves, "move")
        );
        text += &self.worst([(String::new(), &total.latency)]);
        let numbers = ["inserts", "mean slice", "mean depth", "most", "moves", "empty"].map(Column::Number);
        let columns: Vec<_> = [Column::Text("queue")].into_iter().chain(numbers).collect();
        let cells = |name: String, it: &DsqCounts| {
            let slice = or_none(it.slice_mean_ns.map(|ns| span(ns as u64)));
            let depth = or_none(it.depth_mean.map(decimal));
            let most = count(u64::from(it.depth_max));
            row([name, count(it.inserts), slice, depth, most, count(it.moves), count(it.moves_empty)], &it.latency)
        };
        let rows = self.shown(&report.queues).iter().map(|queue| cells(queue.dsq.clone(), &queue.counts));
        let rows = std::iter::once(cells("all".into(), total)).chain(rows);
        text += &titled("From the insert into a queue to a CPU", &with_latency(&columns), rows.collect());
        text += &more(self.shown(&report.queues).len(), report.queues_total);
        let rows = self.shown(&report.layers).iter().map(|layer| row([layer.layer.to_string()], &layer.latency));
        text += &titled("The same by layer", &with_latency(&[Column::Number("layer")]), rows.collect());
        text += &more(self.shown(&report.layers).len(), report.layers_total);
        text + &if_any(report.others, |n| {
            format!("  {n} events of queues and layers that were too many to keep apart\n")
        })
    }

    pub(super) fn power(&self, report: &PowerReport) -> String {
        let mut text =
            self.worst(report.states.iter().map(|row| (format!("state {}", row.time.state), &row.residency)));
        let columns = ["idle state", "entered", "time"].map(Column::Number);
        let rows = self.shown(&report.states).iter().map(|state| {
            let time = &state.time;
            row([time.state.to_string(), count(time.entries), span(time.time_ns)], &state.residency)
        });
        text += &titled("How long CPUs stayed in idle states", &with_latency(&columns), rows.collect());
        text += &more(self.shown(&report.states).len(), report.states_total);
        let names = ["cpu", "idle", "active", "unknown", "mean MHz", "least", "most", "changes"].map(Column::Number);
        let columns: Vec<_> = names.into_iter().chain([Column::Text("by state")]).collect();
        let rows = report.cpus.iter().take(CPUS).map(|row| {
            let mut cells = vec![row.cpu.to_string()];
            cells.extend([row.idle_ns, row.active_ns, row.unknown_ns].map(|ns| self.of_window(ns)));
            let mhz = |khz: f64| format!("{:.0}", khz / 1e3);
            cells.push(or_none(row.frequency.map(|it| mhz(it.mean_khz))));
            cells.push(or_none(row.frequency.map(|it| mhz(f64::from(it.min_khz)))));
            cells.push(or_none(row.frequency.map(|it| mhz(f64::from(it.max_khz)))));
            cells.push(or_none(row.frequency.map(|it| count(it.changes))));
            let states: Vec<_> =
                row.states.iter().map(|it| format!("{} {}", it.state, self.of_window(it.time_ns))).collect();
            cells.push(if states.is_empty() { "-".into() } else { states.join(", ") });
            cells
        });
        text += &titled("The CPUs", &columns, rows.collect());
        text += &more(report.cpus.len().min(CPUS), report.cpus.len());
        text +=
            &if_any(report.others, |n| format!("  {n} events of CPUs and states that were too many to keep apart\n"));
        text + &if_any(report.unpaired, |n| {
            format!("  {n} of which the beginning or the end is missing: not counted\n")
        })
    }

    pub(super) fn syscalls(&self, report: &SyscallsReport) -> String {
        let mut text = format!("  {} that failed.\n", plural(report.failed, "call"));
        text += &self
            .worst(report.calls.iter().map(|row| (format!("call {}", with_name(row.number, row.name)), &row.latency)));
        let texts = ["call", "errno"].map(Column::Text);
        let numbers = ["times", "per second"].map(Column::Number);
        let columns: Vec<_> = texts.into_iter().chain(numbers).chain([Column::Text("most often")]).collect();
        let rows = self.shown(&report.failures).iter().map(|row| {
            let whose = row.groups.first().map(|of| format!("{} {}", of.group, count(of.count)));
            let rate = format!("{:.1}", row.rate_per_second);
            vec![
                with_name(row.number, row.name),
                with_name(row.errno, row.error),
                count(row.count),
                rate,
                or_none(whose),
            ]
        });
        text += &titled("Which failed", &columns, rows.collect());
        text += &more(self.shown(&report.failures).len(), report.failures_total);
        let numbers = ["made", "per second", "failed"].map(Column::Number);
        let columns = [Column::Text("call")].into_iter().chain(numbers);
        let columns: Vec<_> = columns.chain([Column::Text("most time")]).collect();
        let rows = self.shown(&report.calls).iter().map(|call| {
            let whose = call.groups.first().map(|of| format!("{} {}", of.group, span(of.time_ns)));
            let rate = format!("{:.1}", call.rate_per_second);
            row(
                [with_name(call.number, call.name), count(call.count), rate, count(call.failed), or_none(whose)],
                &call.latency,
            )
        });
        text += &titled("How long the chosen ones took", &with_latency(&columns), rows.collect());
        text += &more(self.shown(&report.calls).len(), report.calls_total);
        text + &if_any(report.others, |n| format!("  {n} of calls that were too many to keep apart\n"))
    }
}

/// What interrupted: `virtio0-requests (irq 42)`, `softirq NET_RX`, `IPI reschedule`.
fn source(source: &InterruptSource) -> String {
    match source {
        InterruptSource::Hardirq { irq, action } => format!("{} (irq {irq})", name_or(action, "unknown")),
        InterruptSource::Softirq { vector } => format!("softirq {vector}"),
        InterruptSource::Ipi { ipi } => format!("IPI {ipi}"),
    }
}

/// A number with its name, where it is known: `257 openat`.
fn with_name(number: u32, name: Option<&str>) -> String {
    name.map_or_else(|| number.to_string(), |name| format!("{number} {name}"))
}

fn name_or(name: &str, otherwise: &str) -> String {
    if name.is_empty() { otherwise.to_owned() } else { name.to_owned() }
}
