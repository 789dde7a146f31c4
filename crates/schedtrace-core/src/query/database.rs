//! The engine: what is asked, within which limits, and the rows that come back.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::ParamValues;
use datafusion::common::ScalarValue;
use datafusion::dataframe::DataFrame;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::object_store::memory::InMemory;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;
use futures::future::{Either, select};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::mpsc::{self, channel};
use tokio::sync::oneshot;

use super::docs;
use super::functions;
use super::guard;
use super::origin::{Open, Origin, Place};
use super::providers::{Provider, STORE, Table};
use super::tables::TableDoc;
use super::views::VIEWS;
use crate::error::{Error, Result};
use crate::source::{Meta, Source};
use crate::trace::{TraceReader, all_tables};

/// Of the threads that plan and run queries: trees of operators are walked by recursion. Memory that is not used costs
/// nothing.
const STACK_BYTES: usize = 256 << 20;
/// More threads than any machine makes use of.
const MAX_THREADS: usize = 256;
/// So many record batches wait for whoever reads the rows.
const WAITING: usize = 2;
/// How often it is asked whether somebody still waits.
const LOOKS_EVERY: Duration = Duration::from_millis(20);

/// What a query may take.
///
/// ```
/// use schedtrace_core::query::Limits;
/// let small = Limits { rows: Some(1_000), memory_bytes: 64 << 20, ..Limits::default() };
/// # let _ = small;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most rows; what is beyond them is left out, and [`Rows::is_cut`] says so. None by default.
    pub rows: Option<u64>,
    /// How long it may work, waiting for whoever reads the rows not included. A minute by default.
    pub time: Duration,
    /// How much memory sorts, groups and joins may take together. What can goes to the disk beyond it, and what cannot is
    /// refused. 1 GiB by default; a few tens of MiB for reading are not counted.
    pub memory_bytes: usize,
    /// How much may go to the disk, into the folder for temporary files. 4 GiB by default.
    pub spill_bytes: u64,
    /// How many threads work on it, up to 256: by default as many as there are CPUs.
    pub threads: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            rows: None,
            time: Duration::from_secs(60),
            memory_bytes: 1 << 30,
            spill_bytes: 4 << 30,
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        }
    }
}

/// A value for a parameter of a query.
///
/// ```
/// use schedtrace_core::query::Value;
/// assert_eq!(Value::from(7), Value::Int(7));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// No value.
    Null,
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any number.
    Float(f64),
    /// A text.
    Text(String),
}

macro_rules! values {
    ($($type:ty => $v:ident, $value:expr;)*) => {$(
        impl From<$type> for Value {
            fn from($v: $type) -> Self {
                $value
            }
        }
    )*};
}

values! {
    bool => v, Self::Bool(v);
    i64 => v, Self::Int(v);
    i32 => v, Self::Int(v.into());
    u32 => v, Self::Int(v.into());
    f64 => v, Self::Float(v);
    &str => v, Self::Text(v.to_owned());
    String => v, Self::Text(v);
}

impl Value {
    fn scalar(&self) -> ScalarValue {
        match self {
            Self::Null => ScalarValue::Null,
            Self::Bool(value) => ScalarValue::from(*value),
            Self::Int(value) => ScalarValue::from(*value),
            Self::Float(value) => ScalarValue::from(*value),
            Self::Text(value) => ScalarValue::from(value.clone()),
        }
    }
}

/// A statement, with values for its parameters.
///
/// ```
/// use schedtrace_core::query::Query;
/// let waits = Query::new("select * from thread_state where comm = $comm and dur > $ns").with("comm", "nginx").with("ns", 20_000_000);
/// # let _ = waits;
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    sql: String,
    values: Vec<(String, Value)>,
}

impl Query {
    /// A statement. Parameters stand in it as `$name`, or as `$1`, `$2`.
    pub fn new(sql: impl Into<String>) -> Self {
        Self { sql: sql.into(), values: Vec::new() }
    }

    /// A value for the parameter `$name`; `name` is `1` for `$1`.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.values.push((name.into(), value.into()));
        self
    }

    fn params(&self) -> Option<ParamValues> {
        if self.values.is_empty() {
            return None;
        }
        let mut numbered: Vec<(usize, ScalarValue)> = Vec::new();
        for (name, value) in &self.values {
            let Ok(number) = name.parse() else {
                let named: Vec<_> = self.values.iter().map(|(name, value)| (name.clone(), value.scalar())).collect();
                return Some(named.into());
            };
            numbered.push((number, value.scalar()));
        }
        numbered.sort_by_key(|(number, _)| *number);
        Some(numbered.into_iter().map(|(_, value)| value).collect::<Vec<_>>().into())
    }
}

impl From<&str> for Query {
    fn from(sql: &str) -> Self {
        Self::new(sql)
    }
}

/// Traces that can be asked.
///
/// ```
/// use schedtrace_core::query::Database;
/// use schedtrace_core::{Batch, MemorySource, Meta, Nanos};
///
/// let db = Database::of_stream("memory", || Ok(Box::new(MemorySource::new(Meta::default(), []))))?;
/// let rows: Vec<_> = db.query("select count(*) from sched_switch")?.collect::<Result<_, _>>()?;
/// assert_eq!(rows[0].num_rows(), 1);
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Database {
    shared: Arc<Shared>,
}

/// What the thread of a query needs.
#[derive(Debug)]
struct Shared {
    origins: Arc<[Origin]>,
    limits: Limits,
    stored: Vec<(&'static str, SchemaRef)>,
    has_interrupts: bool,
}

impl Database {
    /// Opens traces. Of many, each table has two more columns, `host` and `trace`.
    ///
    /// # Errors
    ///
    /// As [`TraceReader::open`]; [`Error::Invalid`] if there is none, [`Error::Query`] if the engine cannot be started.
    ///
    /// ```no_run
    /// use schedtrace_core::query::Database;
    /// let db = Database::open(["monday.schedtrace", "tuesday.schedtrace"])?;
    /// for row in db.query("select trace, count(*) from sched_slice group by trace")? {
    ///     println!("{:?}", row?);
    /// }
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    pub fn open(paths: impl IntoIterator<Item = impl AsRef<Path>>) -> Result<Self> {
        let mut origins = Vec::new();
        let mut stored: Vec<(&'static str, SchemaRef)> = Vec::new();
        for path in paths {
            let path = path.as_ref();
            let reader = TraceReader::open(path)?;
            let (host, name) = (reader.meta().host.hostname.clone(), path.display().to_string());
            origins.push(Origin::new(origins.len(), Place::Trace(path.to_owned()), host, name));
            for table in reader.table_names() {
                if !stored.iter().any(|(name, _)| *name == table)
                    && let Some(schema) = reader.columns(table)
                {
                    stored.push((table, schema));
                }
            }
        }
        Self::new(origins, stored)
    }

    /// Asks a stream that can be opened again and again, as a live window can: each table that a query names opens it.
    ///
    /// # Errors
    ///
    /// What `open` fails with; [`Error::Query`] if the engine cannot be started.
    ///
    /// ```
    /// use schedtrace_core::query::Database;
    /// use schedtrace_core::{MemorySource, Meta};
    /// let db = Database::of_stream("nothing", || Ok(Box::new(MemorySource::new(Meta::default(), []))))?;
    /// assert_eq!(db.query("select * from sched_slice")?.count(), 0);
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    pub fn of_stream(
        name: &str,
        open: impl Fn() -> Result<Box<dyn Source + Send>> + Send + Sync + 'static,
    ) -> Result<Self> {
        let open: Arc<Open> = Arc::new(open);
        let meta: Meta = open()?.meta().clone();
        let is_on = |kind| meta.probes.iter().any(|probe| probe.kind == kind && probe.on);
        let tables = all_tables().filter(|(_, kind, _)| kind.is_none_or(is_on));
        let stored = tables.map(|(name, _, schema)| (name, schema)).collect();
        let origin = Origin::new(0, Place::Stream(open), meta.host.hostname, name.to_owned());
        Self::new(vec![origin], stored)
    }

    fn new(origins: Vec<Origin>, stored: Vec<(&'static str, SchemaRef)>) -> Result<Self> {
        if origins.is_empty() {
            return Err(Error::Invalid("no trace to ask: name one, or a pattern that matches some".into()));
        }
        let limits = Limits::default();
        let has_interrupts = stored.iter().any(|(name, _)| *name == "softirq_entry" || *name == "irq_handler_entry");
        let shared = Shared { origins: origins.into(), limits, stored, has_interrupts };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// With other limits.
    ///
    /// ```
    /// use schedtrace_core::query::{Database, Limits};
    /// use schedtrace_core::{MemorySource, Meta};
    /// let db = Database::of_stream("nothing", || Ok(Box::new(MemorySource::new(Meta::default(), []))))?;
    /// let db = db.with_limits(Limits { rows: Some(10), ..Limits::default() });
    /// assert_eq!(db.limits().rows, Some(10));
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        let Shared { origins, stored, has_interrupts, .. } = &*self.shared;
        let (origins, stored, has_interrupts) = (Arc::clone(origins), stored.clone(), *has_interrupts);
        self.shared = Arc::new(Shared { origins, limits, stored, has_interrupts });
        self
    }

    /// What a query may take.
    ///
    /// ```
    /// # use schedtrace_core::query::Database;
    /// # use schedtrace_core::{MemorySource, Meta};
    /// # let db = Database::of_stream("nothing", || Ok(Box::new(MemorySource::new(Meta::default(), []))))?;
    /// assert_eq!(db.limits().memory_bytes, 1 << 30);
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// The tables of these traces, and what their columns are.
    ///
    /// ```
    /// # use schedtrace_core::query::Database;
    /// # use schedtrace_core::{MemorySource, Meta};
    /// # let db = Database::of_stream("nothing", || Ok(Box::new(MemorySource::new(Meta::default(), []))))?;
    /// assert!(db.tables().iter().any(|table| table.name == "thread_state"));
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    #[must_use]
    pub fn tables(&self) -> Vec<TableDoc> {
        let names = self.shared.names();
        docs::tables().into_iter().filter(|table| names.contains(&table.name)).collect()
    }

    /// Asks. Comes back once it is clear what the columns are; the rows come as they are taken.
    ///
    /// # Errors
    ///
    /// [`Error::Query`] if the statement cannot be understood, or is refused; whatever a trace cannot be read for.
    ///
    /// ```
    /// # use schedtrace_core::query::{Database, Query};
    /// # use schedtrace_core::{MemorySource, Meta};
    /// # let db = Database::of_stream("nothing", || Ok(Box::new(MemorySource::new(Meta::default(), []))))?;
    /// let rows = db.query(Query::new("select $1 + 1 as next").with("1", 41))?;
    /// assert_eq!(rows.schema().field(0).name(), "next");
    /// let error = db.query("select commm from thread_state").unwrap_err();
    /// assert!(error.to_string().contains("do you mean `comm`?"), "{error}");
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    pub fn query(&self, query: impl Into<Query>) -> Result<Rows> {
        self.begin(query.into(), None)
    }

    /// The same, for somebody who may not wait to the end: the query ends in an error soon after `is_cancelled` says so.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query); [`Error::Query`] if it was cancelled.
    ///
    /// ```
    /// # use schedtrace_core::query::Database;
    /// # use schedtrace_core::{MemorySource, Meta};
    /// # let db = Database::of_stream("nothing", || Ok(Box::new(MemorySource::new(Meta::default(), []))))?;
    /// assert_eq!(db.query_unless("select 1", || false)?.count(), 1);
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    pub fn query_unless(
        &self,
        query: impl Into<Query>,
        is_cancelled: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Result<Rows> {
        self.begin(query.into(), Some(IsCancelled(Box::new(is_cancelled))))
    }

    fn begin(&self, query: Query, is_cancelled: Option<IsCancelled>) -> Result<Rows> {
        let shared = Arc::clone(&self.shared);
        let (to, from) = sync_channel(WAITING);
        let (cancel, cancelled) = oneshot::channel();
        let left = Left::of(shared.limits.time);
        let run = move || match engine(&shared.limits) {
            Ok((engine, clock)) => {
                clock.block_on(answer(engine.handle(), shared, query, left, &to, cancelled));
                // An operator may go on for a while before it sees that nobody waits for it.
                engine.shutdown_background();
            }
            Err(error) => {
                let why = format!("its threads cannot be started ({error}): try again with less at once");
                // Whoever asked waits for the first word.
                let _ = to.send(Said::Over(Err(Error::Query(why))));
            }
        };
        let thread = std::thread::Builder::new().name("query".into());
        thread.spawn(run).map_err(|error| Error::Query(format!("no thread can be started ({error})")))?;
        match next(&from, is_cancelled.as_ref())? {
            Said::Columns(schema) => Ok(Rows { schema, from, over: false, cut: false, is_cancelled, _cancel: cancel }),
            Said::Over(Err(error)) => Err(error),
            _ => Err(broken()),
        }
    }
}

/// The threads of a query, and a clock that does not depend on them: an operator may keep all of them for long.
///
/// Each query has its own, so that none has to wait for what another one has left behind.
fn engine(limits: &Limits) -> std::io::Result<(Runtime, Runtime)> {
    let engine = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(limits.threads.clamp(1, MAX_THREADS))
        .thread_name("query")
        .thread_stack_size(STACK_BYTES)
        .enable_time()
        .build()?;
    Ok((engine, tokio::runtime::Builder::new_current_thread().enable_time().build()?))
}

fn broken() -> Error {
    Error::Query("the engine failed inside, which is a mistake of ours: please report the statement".into())
}

/// What a query's thread says.
#[derive(Debug)]
enum Said {
    Columns(SchemaRef),
    Rows(RecordBatch),
    /// The end: whether rows were left out.
    Over(Result<bool>),
}

/// The rows of an answer, in record batches. Whoever drops them ends the query.
#[derive(Debug)]
pub struct Rows {
    schema: SchemaRef,
    from: Receiver<Said>,
    over: bool,
    cut: bool,
    is_cancelled: Option<IsCancelled>,
    _cancel: oneshot::Sender<()>,
}

/// Whether somebody still waits for the rows.
struct IsCancelled(Box<dyn Fn() -> bool + Send + Sync>);

impl std::fmt::Debug for IsCancelled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IsCancelled")
    }
}

/// What the query's thread says next.
fn next(from: &Receiver<Said>, is_cancelled: Option<&IsCancelled>) -> Result<Said> {
    let Some(IsCancelled(is_cancelled)) = is_cancelled else { return from.recv().map_err(|_| broken()) };
    // Also where there always is something to take.
    while !is_cancelled() {
        match from.recv_timeout(LOOKS_EVERY) {
            Ok(said) => return Ok(said),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(broken()),
        }
    }
    Err(Error::Query("it was cancelled".into()))
}

impl Rows {
    /// The columns.
    ///
    /// ```
    /// # use schedtrace_core::query::Database;
    /// # use schedtrace_core::{MemorySource, Meta};
    /// # let db = Database::of_stream("nothing", || Ok(Box::new(MemorySource::new(Meta::default(), []))))?;
    /// assert_eq!(db.query("select 1 as one")?.schema().field(0).name(), "one");
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Whether rows beyond [`Limits::rows`] were left out. Known at the end.
    ///
    /// ```
    /// # use schedtrace_core::query::{Database, Limits};
    /// # use schedtrace_core::{MemorySource, Meta};
    /// # let db = Database::of_stream("nothing", || Ok(Box::new(MemorySource::new(Meta::default(), []))))?;
    /// let db = db.with_limits(Limits { rows: Some(2), ..Limits::default() });
    /// let mut rows = db.query("values (1), (2), (3)")?;
    /// assert_eq!(rows.by_ref().map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 2);
    /// assert!(rows.is_cut());
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.cut
    }
}

impl Iterator for Rows {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let failed = match next(&self.from, self.is_cancelled.as_ref()) {
            Ok(Said::Rows(batch)) => return Some(Ok(batch)),
            Ok(Said::Over(Ok(cut))) => {
                (self.over, self.cut) = (true, cut);
                return None;
            }
            Ok(Said::Over(Err(error))) | Err(error) => error,
            Ok(Said::Columns(_)) => broken(),
        };
        self.over = true;
        Some(Err(failed))
    }
}

impl Shared {
    fn is_many(&self) -> bool {
        self.origins.len() > 1
    }

    fn made(&self) -> impl Iterator<Item = Table> + '_ {
        Table::MADE.into_iter().filter(|table| *table != Table::Irqs || self.has_interrupts)
    }

    fn names(&self) -> Vec<String> {
        let made = self.made().map(Table::name);
        let stored = self.stored.iter().map(|(name, _)| *name);
        made.chain(stored).chain(VIEWS.iter().map(|view| view.name)).map(str::to_owned).collect()
    }

    /// An engine with all tables. Making one takes a few milliseconds; each has its own limits.
    async fn context(&self) -> DfResult<SessionContext> {
        let config = SessionConfig::new()
            .with_target_partitions(self.limits.threads.clamp(1, MAX_THREADS))
            .with_information_schema(true)
            .set_bool("datafusion.execution.parquet.pushdown_filters", true);
        let mut context = SessionContext::new_with_config_rt(config, Arc::new(self.environment(true)?));
        functions::bound(&mut context)?;
        let many = self.is_many();
        let register = |table: Table, schema: &SchemaRef| {
            let provider = Provider::new(table, schema, Arc::clone(&self.origins), many);
            context.register_table(table.name(), Arc::new(provider)).map(drop)
        };
        for table in self.made() {
            if let Some(schema) = table.schema() {
                register(table, &schema)?;
            }
        }
        for (name, schema) in &self.stored {
            register(Table::Stored(name), schema)?;
        }
        for view in &VIEWS {
            let query = context.sql(&view.query(many)).await?;
            context.register_table(view.name, query.into_view())?;
        }
        Ok(context)
    }

    fn environment(&self, spills: bool) -> DfResult<RuntimeEnv> {
        let mode = if spills { DiskManagerMode::OsTmpDirectory } else { DiskManagerMode::Disabled };
        let disk = DiskManagerBuilder::default().with_mode(mode).with_max_temp_directory_size(self.limits.spill_bytes);
        let environment = RuntimeEnvBuilder::new()
            .with_memory_limit(self.limits.memory_bytes, 1.0)
            .with_disk_manager_builder(disk)
            .build()?;
        // Nothing of the file system can be named; the files of traces come with the plans.
        let url =
            |text: &str| datafusion::datasource::listing::ListingTableUrl::parse(text).map(|url| url.get_url().clone());
        environment.deregister_object_store(&url("file:///")?)?;
        environment.register_object_store(&url(STORE)?, Arc::new(InMemory::new()));
        Ok(environment)
    }
}

/// Answers a query; the last it says is that it is over.
async fn answer(
    engine: &Handle,
    shared: Arc<Shared>,
    query: Query,
    left: Left,
    to: &SyncSender<Said>,
    cancelled: oneshot::Receiver<()>,
) {
    let (sender, receiver) = channel(WAITING);
    let room = shared.limits.rows.unwrap_or(u64::MAX);
    let work = engine.spawn(async move {
        let over = work(&shared, &query, &sender).await;
        // Whoever has left does not mind.
        let _ = sender.send(Said::Over(over.map(|()| false))).await;
    });
    let passed = std::pin::pin!(pass_on(receiver, room, left, to));
    // An end that nobody waits for is no error.
    if let Either::Left((result, _)) = select(passed, cancelled).await {
        let _ = to.send(Said::Over(result));
    }
    work.abort();
}

/// Passes on what the engine says, as long as there is time and as many rows as may be; tells whether there were more.
async fn pass_on(mut from: mpsc::Receiver<Said>, mut room: u64, mut left: Left, to: &SyncSender<Said>) -> Result<bool> {
    loop {
        let said = left.spend(from.recv()).await?.ok_or_else(broken)?;
        let since = Instant::now();
        let (said, over) = match said {
            Said::Over(over) => return over,
            Said::Rows(batch) if batch.num_rows() as u64 > room => (Said::Rows(batch.slice(0, room as usize)), true),
            Said::Rows(batch) => {
                room -= batch.num_rows() as u64;
                (Said::Rows(batch), false)
            }
            columns @ Said::Columns(_) => (columns, false),
        };
        let left_out = matches!(&said, Said::Rows(batch) if batch.num_rows() == 0);
        if !left_out && to.send(said).is_err() {
            return Ok(false);
        }
        if over {
            return Ok(true);
        }
        left.until += since.elapsed();
    }
}

/// How much time is left.
struct Left {
    until: Instant,
    limit: Duration,
}

impl Left {
    fn of(limit: Duration) -> Self {
        // A limit beyond all times is none.
        let far = Duration::from_secs(100 * 365 * 86_400);
        Self { until: Instant::now() + limit.min(far), limit }
    }

    /// Works on something as long as there is time.
    async fn spend<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        let until = tokio::time::Instant::from_std(self.until);
        let over =
            || Error::Query(format!("it was stopped after {:?}: ask for less at once, or raise the limit", self.limit));
        tokio::time::timeout_at(until, work).await.map_err(|_| over())
    }
}

/// Works on a query, on the engine's threads.
async fn work(shared: &Shared, query: &Query, to: &mpsc::Sender<Said>) -> Result<()> {
    let explain = |error: DataFusionError| guard::explain(error, &shared.names());
    let statement = guard::parse(&query.sql)?;
    let mut rows = plan(shared, query, statement).await.map_err(explain)?;
    let mut is_taken = to.send(Said::Columns(rows.schema())).await.is_ok();
    while is_taken && let Some(batch) = rows.next().await {
        is_taken = to.send(Said::Rows(batch.map_err(explain)?)).await.is_ok();
    }
    Ok(())
}

async fn plan(
    shared: &Shared,
    query: &Query,
    statement: datafusion::sql::parser::Statement,
) -> DfResult<SendableRecordBatchStream> {
    let context = shared.context().await?;
    let state = context.state();
    let mut plan = state.statement_to_plan(statement).await?;
    guard::check(&plan)?;
    if let Some(params) = query.params() {
        plan = plan.with_param_values(params)?;
    }
    let selects = !matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_));
    let mut frame = DataFrame::new(state, plan);
    if let (true, Some(rows)) = (selects, shared.limits.rows) {
        // One more, to know whether there are more.
        frame = frame.limit(0, Some(usize::try_from(rows).unwrap_or(usize::MAX).saturating_add(1)))?;
    }
    let task = Arc::new(frame.task_ctx());
    let physical = frame.create_physical_plan().await?;
    let task = if spills_wrongly(&*physical) { Arc::new(in_memory(&task, shared.environment(false)?)) } else { task };
    execute_stream(physical, task)
}

/// A join on anything but equality gives some rows twice once it spills, in DataFusion 55.2 (apache/datafusion#24675): it is
/// kept to the memory it may have.
fn spills_wrongly(plan: &dyn ExecutionPlan) -> bool {
    plan.name() == "NestedLoopJoinExec" || plan.children().into_iter().any(|child| spills_wrongly(&**child))
}

fn in_memory(task: &TaskContext, environment: RuntimeEnv) -> TaskContext {
    TaskContext::new(
        task.task_id(),
        task.session_id(),
        task.session_config().clone(),
        task.scalar_functions().clone(),
        task.higher_order_functions().clone(),
        task.aggregate_functions().clone(),
        task.window_functions().clone(),
        Arc::new(environment),
    )
}
