//! What the default events tell: waits, run queues, preemptions, wakers, idle CPUs, shares.

use schedtrace_core::analysis::{
    ConservationReport, DepthReport, DepthStats, FairnessReport, Latencies, LatencyReport, OutliersReport, Placement,
    PreemptionsReport, ThreadState, ThreadStatesReport, WakersReport,
};

use super::{CPUS, LATENCY, Page, decimal, if_any, or_none, row, titled, with_latency};
use crate::render::{Column, more, table};
use crate::units::{count, percent, plural, span};

impl Page<'_> {
    pub(super) fn states(&self, report: &ThreadStatesReport) -> String {
        let rows = report.total.iter().map(|total| {
            let sum = total.lasted.summary.total_ns + total.censored.wait_ns;
            row([total.state.name().to_owned(), span(sum)], &total.lasted)
        });
        let columns = with_latency(&[Column::Text("state"), Column::Number("all threads")]);
        let mut text = table(&columns, rows);
        let states: Vec<ThreadState> = report.total.iter().map(|total| total.state).collect();
        let names = states.iter().map(|state| Column::Number(state.name()));
        let columns: Vec<_> = [Column::Text(self.by.name())].into_iter().chain(names).collect();
        let rows = self.shown(&report.groups).iter().map(|group| {
            let time = |state: &ThreadState| {
                let time = group.states.iter().find(|time| time.state == *state);
                time.map_or_else(|| "-".to_owned(), |time| span(time.total_ns))
            };
            std::iter::once(group.group.to_string()).chain(states.iter().map(time)).collect()
        });
        text += &titled("Who was awake longest", &columns, rows.collect());
        text += &more(self.shown(&report.groups).len(), report.groups_total);
        let columns = [Column::Text("slept"), Column::Text("until woken by"), Column::Number("all of it")];
        let rows = self.shown(&report.wakers).iter().map(|pair| {
            let sum = span(pair.lasted.summary.total_ns);
            row([pair.sleeper.to_string(), pair.waker.to_string(), sum], &pair.lasted)
        });
        text += &titled("Who ended the longest sleeps", &with_latency(&columns), rows.collect());
        text += &more(self.shown(&report.wakers).len(), report.wakers_total);
        text + &if_any(report.others, |n| format!("  {n} among pairs that were too many to keep apart\n"))
    }

    pub(super) fn latency(&self, report: &LatencyReport) -> String {
        let total = &report.total;
        let kinds: [(&str, &Latencies); 5] = [
            ("all", &total.latency),
            ("on the CPU as before", &total.same_cpu),
            ("on another CPU", &total.migrated),
            ("until on a queue", &total.to_enqueue),
            ("on the queue", &total.on_queue),
        ];
        let rows = kinds.iter().filter(|(what, times)| *what == "all" || times.summary.count > 0);
        let mut text = self.worst([(String::new(), &total.latency)]);
        text +=
            &table(&with_latency(&[Column::Text("woken")]), rows.map(|(what, times)| row([(*what).to_owned()], times)));
        let rows = self.shown(&report.groups).iter();
        let rows = rows.map(|group| row([group.group.to_string()], &group.latency.latency));
        text += &titled("Who waited longest in all", &with_latency(&[Column::Text(self.by.name())]), rows.collect());
        text + &more(self.shown(&report.groups).len(), report.groups_total)
    }

    pub(super) fn depth(&self, report: &DepthReport) -> String {
        let total = &report.total;
        let mut text = format!(
            "  Somebody waited in {} of the time; {} tasks in the mean, {} at most.\n",
            percent(total.waiting_ratio),
            decimal(total.mean),
            total.max
        );
        let names = ["mean", "p50", "p90", "p99", "p99.9", "p99.99", "max", "somebody waited", "busy"];
        let columns: Vec<_> = [Column::Text("waiting")].into_iter().chain(names.map(Column::Number)).collect();
        let cells = |place: String, depth: &DepthStats, busy: Option<u64>| {
            let quantiles = [depth.p50, depth.p90, depth.p99, depth.p99_9, depth.p99_99, depth.max];
            let mut cells = vec![place, decimal(depth.mean)];
            cells.extend(quantiles.map(|depth| depth.to_string()));
            cells.extend([percent(depth.waiting_ratio), or_none(busy.map(span))]);
            cells
        };
        let mut rows = vec![cells("anywhere".into(), total, None)];
        let cpus = report.cpus.iter().take(CPUS);
        rows.extend(cpus.map(|row| cells(format!("CPU {}", row.place), &row.depth, Some(row.busy_ns))));
        rows.extend(report.llcs.iter().map(|row| cells(format!("LLC {}", row.place), &row.depth, Some(row.busy_ns))));
        rows.extend(report.nodes.iter().map(|row| cells(format!("node {}", row.place), &row.depth, Some(row.busy_ns))));
        text += &table(&columns, rows);
        if report.cpus.len() > CPUS {
            text += &format!("  … of {} CPUs the first {CPUS}\n", report.cpus.len());
        }
        let names = ["places", "least", "most", "mean", "variation"].map(Column::Number);
        let columns: Vec<_> = [Column::Text("load across")].into_iter().chain(names).collect();
        let rows = report.imbalance.iter().map(|row| {
            let shares = [row.least_load, row.most_load, row.mean_load].map(decimal);
            let mut cells = vec![row.across.to_owned(), row.places.to_string()];
            cells.extend(shares);
            cells.push(decimal(row.variation_ratio));
            cells
        });
        text += &titled("How unevenly the load was spread", &columns, rows.collect());
        text + &if_any(report.uncounted_ns, |_| {
            format!("  {} of waits not counted: told too late\n", span(report.uncounted_ns))
        })
    }

    pub(super) fn preemptions(&self, report: &PreemptionsReport) -> String {
        let mut text = format!(
            "  {}: {} by a higher priority, {} in kernel code; {} for want of CPU quota.\n",
            plural(report.preemptions, "preemption"),
            count(report.to_higher_priority),
            count(report.in_kernel),
            count(report.throttled)
        );
        text += &self.worst([(String::new(), &report.off_cpu)]);
        text += &table(&with_latency(&[Column::Text("until a CPU again")]), [row(["all".to_owned()], &report.off_cpu)]);
        let columns = [
            Column::Text("lost the CPU"),
            Column::Number("prio"),
            Column::Text("to"),
            Column::Number("prio"),
            Column::Number("times"),
        ];
        let rows = self.shown(&report.pairs).iter().map(|pair| {
            let whose = [pair.preempted.to_string(), pair.preempted_prio.to_string(), pair.by.to_string()];
            let [preempted, prio, by] = whose;
            row([preempted, prio, by, pair.by_prio.to_string(), count(pair.preemptions)], &pair.off_cpu)
        });
        text += &titled("Who lost most time, and to whom", &with_latency(&columns), rows.collect());
        text += &more(self.shown(&report.pairs).len(), report.pairs_total);
        text + &if_any(report.others, |n| format!("  {n} among pairs that were too many to keep apart\n"))
    }

    pub(super) fn wakers(&self, report: &WakersReport) -> String {
        let mut text = format!(
            "  {}; {} more found the task awake already.\n",
            plural(report.wakeups, "wakeup"),
            count(report.awake_already)
        );
        text += &self.worst(report.pairs.iter().map(|pair| (format!("woken by {}", pair.waker), &pair.latency)));
        let columns = [Column::Text("waker"), Column::Text("woke"), Column::Number("on the waker's CPU")];
        let rows = self.shown(&report.pairs).iter().map(|pair| {
            row([pair.waker.to_string(), pair.wakee.to_string(), count(pair.on_wakers_cpu)], &pair.latency)
        });
        text += &titled("Whose wakees waited longest in all", &with_latency(&columns), rows.collect());
        text += &more(self.shown(&report.pairs).len(), report.pairs_total);
        text += &if_any(report.others, |n| format!("  {n} among pairs that were too many to keep apart\n"));
        let names = ["same CPU", "core", "LLC", "node", "other node", "unknown", "LLC or nearer"].map(Column::Number);
        let columns: Vec<_> = [Column::Text("they ran, seen from")].into_iter().chain(names).collect();
        let cells = |from: &str, places: &Placement| {
            let counts =
                [places.same_cpu, places.core, places.llc, places.node, places.cross_node, places.unknown].map(count);
            let near = percent(places.llc_local_ratio);
            std::iter::once(from.to_owned()).chain(counts).chain([near]).collect::<Vec<_>>()
        };
        let rows = vec![cells("their last CPU", &report.placement), cells("their waker", &report.from_waker)];
        text + &titled("How far they were moved", &columns, rows)
    }

    pub(super) fn conservation(&self, report: &ConservationReport) -> String {
        let violations = &report.violations;
        let mut text = format!(
            "  {} of {} in {} ({}) while a CPU was idle where the task had run before.\n",
            span(violations.summary.total_ns),
            span(report.wait_ns),
            plural(report.waits, "wait"),
            percent(report.violated_ratio)
        );
        text += &self.worst([(String::new(), violations)]);
        text +=
            &table(&with_latency(&[Column::Text("waited beside an idle CPU")]), [row(["all".to_owned()], violations)]);
        let rows = self.shown(&report.groups).iter().map(|group| row([group.group.to_string()], &group.violations));
        text += &titled("Who lost most time so", &with_latency(&[Column::Text(self.by.name())]), rows.collect());
        text += &more(self.shown(&report.groups).len(), report.groups_total);
        let columns = [Column::Number("cpu"), Column::Number("idle meanwhile"), Column::Number("of the window")];
        let cpus = report.cpus.iter().take(CPUS);
        let rows = cpus.map(|row| vec![row.cpu.to_string(), span(row.idle_ns), self.of_window(row.idle_ns)]);
        text += &titled("Where they might have run", &columns, rows.collect());
        text + &more(report.cpus.len().min(CPUS), report.cpus.len())
    }

    pub(super) fn fairness(&self, report: &FairnessReport) -> String {
        let index = |value: Option<f64>| or_none(value.map(|value| format!("{value:.3}")));
        let mut text = format!(
            "  {} of {} competed. Jain's index {} ({} whatever their weights), Gini coefficient {} ({}).\n",
            count(report.competed as u64),
            plural(report.groups_total as u64, self.by.name()),
            index(report.jain),
            index(report.jain_unweighted),
            index(report.gini),
            index(report.gini_unweighted)
        );
        text += "  Jain's index is 1, and the Gini coefficient 0, where all got the same.\n";
        let names = ["ran", "waited", "got", "weight", "got by weight"].map(Column::Number);
        let columns: Vec<_> = [Column::Text(self.by.name())].into_iter().chain(names).collect();
        let rows = self.shown(&report.groups).iter().map(|row| {
            let weight = or_none(row.weight.map(|weight| format!("{weight:.0}")));
            let by_weight = or_none(row.got_by_weight.map(|got| format!("{got:.3}")));
            vec![row.group.to_string(), span(row.run_ns), span(row.wait_ns), percent(row.got_ratio), weight, by_weight]
        });
        text += &titled("Who got least", &columns, rows.collect());
        text + &more(self.shown(&report.groups).len(), report.competed)
    }

    pub(super) fn outliers(&self, report: &OutliersReport) -> String {
        let fences = &report.fences;
        let mut text = self.worst([(String::new(), &report.waits)]);
        text += &table(&with_latency(&[Column::Text("waits for a CPU")]), [row(["all".to_owned()], &report.waits)]);
        let columns = ["outliers", "share", "time", "share of the time"].map(Column::Number);
        let columns: Vec<_> = [Column::Text("beyond"), Column::Number("from")].into_iter().chain(columns).collect();
        let kinds = [
            ("Tukey's outer fence", fences.outer_ns, &report.far_out),
            ("3.5 median absolute deviations", fences.mad_fence_ns, &report.by_mad),
        ];
        let rows = kinds.map(|(name, from, beyond)| {
            let shares = [percent(beyond.count_ratio), percent(beyond.total_ratio)];
            let [of_waits, of_time] = shares;
            vec![name.to_owned(), span(from), count(beyond.count), of_waits, span(beyond.total_ns), of_time]
        });
        text += &titled("Waits that do not belong to the rest", &columns, rows.to_vec());
        let columns: Vec<_> =
            [Column::Text(self.by.name()), Column::Number("deviations")].into_iter().chain(LATENCY).collect();
        let rows = self.shown(&report.groups).iter();
        let rows: Vec<_> =
            rows.map(|group| row([group.group.to_string(), decimal(group.score)], &group.waits)).collect();
        if rows.is_empty() {
            let compared = plural(report.compared as u64, self.by.name());
            return text + &format!("  None of {compared} has a p99 that does not belong to the rest.\n");
        }
        text + &titled("Whose p99 does not belong to the rest", &columns, rows)
    }
}
