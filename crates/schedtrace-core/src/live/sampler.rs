//! What no program records: samples of the whole machine and of the recorder, and which scheduler is loaded. None of it
//! crosses a ring, so that none of it can be lost there, and no account is kept of it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::Sender;
use hashbrown::HashMap;

use super::probes::{Selection, sampled_from};
use super::shard::{Alarm, Chunk, Finish, Pace, now};
use crate::event::{
    Cpu, Event, EventKind, Kind, Name, NameId, Nanos, ScxLoad, ScxUnload, ShardId, TraceStarted, TraceStopped,
};
use crate::system::samples;

/// Names from here on are given by user space; the kernel counts from 1.
const FIRST_NAME: u32 = 1 << 30;

/// Makes the events of a shard of its own.
#[derive(Debug)]
pub(super) struct Sampler {
    kinds: Vec<Kind>,
    interval: Nanos,
    pid: u32,
    names: HashMap<String, NameId>,
    scheduler: Option<Scheduler>,
}

/// A scheduler of sched_ext: its name, and how often one was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Scheduler {
    name: String,
    seq: String,
}

impl Scheduler {
    /// The one that is loaded: `state`, `root/ops` and `enable_seq` below `/sys/kernel/sched_ext` (`kernel/sched/ext.c`).
    fn find(root: &Path) -> Option<Self> {
        let read = |name: &str| std::fs::read_to_string(root.join("sys/kernel/sched_ext").join(name));
        let state = read("state").ok()?;
        if state.trim() != "enabled" {
            return None;
        }
        let name = read("root/ops").unwrap_or_default().trim().to_owned();
        Some(Self { name, seq: read("enable_seq").unwrap_or_default() })
    }
}

impl Sampler {
    /// One for the kinds of a selection that are sampled; none if there are none.
    pub(super) fn new(selection: &Selection, interval: Duration, pid: u32) -> Option<Self> {
        let kinds: Vec<_> =
            Kind::ALL.into_iter().filter(|&kind| sampled_from(kind).is_some() && selection.is_on(kind)).collect();
        let interval = Nanos::from(interval).max(Nanos(1_000_000));
        (!kinds.is_empty()).then(|| Self { kinds, interval, pid, names: HashMap::new(), scheduler: None })
    }

    /// Samples from `started` until told to finish, or until nobody wants the chunks any more.
    pub(super) fn run(
        mut self,
        started: Nanos,
        pace: Arc<Pace>,
        finish: &Arc<Finish>,
        chunks: &Sender<Chunk>,
    ) -> std::io::Result<()> {
        let alarm = Alarm::new(finish, None, pace)?;
        let root = Path::new("/");
        let mut next = started;
        let mut chunk = Chunk::empty(ShardId::SYSTEM);
        self.add(&mut chunk, started, Kind::TraceStarted, TraceStarted { pid: self.pid });
        loop {
            let finishing = finish.is_told();
            // A stream ends before the moment of its end.
            let last = if finishing { Nanos(finish.ended.load(Ordering::Acquire)) - Nanos(1) } else { Nanos::MAX };
            // What was there at the beginning came then.
            let at = if next == started { started } else { now().min(last) };
            self.schedulers(&mut chunk, at, Scheduler::find(root));
            if at >= next || finishing {
                next = at + self.interval;
                self.sample(&mut chunk, last, root)?;
            }
            chunk.until = chunk.events.last().map_or(at, |event| event.ts).max(at);
            if finishing {
                self.add(&mut chunk, last, Kind::TraceStopped, TraceStopped { pid: self.pid });
            }
            if chunks.send(std::mem::replace(&mut chunk, Chunk::empty(ShardId::SYSTEM))).is_err() || finishing {
                return Ok(());
            }
            alarm.wait(next);
        }
    }

    fn add(&self, chunk: &mut Chunk, ts: Nanos, kind: Kind, what: impl Into<EventKind>) {
        if self.kinds.contains(&kind) {
            let cpu = Cpu(rustix::thread::sched_getcpu() as u16);
            chunk.events.push(Event { ts, cpu, kind: what.into() });
        }
    }

    /// The number of a name; told when it is met.
    fn name(&mut self, chunk: &mut Chunk, since: Nanos, name: String) -> NameId {
        if let Some(&known) = self.names.get(&name) {
            return known;
        }
        let id = NameId(FIRST_NAME + self.names.len() as u32);
        chunk.names.push(Name::new(id, since, name.as_bytes()));
        self.names.insert(name, id);
        id
    }

    fn schedulers(&mut self, chunk: &mut Chunk, at: Nanos, found: Option<Scheduler>) {
        if self.scheduler == found {
            return;
        }
        if let Some(gone) = self.scheduler.take() {
            let scheduler = self.name(chunk, at, gone.name);
            self.add(chunk, at, Kind::ScxUnload, ScxUnload { scheduler });
        }
        if let Some(new) = &found {
            let scheduler = self.name(chunk, at, new.name.clone());
            self.add(chunk, at, Kind::ScxLoad, ScxLoad { scheduler });
        }
        self.scheduler = found;
    }

    /// Samples all that is sampled; no event is later than `last`.
    fn sample(&mut self, chunk: &mut Chunk, last: Nanos, root: &Path) -> std::io::Result<()> {
        for kind in self.kinds.clone() {
            let mut found = Vec::new();
            samples::read(kind, root, &mut found)?;
            // Each file's numbers are of the moment at which it was read.
            let at = now().min(last);
            for (name, value) in found {
                let metric = self.name(chunk, at, name);
                // Whatever has numbers has these two fields.
                if let Some(event) = EventKind::from_values(kind, &[metric.0.into(), value as u64]) {
                    self.add(chunk, at, kind, event);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Loadavg;
    use crate::system::tests::write;

    fn sampler(kinds: &[Kind]) -> Sampler {
        Sampler { kinds: kinds.to_vec(), interval: Nanos(1), pid: 7, names: HashMap::new(), scheduler: None }
    }

    #[test]
    fn schedulers_come_and_go() {
        let root = tempfile::tempdir().unwrap();
        let set = |name: &str, text: &str| write(root.path(), &format!("sys/kernel/sched_ext/{name}"), text);
        let mut sampler = sampler(&[Kind::ScxLoad, Kind::ScxUnload]);
        let mut seen = |at| {
            let mut chunk = Chunk::empty(ShardId::SYSTEM);
            sampler.schedulers(&mut chunk, Nanos(at), Scheduler::find(root.path()));
            let names: Vec<_> = chunk.names.iter().map(|name| (name.id, name.text.to_string())).collect();
            (chunk.events.into_iter().map(|event| event.kind).collect::<Vec<_>>(), names)
        };
        assert_eq!(seen(1), (vec![], vec![]), "a kernel without sched_ext");
        set("state", "disabled\n");
        set("root/ops", "");
        set("enable_seq", "0\n");
        assert_eq!(seen(2), (vec![], vec![]));
        set("state", "enabled\n");
        set("root/ops", "simple\n");
        let scheduler = NameId(FIRST_NAME);
        assert_eq!(seen(3), (vec![ScxLoad { scheduler }.into()], vec![(scheduler, "simple".to_owned())]));
        assert_eq!(seen(4), (vec![], vec![]));
        // The same one again, between two looks.
        set("enable_seq", "1\n");
        assert_eq!(seen(5), (vec![ScxUnload { scheduler }.into(), ScxLoad { scheduler }.into()], vec![]));
        set("state", "disabled\n");
        assert_eq!(seen(6), (vec![ScxUnload { scheduler }.into()], vec![]));
    }

    #[test]
    fn a_sample_speaks_of_each_number_by_a_name_that_is_told_once() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "proc/loadavg", "0.50 0.40 0.30 1/2 3\n");
        let mut sampler = sampler(&[Kind::Loadavg, Kind::Pressure]);
        let mut chunk = Chunk::empty(ShardId::SYSTEM);
        sampler.sample(&mut chunk, Nanos::MAX, root.path()).unwrap();
        sampler.sample(&mut chunk, Nanos::MAX, root.path()).unwrap();
        assert_eq!((chunk.events.len(), chunk.names.len()), (10, 5));
        assert!(
            matches!(chunk.events[5].kind, EventKind::Loadavg(Loadavg { metric, value: 50 }) if metric == chunk.names[0].id)
        );
    }
}
