//! Perfetto traces, which <https://ui.perfetto.dev> and `trace_processor` open.
//!
//! What stands where:
//!
//! - Switches and wakings are columns (`CompactSched`), in which who leaves a CPU is who came to it before. A switch is
//!   written in full where that would be wrong: the first one of each CPU, those after a loss, and those that came late.
//! - The other events that are recorded by default are those of ftrace, and tasks are announced in process trees. Thread ids are those of the initial
//!   PID namespace; a task whose identity was lost has one beyond all that the kernel gives ([`UNKNOWN_TID`](super::UNKNOWN_TID)).
//! - All other events are track events, with their fields as arguments: what lasts is a slice, below the thread, the CPU or the
//!   disk that it belongs to; what is sampled is a counter.
//! - Times are those of `CLOCK_BOOTTIME`, which is Perfetto's own, as of the first reading of the clocks.
//! - Where events were lost, the next bundle of every CPU concerned says so (`lost_events`), and a track for each ring
//!   and kind shows between which two times, and how many.
//! - A counter for each CPU shows how many tasks wait for it, looked at every [`DEPTH_INTERVAL`].
//! - The topology stands in the names of the CPUs (`CpuInfo`).

mod cpu;
mod declared;
mod proto;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use hashbrown::HashMap;
use prost::Message;

use self::cpu::CpuStream;
use self::declared::Tracks;
use self::proto::{
    Clock, ClockSnapshot, CounterDescriptor, CpuInfo, CpuOfInfo, Data, Packet, Process, ProcessTree, SystemInfo,
    Thread, TrackDescriptor, TrackEvent, Utsname, clock, track_event,
};
use super::names::{Names, Step, steps};
use crate::analysis::states::{Observer, Seen, States, WaitEnd, Waited};
use crate::error::{Error, Result};
use crate::event::{Batch, Cpu, Event, EventKind, Kind, Loss, LossPlace, Nanos, Task};
use crate::sink::Sink;
use crate::source::Meta;
use crate::system::{self, Topology};

/// How often the run queues are looked at.
pub const DEPTH_INTERVAL: Nanos = Nanos(5_000_000);

/// All packets are of one sequence.
const SEQUENCE: u32 = 1;
/// `SEQ_INCREMENTAL_STATE_CLEARED`: what follows needs nothing from before.
const CLEARED: u32 = 1;
/// Track ids: the depth of CPU n's run queue is at `DEPTH_TRACKS + n`, and the losses behind all of them.
const DEPTH_TRACKS: u64 = 1 << 32;
const LOSS_TRACKS: u64 = 1 << 33;
/// The tag of `packet` in `Trace`, a field with a length.
const PACKET_TAG: u8 = (1 << 3) | 2;

/// Writes a Perfetto trace as batches come. Memory does not grow with the length of the stream.
///
/// ```
/// use schedtrace_core::export::perfetto::PerfettoWriter;
/// use schedtrace_core::{Batch, Meta, Sink};
///
/// let mut writer = PerfettoWriter::new(Vec::new());
/// writer.begin(&Meta::default())?;
/// writer.batch(&Batch::default())?;
/// writer.finish(&Meta::default())?;
/// assert_eq!(writer.bytes(), writer.into_inner().len() as u64);
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Debug)]
pub struct PerfettoWriter<W> {
    out: W,
    path: PathBuf,
    buffer: Vec<u8>,
    bytes: u64,
    /// What has to be added to a time of `CLOCK_MONOTONIC`; less than 0 on no machine, but in a damaged trace.
    boottime: Boottime,
    topology: Topology,
    /// The CPUs that share each ring.
    rings: HashMap<LossPlace, Vec<Cpu>>,
    cpus: BTreeMap<Cpu, CpuStream>,
    names: Names,
    states: States,
    depth: Depth,
    tracks: Tracks,
    losses: BTreeMap<(LossPlace, Option<Kind>), LossTrack>,
}

/// Maps times.
#[derive(Clone, Copy, Debug, Default)]
struct Boottime(system::ClockSnapshot);

impl Boottime {
    fn of(self, at: Nanos) -> u64 {
        self.0.boottime(at).0
    }
}

/// How many tasks wait for each CPU.
#[derive(Debug, Default)]
struct Depth {
    now: BTreeMap<Cpu, i64>,
    told: BTreeMap<Cpu, i64>,
    next: Nanos,
}

impl Observer for Depth {
    fn waited(&mut self, wait: &Waited<'_>, _: &Seen<'_>) {
        if wait.end == WaitEnd::Open {
            *self.now.entry(wait.cpu.cpu).or_default() += 1;
        }
    }
}

/// Nobody: the run queues are only looked at.
struct Unobserved;
impl Observer for Unobserved {}

#[derive(Clone, Copy, Debug)]
struct LossTrack {
    uuid: u64,
    /// Slices of a track do not overlap.
    until: Nanos,
}

impl PerfettoWriter<BufWriter<File>> {
    /// Creates a file, or empties it.
    ///
    /// ```no_run
    /// use schedtrace_core::export::perfetto::PerfettoWriter;
    /// let mut writer = PerfettoWriter::create("run.pftrace")?;
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] if that is refused.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let file = File::create(&path).map_err(Error::io("cannot create", &path))?;
        let mut writer = Self::new(BufWriter::with_capacity(1 << 18, file));
        writer.path = path.as_ref().to_owned();
        Ok(writer)
    }
}

impl<W: Write> PerfettoWriter<W> {
    /// Writes into anything; a buffer helps.
    ///
    /// ```
    /// use schedtrace_core::export::perfetto::PerfettoWriter;
    /// let writer = PerfettoWriter::new(std::io::BufWriter::new(std::io::stdout()));
    /// ```
    pub fn new(out: W) -> Self {
        Self {
            out,
            path: "the Perfetto trace".into(),
            buffer: Vec::new(),
            bytes: 0,
            boottime: Boottime::default(),
            topology: Topology::default(),
            rings: HashMap::new(),
            cpus: BTreeMap::new(),
            names: Names::default(),
            states: States::default(),
            depth: Depth::default(),
            tracks: Tracks::default(),
            losses: BTreeMap::new(),
        }
    }

    /// How many bytes were written.
    ///
    /// ```
    /// use schedtrace_core::export::perfetto::PerfettoWriter;
    /// assert_eq!(PerfettoWriter::new(Vec::new()).bytes(), 0);
    /// ```
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What it wrote into.
    ///
    /// ```
    /// use schedtrace_core::export::perfetto::PerfettoWriter;
    /// use schedtrace_core::{Meta, Sink};
    ///
    /// let mut writer = PerfettoWriter::new(Vec::new());
    /// writer.begin(&Meta::default())?;
    /// writer.finish(&Meta::default())?;
    /// let bytes = writer.bytes();
    /// assert_eq!(writer.into_inner().len() as u64, bytes);
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    pub fn into_inner(self) -> W {
        self.out
    }

    fn packet(&mut self, at: Option<Nanos>, data: Data) -> Result<()> {
        // Only the first packet begins anew.
        let sequence_flags = (self.bytes == 0).then_some(CLEARED);
        let timestamp = at.map(|at| self.boottime.of(at));
        let packet = Packet { timestamp, trusted_packet_sequence_id: SEQUENCE, sequence_flags, data: Some(data) };
        self.buffer.clear();
        self.buffer.push(PACKET_TAG);
        // A vector takes all that is written to it.
        let _ = packet.encode_length_delimited(&mut self.buffer);
        self.bytes += self.buffer.len() as u64;
        self.out.write_all(&self.buffer).map_err(Error::io("cannot write", &self.path))
    }

    fn clocks(&mut self, snapshot: system::ClockSnapshot) -> Result<()> {
        let clocks = [
            (clock::BOOTTIME, snapshot.boottime_ns),
            (clock::MONOTONIC, snapshot.monotonic_ns),
            (clock::REALTIME, snapshot.realtime_ns),
        ];
        let clocks = clocks.map(|(id, at)| Clock { clock_id: Some(id), timestamp: Some(at.0) }).to_vec();
        let primary_trace_clock = Some(clock::BOOTTIME.cast_signed());
        self.packet(Some(snapshot.monotonic_ns), Data::ClockSnapshot(ClockSnapshot { clocks, primary_trace_clock }))
    }

    fn system(&mut self, meta: &Meta) -> Result<()> {
        let host = &meta.host;
        let utsname = Utsname {
            sysname: Some("Linux".into()),
            release: Some(host.kernel.clone()),
            machine: Some(host.machine.clone()),
        };
        self.packet(
            None,
            Data::SystemInfo(SystemInfo {
                utsname: Some(utsname),
                tracing_service_version: Some(concat!("schedtrace ", env!("CARGO_PKG_VERSION")).into()),
                num_cpus: Some(meta.topology.cpus.len() as u32),
                machine_name: Some(host.hostname.clone()),
            }),
        )?;
        let last = meta.topology.cpus.last();
        let cpus = last.into_iter().flat_map(|last| 0..=last.cpu.0).map(Cpu).map(|cpu| {
            let processor = match meta.topology.get(cpu) {
                Some(info) => format!("core {}, LLC {}, node {}", info.core, info.llc, info.node),
                None => "absent".into(),
            };
            CpuOfInfo { processor: Some(processor) }
        });
        self.packet(None, Data::CpuInfo(CpuInfo { cpus: cpus.collect() }))
    }

    /// Names a task from now on.
    fn announce(&mut self, task: &Task) -> Result<()> {
        if !self.names.take(task) {
            return Ok(());
        }
        let mut tree = ProcessTree::default();
        let (tid, tgid) = (task.tid.cast_signed(), task.tgid.cast_signed());
        if task.tid == task.tgid {
            tree.processes.push(Process {
                pid: Some(tgid),
                ppid: Some(task.ppid.cast_signed()),
                cmdline: vec![task.comm.to_string()],
                process_start_from_boot: Some(self.boottime.of(task.start)),
                is_kthread: Some(task.kernel),
                cmdline_is_comm: Some(true),
            });
        }
        tree.threads.push(Thread { tid: Some(tid), name: Some(task.comm.to_string()), tgid: Some(tgid) });
        self.packet(Some(task.since), Data::ProcessTree(tree))
    }

    /// Marks the CPUs of which events were lost, and shows when and how many.
    fn lost(&mut self, loss: &Loss) -> Result<()> {
        // Of what is written as track events, a bundle knows nothing.
        let of_bundles = loss.kind.is_none_or(|kind| kind.fields().is_empty());
        match self.rings.get(&loss.place) {
            _ if !of_bundles => {}
            Some(cpus) if !cpus.is_empty() => cpus.iter().for_each(|&cpu| self.cpus.entry(cpu).or_default().lose()),
            // Of any CPU.
            _ => self.cpus.values_mut().for_each(CpuStream::lose),
        }
        let key = (loss.place.clone(), loss.kind);
        let track = match self.losses.get(&key) {
            Some(track) => *track,
            None => {
                let uuid = LOSS_TRACKS + self.losses.len() as u64;
                let kind = loss.kind.map_or("events", Kind::name);
                let name = Some(format!("lost {kind} ({})", loss.place));
                self.packet(
                    None,
                    Data::TrackDescriptor(TrackDescriptor { uuid: Some(uuid), name, ..TrackDescriptor::default() }),
                )?;
                LossTrack { uuid, until: Nanos::ZERO }
            }
        };
        let from = loss.from.max(track.until);
        let until = loss.until.max(from);
        self.losses.insert(key, LossTrack { until, ..track });
        let event = |kind| TrackEvent { r#type: Some(kind), track_uuid: Some(track.uuid), ..TrackEvent::default() };
        let name = Some(format!("{} lost", loss.count));
        let begin = TrackEvent { name, categories: vec!["loss".into()], ..event(track_event::SLICE_BEGIN) };
        self.packet(Some(from), Data::TrackEvent(begin))?;
        self.packet(Some(until), Data::TrackEvent(event(track_event::SLICE_END)))
    }

    /// Looks at the run queues, if it is time.
    fn look(&mut self, until: Nanos) -> Result<()> {
        if until < self.depth.next {
            return Ok(());
        }
        self.depth.next = until + DEPTH_INTERVAL;
        self.depth.now.values_mut().for_each(|depth| *depth = 0);
        self.states.open(&mut self.depth);
        let changed = self.depth.now.iter().filter(|(cpu, depth)| self.depth.told.get(*cpu) != Some(*depth));
        for (cpu, depth) in changed.map(|(cpu, depth)| (*cpu, *depth)).collect::<Vec<_>>() {
            let uuid = DEPTH_TRACKS + u64::from(cpu.0);
            if self.depth.told.insert(cpu, depth).is_none() {
                let name = Some(format!("CPU {cpu} waiting tasks"));
                let counter = Some(CounterDescriptor { unit_name: Some("tasks".into()) });
                self.packet(
                    None,
                    Data::TrackDescriptor(TrackDescriptor {
                        uuid: Some(uuid),
                        name,
                        counter,
                        ..TrackDescriptor::default()
                    }),
                )?;
            }
            let event = TrackEvent {
                r#type: Some(track_event::COUNTER),
                track_uuid: Some(uuid),
                counter_value: Some(depth),
                ..TrackEvent::default()
            };
            self.packet(Some(until), Data::TrackEvent(event))?;
        }
        Ok(())
    }

    /// Takes an event in its order.
    fn event(&mut self, event: &Event) -> Result<()> {
        if self.states.now() >= self.depth.next {
            self.look(self.states.now())?;
        }
        self.states.event(event, &mut Unobserved);
        self.write(event, false)?;
        if let EventKind::Free { task } = event.kind {
            self.names.free(task);
        }
        Ok(())
    }

    fn write(&mut self, event: &Event, late: bool) -> Result<()> {
        if event.kind.kind().fields().is_empty() {
            self.cpus.entry(event.cpu).or_default().event(event, &self.names, self.boottime, late);
            return Ok(());
        }
        let mut packets = Vec::new();
        self.tracks.event(event, &self.names, &mut packets);
        packets.into_iter().try_for_each(|(at, data)| self.packet(at, data))
    }

    /// Writes what the CPUs have gathered.
    fn flush(&mut self) -> Result<()> {
        let bundles: Vec<_> = self.cpus.iter_mut().filter_map(|(cpu, stream)| stream.take(*cpu)).collect();
        bundles.into_iter().try_for_each(|bundle| self.packet(None, Data::FtraceEvents(bundle)))
    }
}

impl<W: Write> Sink for PerfettoWriter<W> {
    fn begin(&mut self, meta: &Meta) -> Result<()> {
        self.boottime = Boottime(meta.clocks.first().copied().unwrap_or_default());
        self.topology = meta.topology.clone();
        self.rings = meta.rings.iter().map(|ring| (LossPlace::Ring(ring.shard), ring.cpus.clone())).collect();
        self.states.begin(meta);
        self.depth.now = self.topology.online().into_iter().map(|cpu| (cpu, 0)).collect();
        self.depth.next = meta.started;
        self.system(meta)?;
        meta.clocks.first().map_or(Ok(()), |clocks| self.clocks(*clocks))
    }

    fn batch(&mut self, batch: &Batch) -> Result<()> {
        batch.lost.iter().try_for_each(|loss| self.lost(loss))?;
        self.states.read(batch);
        let due = self.names.due(batch);
        for step in steps(&due, batch) {
            match step {
                Step::Task(task) => self.announce(task)?,
                Step::Event(event) => self.event(event)?,
                Step::Late(event) => self.write(event, true)?,
            }
        }
        self.states.advance(batch.until);
        self.flush()?;
        self.names.forget();
        Ok(())
    }

    fn finish(&mut self, meta: &Meta) -> Result<()> {
        if let Some(clocks) = meta.clocks.get(1..).and_then(<[_]>::last) {
            self.clocks(*clocks)?;
        }
        self.out.flush().map_err(Error::io("cannot write", &self.path))
    }
}

#[cfg(test)]
mod tests;
