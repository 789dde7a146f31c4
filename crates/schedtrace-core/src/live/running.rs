//! A running collector: shards in threads, merged by whoever polls.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use hashbrown::{HashMap, HashSet};

use super::builder::{Attached, CollectorBuilder, Loaded};
use super::capabilities::Capabilities;
use super::decode::{Counters, Decoder, Nameless, PerKind};
use super::kernel::Programs;
use super::ledger::Ledger;
use super::probes;
use super::shard::{Chunk, Finish, Pace, Shard, now};
use crate::error::{Error, Result};
use crate::event::{Batch, Cgroup, CgroupId, Event, Kind, Loss, LossPlace, Name, Nanos, ShardId, Task};
use crate::merge::Merge;
use crate::source::{Meta, Poll, Probe, Source};
use crate::system::{Cgroups, ClockSnapshot};

/// How many chunks may wait for the merge. A slow consumer is felt by the shards after this many each, and then by the
/// rings, which count what they lose.
const CHUNKS_PER_SHARD: usize = 2;
/// About how many events a batch has at most: so that a queue of batches takes bounded memory (1 MiB each).
const EVENTS_PER_BATCH: usize = 1 << 15;
/// How often the kernel is asked which programs it skipped because they would have nested.
const NESTED_CHECK: Nanos = Nanos(1_000_000_000);

/// Records the running kernel. A [`Source`] in time order; see the [module](super) for its life.
///
/// ```no_run
/// use std::time::{Duration, Instant};
/// use schedtrace_core::{live::Collector, Poll, Source};
///
/// let mut collector = Collector::builder().start()?;
/// let stopper = collector.stopper();
/// std::thread::spawn(move || {
///     std::thread::sleep(Duration::from_secs(1));
///     stopper.stop();
/// });
/// loop {
///     match collector.poll(Instant::now() + Duration::from_millis(100))? {
///         Poll::Batch(batch) => println!("{} events until {}", batch.events.len(), batch.until),
///         Poll::Idle => {}
///         Poll::End => break,
///     }
/// }
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Collector {
    // Dropped first: the programs stop before those who read what they write.
    programs: Programs,
    shards: Shards,
    meta: Meta,
    merge: Merge<Event>,
    held: Held,
    ledger: Ledger,
    nested: Nested,
    ends: Option<Instant>,
    phase: Phase,
    /// How far the last batch came.
    until: Nanos,
}

/// Ends a [`Collector`] from another thread.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<Finish>);

impl Stopper {
    /// The collector detaches its programs at its next poll, delivers what is in the rings, and ends.
    pub fn stop(&self) {
        self.0.ask();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// Detached; the rings are read to their end.
    Draining,
    Ended,
}

impl Collector {
    /// Options, each with a default.
    pub fn builder() -> CollectorBuilder {
        CollectorBuilder::default()
    }

    /// What this process can record on this kernel, what not, why, and what would help. Never fails: that nothing can
    /// be recorded is an answer too.
    #[must_use]
    pub fn capabilities() -> Capabilities {
        Capabilities::find()
    }

    /// A handle that ends the recording.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.shards.finish))
    }

    /// When it ends by itself, if it does ([`CollectorBuilder::duration`]).
    #[must_use]
    pub fn ends(&self) -> Option<Instant> {
        self.ends
    }

    fn is_over(&self) -> bool {
        self.shards.finish.is_asked() || self.ends.is_some_and(|ends| Instant::now() >= ends)
    }

    fn detach(&mut self) -> Result<()> {
        self.programs.enable(false)?;
        self.programs.detach();
        let ended = now();
        self.meta.ended = Some(ended);
        self.meta.clocks.push(ClockSnapshot::now());
        self.shards.finish.tell(ended);
        self.phase = Phase::Draining;
        Ok(())
    }

    /// Takes one chunk in.
    fn take(&mut self, chunk: Chunk) {
        let Chunk { shard, until, events, tasks, names, lost, full, delivered } = chunk;
        self.held.tasks.extend(tasks);
        self.held.names.extend(names);
        self.held.lost.extend(lost);
        self.ledger.delivered(shard, &delivered);
        for ring in full {
            self.ledger.lost(ring.cpu, ring.totals, ring.from, ring.until, &mut self.held.lost);
        }
        self.merge.push(shard, events, until);
    }

    /// The next batch, if time has come on.
    fn batch(&mut self) -> Option<Batch> {
        let mut batch = Batch::default();
        batch.until = self.merge.drain_at_most(EVENTS_PER_BATCH, &mut batch.events, &mut batch.late)?;
        self.nested.check(NESTED_CHECK, || self.programs.nested(), &mut self.held.lost);
        let last = batch.until == Nanos::MAX;
        self.held.release(&mut batch);
        if last {
            // The rings were read until after the end, so time may have come further than it.
            batch.until = self.meta.ended.unwrap_or_else(now).max(self.until);
        }
        self.until = batch.until;
        Some(batch)
    }

    /// Every ring was read to its end: adds what only the counters know.
    fn settle(&mut self) -> Result<()> {
        self.shards.join()?;
        let counters = self.programs.counters()?;
        for Counters { cpu, lost, untold: (from, until), .. } in &counters {
            // What was told already has its time set to 0.
            let from = if *from == Nanos::ZERO { self.meta.started } else { *from };
            self.ledger.lost(*cpu, *lost, from, *until, &mut self.held.lost);
        }
        self.nested.check(Nanos::ZERO, || self.programs.nested(), &mut self.held.lost);
        let kinds: Vec<_> = self.programs.kinds().into_iter().chain([Kind::Identity]).collect();
        self.meta.accounts = self.ledger.accounts(&counters, &kinds);
        self.shards.ids.iter().for_each(|&shard| self.merge.close(shard));
        Ok(())
    }
}

impl Source for Collector {
    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn poll(&mut self, deadline: Instant) -> Result<Poll> {
        loop {
            if let Some(batch) = self.batch() {
                return Ok(Poll::Batch(batch));
            }
            if self.phase == Phase::Ended {
                return Ok(Poll::End);
            }
            if self.phase == Phase::Running {
                if self.is_over() {
                    self.detach()?;
                } else if self.shards.any_ended() {
                    self.detach()?;
                    self.shards.join()?;
                }
            }
            let wake = self.ends.filter(|_| self.phase == Phase::Running).map_or(deadline, |ends| ends.min(deadline));
            match self.shards.chunks.recv_deadline(wake) {
                Ok(chunk) => self.take(chunk),
                Err(RecvTimeoutError::Timeout) if Instant::now() >= deadline => return Ok(Poll::Idle),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.phase = Phase::Ended;
                    self.settle()?;
                }
            }
        }
    }
}

/// The threads that read the rings.
#[derive(Debug)]
struct Shards {
    ids: Vec<ShardId>,
    chunks: Receiver<Chunk>,
    finish: Arc<Finish>,
    threads: Vec<JoinHandle<std::io::Result<()>>>,
}

impl Shards {
    fn any_ended(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    fn join(&mut self) -> Result<()> {
        let failed = |why: String| Error::Bpf { step: "reading a ring".into(), why };
        self.threads.drain(..).try_for_each(|thread| match thread.join() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed("its thread panicked, which is a bug in schedtrace".into())),
        })
    }
}

impl Drop for Shards {
    fn drop(&mut self) {
        self.finish.tell(now());
        // A shard that waits for room in the channel sees that nobody takes from it any more.
        self.chunks = crossbeam_channel::never();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// What waits for its time, or for the next batch.
#[derive(Debug)]
struct Held {
    tasks: Vec<Task>,
    names: Vec<Name>,
    lost: Vec<Loss>,
    cgroups: Option<Cgroups>,
    named: HashSet<CgroupId>,
    /// Cgroups without a path yet, and how long it is worth looking for them.
    nameless: HashMap<CgroupId, Instant>,
}

impl Held {
    /// A cgroup that a scan did not find after this long is gone.
    const LOOK_FOR: Duration = Duration::from_secs(2);

    /// Moves identities and names that hold before the end of `batch`, and all losses, into it.
    fn release(&mut self, batch: &mut Batch) {
        let until = batch.until;
        let (now, later): (Vec<_>, Vec<_>) = self.tasks.drain(..).partition(|task| task.since < until);
        self.tasks = later;
        batch.tasks = now;
        batch.tasks.sort_by_key(|task| task.since);
        batch.names = self.names.extract_if(.., |name| name.since < until).collect();
        batch.lost = std::mem::take(&mut self.lost);
        self.name_cgroups(batch);
    }

    fn name_cgroups(&mut self, batch: &mut Batch) {
        let Some(cgroups) = &mut self.cgroups else { return };
        let now = Instant::now();
        for id in batch.tasks.iter().map(|task| task.cgroup).filter(|id| !self.named.contains(id)) {
            self.nameless.entry(id).or_insert(now + Self::LOOK_FOR);
        }
        self.nameless.retain(|&id, &mut until| match cgroups.path_of(id, now) {
            Some(path) => {
                self.named.insert(id);
                batch.cgroups.push(Cgroup { id, path });
                false
            }
            None if now < until => true,
            None => {
                self.named.insert(id);
                false
            }
        });
    }
}

/// Runs of programs that the kernel skipped, because they would have interrupted themselves.
#[derive(Debug)]
struct Nested {
    told: PerKind,
    since: Nanos,
}

impl Nested {
    /// Asks for the totals if the last answer is so old, and tells what is new.
    fn check(&mut self, interval: Nanos, totals: impl FnOnce() -> Option<PerKind>, out: &mut Vec<Loss>) {
        let now = now();
        if now - self.since < interval {
            return;
        }
        let Some(totals) = totals() else { return };
        for (kind, (&total, told)) in Kind::ALL.into_iter().zip(totals.iter().zip(&mut self.told)) {
            if total > *told {
                let count = total - *told;
                out.push(Loss { place: LossPlace::Nested, kind: Some(kind), count, from: self.since, until: now });
                *told = total;
            }
        }
        self.since = now;
    }
}

/// Lists the tasks and attaches; starts no thread.
pub(super) fn attach(loaded: Loaded) -> Result<Attached> {
    let Loaded { mut programs, mut meta, shard_of, drain_interval, duration, sampler } = loaded;
    let decoder = Decoder::new(Arc::new(Nameless::default()), std::process::id());
    let (tasks, _) = decoder.listing(&programs.list_tasks()?);
    if !programs.check_preempt_count()? {
        let note = "this kernel does not say whether a waking came from an interrupt: its waker is the current task";
        for probe in meta.probes.iter_mut().filter(|probe| probe.kind == Kind::Waking && probe.on) {
            probe.why = Some(note.into());
        }
    }
    if programs.nested().is_none() {
        let note = "the kernel does not say how often it skipped the program: such a loss would go unseen";
        for probe in meta.probes.iter_mut().filter(|probe| probe.on) {
            probe.why.get_or_insert_with(|| note.into());
        }
    }
    for (program, why) in programs.attach()? {
        let of_program = |probe: &&mut Probe| program.kinds.first() == Some(&probe.kind);
        meta.probes.iter_mut().filter(of_program).for_each(|probe| probes::refuse(probe, &why));
    }
    Ok(Attached { programs, meta, shard_of, drain_interval, duration, sampler, decoder, tasks })
}

/// Lets the programs record, lists what each task is doing, and sets the shards going.
pub(super) fn start(attached: Attached) -> Result<Collector> {
    let Attached { mut programs, mut meta, shard_of, drain_interval, duration, sampler, decoder, .. } = attached;
    let mut before = attached.tasks;
    if !meta.filters.pids.is_empty() {
        // Listing is what selects tasks, and those that descend from the processes must be selected before the start.
        // Some may have come since the programs were attached.
        (before, _) = decoder.listing(&programs.list_tasks()?);
        programs.follow(descendants(&before, &meta.filters.pids))?;
        (before, _) = decoder.listing(&programs.list_tasks()?);
    }
    meta.clocks.push(ClockSnapshot::now());
    meta.started = now();
    programs.enable(true)?;
    // A time that no clock can show is never over.
    let ends = duration.and_then(|duration| Instant::now().checked_add(duration));
    // Once more: what each is doing now, and who came in between.
    let (after, snapshot) = decoder.listing(&programs.list_tasks()?);

    let finish = Finish::new().map(Arc::new).map_err(failed_to_start)?;
    let rings = programs.records()?;
    // Identity and lifecycle come first among events of one time.
    let mut ids: Vec<_> = rings.iter().rev().map(|(shard, ..)| *shard).collect();
    ids.extend(sampler.as_ref().map(|_| ShardId::SYSTEM));
    let mut merge = Merge::new(ids.iter().copied());
    merge.push(ShardId::LIFECYCLE, snapshot, meta.started);
    let (sender, chunks) = crossbeam_channel::bounded(CHUNKS_PER_SHARD * rings.len());
    let pace = Arc::new(Pace::new(drain_interval));
    let mut shards = Shards { ids, chunks, finish, threads: Vec::new() };
    for (id, records, wakes) in rings {
        let (decoder, finish) = (decoder.clone(), Arc::clone(&shards.finish));
        let shard = Shard { id, records, wakes, decoder, finish, pace: Arc::clone(&pace) };
        let name = if id == ShardId::LIFECYCLE { "st-lifecycle".into() } else { format!("st-shard-{}", id.0) };
        let sender = sender.clone();
        let thread = std::thread::Builder::new().name(name).spawn(move || shard.run(&sender));
        shards.threads.push(thread.map_err(failed_to_start)?);
    }
    if let Some(sampler) = sampler {
        let (finish, started) = (Arc::clone(&shards.finish), meta.started);
        let thread = std::thread::Builder::new().name("st-sampler".into());
        let thread = thread.spawn(move || sampler.run(started, pace, &finish, &sender));
        shards.threads.push(thread.map_err(failed_to_start)?);
    } else {
        // The channel ends with the last shard.
        drop(sender);
    }
    let cgroups = Cgroups::find(Path::new("/")).ok();
    let tasks = newest(before.into_iter().chain(after));
    Ok(Collector {
        nested: Nested { told: [0; Kind::COUNT], since: meta.started },
        held: Held {
            tasks,
            names: Vec::new(),
            lost: Vec::new(),
            cgroups,
            named: HashSet::new(),
            nameless: HashMap::new(),
        },
        ledger: Ledger::new(shard_of),
        ends,
        phase: Phase::Running,
        until: Nanos::ZERO,
        programs,
        shards,
        meta,
        merge,
    })
}

fn failed_to_start(error: std::io::Error) -> Error {
    Error::Bpf { step: "starting the readers of the rings".into(), why: error.to_string() }
}

/// One identity per task: the one listed last, holding from before the recording began.
fn newest(listed: impl Iterator<Item = Task>) -> Vec<Task> {
    let mut tasks: HashMap<_, Task> = HashMap::new();
    for task in listed {
        let since = tasks.get(&task.id).map_or(task.since, |known| known.since);
        tasks.insert(task.id, Task { since, ..task });
    }
    tasks.into_values().collect()
}

/// The processes that descend from `roots`, by the parents that the tasks have now.
fn descendants(tasks: &[Task], roots: &[u32]) -> HashSet<u32> {
    let mut found: HashSet<u32> = roots.iter().copied().collect();
    if found.is_empty() {
        return found;
    }
    loop {
        let before = found.len();
        let children = tasks.iter().filter(|task| found.contains(&task.ppid)).map(|task| task.tgid);
        let children: Vec<_> = children.collect();
        found.extend(children);
        if found.len() == before {
            return found;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Cpu, TaskId};

    fn task(id: u32, tgid: u32, ppid: u32) -> Task {
        Task { id: TaskId(id), tid: tgid, tgid, ppid, ..Task::idle(Cpu(0)) }
    }

    #[test]
    fn descendants_are_found_in_any_order() {
        let tasks = [task(1, 40, 30), task(2, 30, 20), task(3, 20, 10), task(4, 50, 1)];
        let mut found: Vec<_> = descendants(&tasks, &[20]).into_iter().collect();
        found.sort_unstable();
        assert_eq!(found, [20, 30, 40]);
        assert!(descendants(&tasks, &[]).is_empty());
    }

    #[test]
    fn skipped_runs_are_told_once_with_their_time() {
        let mut nested = Nested { told: [0; Kind::COUNT], since: Nanos(5) };
        let mut totals = [0; Kind::COUNT];
        totals[Kind::Waking as usize] = 3;
        let mut out = Vec::new();
        nested.check(Nanos::MAX, || unreachable!("it was asked a moment ago"), &mut out);
        nested.check(Nanos::ZERO, || None, &mut out);
        nested.check(Nanos::ZERO, || Some(totals), &mut out);
        let told_until = nested.since;
        nested.check(Nanos::ZERO, || Some(totals), &mut out);
        totals[Kind::Waking as usize] = 4;
        nested.check(Nanos::ZERO, || Some(totals), &mut out);
        let told: Vec<_> = out.iter().map(|l| (l.place.clone(), l.kind, l.count)).collect();
        assert_eq!(told, [(LossPlace::Nested, Some(Kind::Waking), 3), (LossPlace::Nested, Some(Kind::Waking), 1)]);
        assert!(out[0].from == Nanos(5) && out[0].until == told_until && out[1].from >= told_until);
    }

    #[test]
    fn a_task_that_is_listed_twice_has_its_newest_name_from_the_first_time_on() {
        let first = Task { since: Nanos(5), ..task(1, 2, 3) };
        let second = Task { since: Nanos(9), comm: crate::event::Comm::new("new"), ..first };
        assert_eq!(newest([first, second].into_iter()), [Task { since: Nanos(5), ..second }]);
    }
}
