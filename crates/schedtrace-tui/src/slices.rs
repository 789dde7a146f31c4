//! A window in slices: how long tasks waited in each, in one pass.

use schedtrace_core::analysis::{Analysis, GroupBy, Options, Sched, Summary};
use schedtrace_core::{Batch, Meta, Nanos, Window};

/// What one slice of the window was like.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Slice {
    pub(crate) window: Window,
    pub(crate) wait: Summary,
    pub(crate) busy_ratio: f64,
}

/// The standard study, whose window ends at each border. A wait counts in the slice in which it ends.
#[derive(Debug)]
pub(crate) struct Slices {
    sched: Sched,
    from: Nanos,
    /// Where the slices end, but for the last one, the earliest at the end.
    borders: Vec<Nanos>,
    done: Vec<Slice>,
}

impl Slices {
    /// So many slices of a window.
    pub(crate) fn new(window: Window, count: u16) -> Self {
        let (from, length) = (window.from_ns, u128::from(window.duration_ns.0));
        let border = |at: u16| {
            let offset = length * u128::from(at) / u128::from(count.max(1));
            from + Nanos(u64::try_from(offset).unwrap_or(u64::MAX))
        };
        let mut borders: Vec<Nanos> = (1..count).rev().map(border).collect();
        borders.dedup();
        let options = Options {
            by: GroupBy::Llc,
            top: 1,
            from: Some(window.from_ns),
            until: Some(window.until_ns),
            ..Options::default()
        };
        Self { sched: Sched::new(options), from, borders, done: Vec::new() }
    }

    pub(crate) fn begin(&mut self, meta: &Meta) {
        self.sched.begin(meta);
    }

    /// Takes a batch, which is cut where a slice ends in its midst.
    pub(crate) fn update(&mut self, batch: &Batch) {
        let mut rest = None;
        while let Some(border) = self.borders.pop_if(|border| *border < batch.until) {
            let mut part = rest.unwrap_or_else(|| batch.clone());
            let later = part.events.split_off(part.events.partition_point(|event| event.ts < border));
            part.until = border;
            self.sched.update(&part);
            self.done.push(self.slice(border));
            self.sched.next_window();
            self.from = border;
            rest = Some(Batch { until: batch.until, events: later, ..Batch::default() });
        }
        self.sched.update(rest.as_ref().unwrap_or(batch));
    }

    pub(crate) fn finish(&mut self, meta: &Meta) {
        self.sched.finish(meta);
    }

    /// All of them, the one that has not ended too.
    pub(crate) fn report(&self) -> Vec<Slice> {
        let last = self.slice(self.sched.window().until_ns);
        self.done.iter().cloned().chain([last]).collect()
    }

    fn slice(&self, until: Nanos) -> Slice {
        let report = self.sched.report();
        Slice {
            window: Window::new(self.from, until.max(self.from)),
            wait: report.run_queue.total.wait,
            busy_ratio: report.cpu_time.total.utilisation_ratio,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schedtrace_core::synthetic::SyntheticHost;
    use schedtrace_core::{Poll, Source};
    use std::time::Instant;

    #[test]
    fn every_wait_is_in_one_slice() {
        let mut host = SyntheticHost::new().events(3_000).start();
        let mut batches = Vec::new();
        loop {
            match host.poll(Instant::now()).unwrap() {
                Poll::Batch(batch) => batches.push(batch),
                Poll::Idle => {}
                _ => break,
            }
        }
        let from = host.meta().started;
        let until = batches.iter().flat_map(|batch| &batch.events).map(|event| event.ts).max().unwrap() + Nanos(1);
        for count in [1, 2, 7, 100, 2_000] {
            let mut slices = Slices::new(Window::new(from, until), count);
            slices.begin(host.meta());
            batches.iter().for_each(|batch| slices.update(batch));
            slices.finish(host.meta());
            let told = slices.report();
            assert!(told.len() <= usize::from(count), "{count}: {}", told.len());
            assert_eq!(told.iter().map(|slice| slice.wait.count).sum::<u64>(), host.truth().waits, "{count}");
            assert!(told.windows(2).all(|pair| pair[0].window.until_ns == pair[1].window.from_ns));
            assert_eq!((told[0].window.from_ns, told[told.len() - 1].window.until_ns), (from, until));
        }
    }
}
