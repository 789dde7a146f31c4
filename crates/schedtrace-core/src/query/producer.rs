//! Rows that are made while a query runs: of the events of a stream, by the state machine that all analyses stand on.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringViewBuilder};
use arrow::compute::cast;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::error::{DataFusionError, Result as DfResult};
use hashbrown::HashMap;
use tokio::sync::mpsc::Sender;

use super::bounds::Bounds;
use super::origin::{Origin, drain};
use super::tables::Build;
use crate::analysis::states::{Observer, Ran, Seen, Slept, Span, States, Waited};
use crate::error::{Error, Result};
use crate::event::{Batch, Comm, Cpu, Nanos, TaskId};
use crate::source::Meta;

/// Rows of a record batch.
pub(super) const ROWS_PER_BATCH: usize = 8192;
/// What all idle tasks are called: they are one.
pub(super) const IDLE: &str = "swapper";
/// How many batches of events are read ahead.
const AHEAD: usize = 8;

/// Where finished record batches go; whoever waits for them may have left.
pub(super) struct Out {
    schema: SchemaRef,
    /// The table's own columns that are wanted, in ascending order.
    own: Vec<usize>,
    /// What is put together of a batch's columns and of what says which trace it is of.
    layout: Vec<Slot>,
    sender: Sender<DfResult<RecordBatch>>,
    left: bool,
}

/// A column.
enum Slot {
    /// The table's own: its place among those that are sent.
    Own(usize),
    /// The same text in every row.
    Text(String),
}

impl Out {
    /// Of a table that has `own` columns, those that are `wanted`; what is beyond them says of which trace a row is.
    pub(super) fn new(
        schema: SchemaRef,
        sender: Sender<DfResult<RecordBatch>>,
        wanted: &[usize],
        own: usize,
        origin: &Origin,
    ) -> Self {
        let sent: Vec<usize> =
            wanted.iter().copied().filter(|at| *at < own).collect::<BTreeSet<_>>().into_iter().collect();
        let slot = |&at: &usize| match at.checked_sub(own) {
            None => Slot::Own(sent.partition_point(|other| *other < at)),
            Some(0) => Slot::Text(origin.host.clone()),
            Some(_) => Slot::Text(origin.path.clone()),
        };
        let layout = wanted.iter().map(slot).collect();
        Self { schema, own: sent, layout, sender, left: false }
    }

    /// The table's own columns that are wanted, in ascending order: those of the batches that are sent.
    pub(super) fn own(&self) -> &[usize] {
        &self.own
    }

    /// Nobody waits for more.
    pub(super) fn is_left(&self) -> bool {
        self.left
    }

    /// Sends a batch of the columns that [`own`](Self::own) names.
    pub(super) fn send(&mut self, batch: DfResult<RecordBatch>) {
        let batch = batch.and_then(|batch| self.lay_out(&batch));
        self.left |= self.sender.blocking_send(batch).is_err();
    }

    fn lay_out(&self, batch: &RecordBatch) -> DfResult<RecordBatch> {
        let columns = self.layout.iter().zip(self.schema.fields()).map(|(slot, field)| match slot {
            Slot::Own(at) => {
                let column = batch.columns().get(*at);
                let column = column.ok_or_else(|| DataFusionError::Internal("a column is missing".into()))?;
                // What is in flight has plain texts.
                Ok(cast(column, field.data_type())?)
            }
            Slot::Text(text) => {
                let mut builder = StringViewBuilder::new().with_deduplicate_strings();
                (0..batch.num_rows()).for_each(|_| builder.append_value(text));
                Ok(Arc::new(builder.finish()) as ArrayRef)
            }
        });
        let columns = columns.collect::<DfResult<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }
}

/// Rows on their way out.
pub(super) struct Rows<C> {
    pub(super) columns: C,
    /// That of the columns which are made.
    schema: SchemaRef,
    out: Out,
}

impl<C: Build> Rows<C> {
    pub(super) fn new(out: Out) -> Self {
        // Every number is one of the table's.
        let schema = C::schema().project(out.own()).unwrap_or_else(|_| Schema::empty());
        Self { columns: C::of(out.own()), schema: Arc::new(schema), out }
    }

    /// To be called after each row.
    #[inline]
    pub(super) fn added(&mut self) {
        if self.columns.rows() >= ROWS_PER_BATCH {
            self.flush();
        }
    }

    /// Nobody waits for more.
    pub(super) fn is_left(&self) -> bool {
        self.out.is_left()
    }

    pub(super) fn flush(&mut self) {
        if self.columns.rows() > 0 {
            let batch = self.columns.take(Arc::clone(&self.schema));
            self.out.send(batch.map_err(DataFusionError::from));
        }
    }
}

/// The names of tasks as text. A name's text is made once.
#[derive(Debug, Default)]
struct Labels {
    texts: Vec<Box<str>>,
    by_task: HashMap<TaskId, (Comm, u32)>,
    by_comm: HashMap<Comm, u32>,
}

/// Who a task is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who {
    pub(super) utid: i64,
    pub(super) tid: Option<u32>,
    pub(super) pid: Option<u32>,
    label: u32,
}

/// About so many names are remembered; then they are forgotten, and made again.
const MAX_LABELS: usize = 1 << 16;

impl Labels {
    fn of(&mut self, id: TaskId, comm: Option<Comm>) -> u32 {
        let unknown = Comm::default();
        let key = comm.unwrap_or(unknown);
        if let Some(&(known, label)) = self.by_task.get(&id)
            && known == key
        {
            return label;
        }
        let next = self.texts.len() as u32;
        let label = match comm {
            Some(comm) => *self.by_comm.entry(comm).or_insert(next),
            None => next,
        };
        if label == next {
            self.texts.push(comm.map_or_else(|| format!("<task {}>", id.0), |comm| comm.to_string()).into());
        }
        self.by_task.insert(id, (key, label));
        label
    }
}

/// What makers of rows need to know besides the state machine.
pub(super) struct Maker<C> {
    pub(super) rows: Rows<C>,
    pub(super) origin: Origin,
    pub(super) bounds: Bounds,
    /// When the recording began: what began then may have begun before.
    pub(super) started: Nanos,
    /// What is told now has not ended.
    pub(super) at_end: bool,
    any_task: bool,
    any_time: bool,
    labels: Labels,
}

impl<C: Build> Maker<C> {
    pub(super) fn new(rows: Rows<C>, origin: Origin, bounds: Bounds) -> Self {
        let any_task = bounds.any_task();
        let any_time = bounds.from.is_none() && bounds.until.is_none();
        Self {
            rows,
            origin,
            bounds,
            started: Nanos::ZERO,
            at_end: false,
            any_task,
            any_time,
            labels: Labels::default(),
        }
    }

    /// Who a task is, as far as it is known now.
    pub(super) fn who(&mut self, id: TaskId, seen: &Seen<'_>) -> Who {
        if id.is_idle() {
            let label = self.labels.of(TaskId::idle(Cpu(0)), Some(Comm::new(IDLE)));
            return Who { utid: self.origin.utid(id), tid: Some(0), pid: Some(0), label };
        }
        let task = seen.tasks.get(id);
        let label = self.labels.of(id, task.map(|task| task.comm));
        Who { utid: self.origin.utid(id), tid: task.map(|task| task.tid), pid: task.map(|task| task.tgid), label }
    }

    /// Forgets names, if they are too many. Whoever a task was is to be asked for again.
    fn trim(&mut self) {
        if self.labels.texts.len() >= MAX_LABELS {
            self.labels = Labels::default();
        }
    }

    /// The rows, and the texts of names.
    pub(super) fn parts(&mut self) -> (&mut Rows<C>, LabelTexts<'_>) {
        (&mut self.rows, LabelTexts(&self.labels.texts))
    }

    /// Whether a row that begins then can be wanted.
    #[inline]
    pub(super) fn wants_time(&self, ts: Nanos) -> bool {
        self.any_time || self.bounds.contain(ts)
    }

    /// Whether rows of a task can be wanted.
    #[inline]
    pub(super) fn wants_task(&mut self, id: TaskId, seen: &Seen<'_>) -> bool {
        self.any_task || self.is_one(id, seen)
    }

    fn is_one(&mut self, id: TaskId, seen: &Seen<'_>) -> bool {
        let who = self.who(id, seen);
        let comm = LabelTexts(&self.labels.texts).text(who);
        let Bounds { utids, tids, pids, comms, .. } = &self.bounds;
        let is_in = |set: &Option<BTreeSet<i64>>, number: Option<i64>| {
            set.as_ref().is_none_or(|set| number.is_some_and(|number| set.contains(&number)))
        };
        is_in(utids, Some(who.utid))
            && is_in(tids, who.tid.map(i64::from))
            && is_in(pids, who.pid.map(i64::from))
            && comms.as_ref().is_none_or(|comms| comms.contains(comm))
    }
}

/// The texts of names.
#[derive(Clone, Copy)]
pub(super) struct LabelTexts<'a>(&'a [Box<str>]);

impl<'a> LabelTexts<'a> {
    pub(super) fn text(self, who: Who) -> &'a str {
        self.0.get(who.label as usize).map_or("", |text| text)
    }
}

/// Makes rows of what the state machine tells.
pub(super) trait Make: Observer + Send {
    type Columns: Build;
    fn maker(&mut self) -> &mut Maker<Self::Columns>;
    /// What a row of this table is made of.
    const OF: Intervals;
}

/// Of which of a state machine's intervals rows are made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Intervals {
    pub(super) runs: bool,
    pub(super) idles: bool,
    pub(super) waits: bool,
    pub(super) sleeps: bool,
}

impl Intervals {
    pub(super) const NONE: Self = Self { runs: false, idles: false, waits: false, sleeps: false };
}

/// Counts what goes on that began in time.
struct Open<'a, C> {
    of: Intervals,
    maker: &'a mut Maker<C>,
    count: usize,
}

impl<C: Build> Open<'_, C> {
    fn add(&mut self, of: bool, from: Nanos, task: TaskId, seen: &Seen<'_>) {
        let began = self.maker.bounds.until.is_none_or(|until| from.0 <= u64::try_from(until).unwrap_or(0));
        self.count += usize::from(of && began && self.maker.wants_task(task, seen));
    }
}

impl<C: Build> Observer for Open<'_, C> {
    fn ran(&mut self, ran: &Ran, seen: &Seen<'_>) {
        self.add(self.of.runs, ran.span.from, ran.task.id, seen);
    }
    fn idled(&mut self, span: &Span, seen: &Seen<'_>) {
        self.add(self.of.idles, span.from, TaskId::idle(span.cpu.cpu), seen);
    }
    fn waited(&mut self, wait: &Waited<'_>, seen: &Seen<'_>) {
        self.add(self.of.waits, wait.from, wait.task.id, seen);
    }
    fn slept(&mut self, slept: &Slept, seen: &Seen<'_>) {
        self.add(self.of.sleeps, slept.from, slept.task.id, seen);
    }
}

/// Makes the rows of one trace, until there are no more, or nobody waits for them.
pub(super) fn make<M: Make>(make: &mut M, tables: fn(&str) -> bool) -> Result<()> {
    let (from, until) = make.maker().bounds.times();
    let mut source = make.maker().origin.open(from, tables)?;
    let meta = source.meta().clone();
    let (sender, batches) = crossbeam_channel::bounded(AHEAD);
    // What is read next is decoded while rows are made of what was read.
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new().name("query reader".into());
        let reading =
            reader.spawn_scoped(scope, move || drain(&mut *source, |batch| sender.send(batch).is_ok())).map_err(
                |error| Error::Query(format!("no thread can be started ({error}): try again with less at once")),
            )?;
        follow(make, &meta, until, &batches);
        // The reader ends with the next batch that nobody takes.
        drop(batches);
        reading.join().unwrap_or_else(|_| Err(Error::Query("the trace could not be read".into())))
    })
}

fn follow<M: Make>(make: &mut M, meta: &Meta, until: Option<Nanos>, batches: &crossbeam_channel::Receiver<Batch>) {
    let mut states = States::default();
    states.begin(meta);
    make.maker().started = meta.started;
    // What began in time is waited for until it is over. How often one looks doubles, so that it does not matter.
    let mut look_again = until;
    for batch in batches {
        states.update(&batch, make);
        make.maker().trim();
        if make.maker().rows.is_left() {
            return;
        }
        if look_again.is_some_and(|at| states.now() > at) {
            let mut open = Open { of: M::OF, maker: make.maker(), count: 0 };
            states.open(&mut open);
            if open.count == 0 {
                make.maker().rows.flush();
                return;
            }
            let past = states.now() - until.unwrap_or_default();
            look_again = Some(states.now() + past);
        }
    }
    make.maker().at_end = true;
    states.open(make);
    make.maker().rows.flush();
}
