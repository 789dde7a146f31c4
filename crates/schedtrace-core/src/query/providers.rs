//! The tables as DataFusion asks for them.

use std::sync::{Arc, Mutex};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::union::UnionExec;

use super::bounds::Bounds;
use super::derived::{Irqs, Preemptions, Slices, ThreadStates, Wakeups};
use super::files::OpenFiles;
use super::origin::{Origin, Place, drain};
use super::producer::{Make, Maker, Out, ROWS_PER_BATCH, Rows, make};
use super::setting;
use super::tables::{
    Build, CpuColumns, IrqColumns, PreemptionColumns, SliceColumns, StateColumns, TaskColumns, TraceColumns,
    WakeupColumns,
};
use crate::error::{Error, Result};
use crate::trace::{Part, StreamRows, TableReader, TraceReader};

/// Where open files are said to be: the engine knows no other place.
pub(super) const STORE: &str = "trace://";
/// So many record batches wait for whoever takes them.
const WAITING: usize = 4;

/// Which table, and how its rows come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    /// As it lies in the trace.
    Stored(&'static str),
    Slices,
    ThreadStates,
    Wakeups,
    Preemptions,
    Irqs,
    Tasks,
    Cpus,
    Traces,
}

impl Table {
    /// Those that do not lie in the trace.
    pub(super) const MADE: [Self; 8] = [
        Self::Slices,
        Self::ThreadStates,
        Self::Wakeups,
        Self::Preemptions,
        Self::Irqs,
        Self::Tasks,
        Self::Cpus,
        Self::Traces,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stored(name) => name,
            Self::Slices => SliceColumns::NAME,
            Self::ThreadStates => StateColumns::NAME,
            Self::Wakeups => WakeupColumns::NAME,
            Self::Preemptions => PreemptionColumns::NAME,
            Self::Irqs => IrqColumns::NAME,
            Self::Tasks => TaskColumns::NAME,
            Self::Cpus => CpuColumns::NAME,
            Self::Traces => TraceColumns::NAME,
        }
    }

    /// Its columns, where it is one of those that are made.
    pub(super) fn schema(self) -> Option<SchemaRef> {
        Some(match self {
            Self::Stored(_) => return None,
            Self::Slices => SliceColumns::schema(),
            Self::ThreadStates => StateColumns::schema(),
            Self::Wakeups => WakeupColumns::schema(),
            Self::Preemptions => PreemptionColumns::schema(),
            Self::Irqs => IrqColumns::schema(),
            Self::Tasks => TaskColumns::schema(),
            Self::Cpus => CpuColumns::schema(),
            Self::Traces => TraceColumns::schema(),
        })
    }

    /// The column of its times.
    fn time(self) -> &'static str {
        match self {
            Self::Stored("tasks" | "cgroups" | "loss" | "states") => "seen_ns",
            Self::Stored(_) => "ts_ns",
            _ => "ts",
        }
    }

    /// Makes the rows of one trace.
    fn produce(self, origin: &Origin, bounds: &Bounds, out: Out) -> Result<()> {
        fn of<M: Make + std::convert::From<Maker<M::Columns>>>(
            origin: &Origin,
            bounds: &Bounds,
            out: Out,
            tables: fn(&str) -> bool,
        ) -> Result<()> {
            make(&mut M::from(Maker::new(Rows::new(out), origin.clone(), bounds.clone())), tables)
        }
        match self {
            Self::Stored(name) => stored(name, origin, out),
            Self::Slices => of::<Slices>(origin, bounds, out, moves_tasks),
            Self::ThreadStates => of::<ThreadStates>(origin, bounds, out, moves_tasks),
            Self::Wakeups => of::<Wakeups>(origin, bounds, out, |table| moves_tasks(table) || table == "sched_wakeup"),
            Self::Preemptions => of::<Preemptions>(origin, bounds, out, moves_tasks),
            Self::Irqs => of::<Irqs>(origin, bounds, out, |table| moves_tasks(table) || interrupts(table)),
            Self::Tasks => setting::tasks(origin, Rows::new(out)),
            Self::Cpus => setting::cpus(origin, Rows::new(out)),
            Self::Traces => setting::traces(origin, Rows::new(out)),
        }
    }
}

/// The events that change what tasks and CPUs do.
fn moves_tasks(table: &str) -> bool {
    matches!(
        table,
        "sched_switch" | "sched_waking" | "sched_wakeup_new" | "sched_migrate_task" | "task_lifecycle" | "snapshot"
    )
}

fn interrupts(table: &str) -> bool {
    matches!(
        table,
        "irq_handler_entry" | "irq_handler_exit" | "softirq_entry" | "softirq_exit" | "ipi_entry" | "ipi_exit"
    )
}

/// The rows of a table as a stream brings them.
fn stored(name: &str, origin: &Origin, mut out: Out) -> Result<()> {
    let Some(mut rows) = StreamRows::of(name) else { return Ok(()) };
    let mut send = |rows: &mut StreamRows| {
        let batch = rows.take().and_then(|batch| batch.project(out.own()));
        out.send(batch.map_err(DataFusionError::from));
        !out.is_left()
    };
    drain(&mut *origin.open(None, |_| true)?, |batch| {
        rows.read(&batch);
        rows.len() < ROWS_PER_BATCH || send(&mut rows)
    })?;
    send(&mut rows);
    Ok(())
}

/// A table over all traces of a query.
#[derive(Debug)]
pub(super) struct Provider {
    table: Table,
    origins: Arc<[Origin]>,
    /// Its columns, and of many traces the two that say which it is.
    schema: SchemaRef,
    /// How many of the columns are the table's own.
    own: usize,
}

impl Provider {
    pub(super) fn new(table: Table, own: &SchemaRef, origins: Arc<[Origin]>, many: bool) -> Self {
        let mut fields = own.fields().to_vec();
        if many {
            fields.extend(ORIGIN_COLUMNS.map(|name| Arc::new(Field::new(name, DataType::Utf8View, false))));
        }
        Self { table, origins, schema: Arc::new(Schema::new(fields)), own: own.fields().len() }
    }

    fn is_many(&self) -> bool {
        self.schema.fields().len() > self.own
    }

    fn own_schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.schema.fields()[..self.own].to_vec()))
    }

    /// What lies in Parquet files, and what has to be made.
    fn plan(&self, projection: Option<&Vec<usize>>, bounds: &Bounds, ways: usize) -> Result<Plan> {
        let mut plan = Plan::default();
        let (from, until) = bounds.times();
        let mut live = Vec::new();
        for origin in self.origins.iter() {
            let (Table::Stored(name), Place::Trace(dir)) = (self.table, &origin.place) else {
                live.push(Work { origin: origin.clone(), rows: Made::All });
                continue;
            };
            for part in TraceReader::open(dir)?.parts(name, from, until)? {
                match part {
                    Part::AtRest(file) => {
                        let values = origin_values(origin).map(ScalarValue::from);
                        let mut listed = PartitionedFile::new(file.path().display().to_string(), file.bytes());
                        if self.is_many() {
                            listed = listed.with_partition_values(values.to_vec());
                        }
                        plan.files.push(listed.with_extension(file));
                    }
                    Part::InFlight(rows) => {
                        live.push(Work { origin: origin.clone(), rows: Made::Read(Arc::new(Mutex::new(Some(rows)))) })
                    }
                }
            }
        }
        let wanted: Vec<usize> = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let schema = Arc::new(self.schema.project(&wanted).map_err(|error| Error::Query(error.to_string()))?);
        let each = live.len().div_ceil(ways).max(1);
        plan.streams = live
            .chunks(each)
            .map(|work| {
                Arc::new(Stream {
                    table: self.table,
                    work: work.to_vec(),
                    bounds: bounds.clone(),
                    wanted: wanted.clone(),
                    own: self.own,
                    schema: Arc::clone(&schema),
                }) as Arc<dyn PartitionStream>
            })
            .collect();
        plan.schema = schema;
        Ok(plan)
    }
}

/// The columns that say of which trace a row is.
const ORIGIN_COLUMNS: [&str; 2] = ["host", "trace"];

fn origin_values(origin: &Origin) -> [ScalarValue; 2] {
    [&origin.host, &origin.path].map(|text| ScalarValue::Utf8View(Some(text.clone())))
}

struct Plan {
    files: Vec<PartitionedFile>,
    streams: Vec<Arc<dyn PartitionStream>>,
    schema: SchemaRef,
}

impl Default for Plan {
    fn default() -> Self {
        Self { files: Vec::new(), streams: Vec::new(), schema: Arc::new(Schema::empty()) }
    }
}

#[async_trait]
impl TableProvider for Provider {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        // They help to read less; the engine filters again.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let bounds = Bounds::of(filters, self.table.time());
        // A limit holds for rows that fulfil the conditions, which are not all looked at here.
        let limit = limit.filter(|_| filters.is_empty());
        let ways = state.config().target_partitions();
        let plan = self.plan(projection, &bounds, ways).map_err(external)?;
        let mut inputs: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
        if !plan.files.is_empty() {
            let partitions = if self.is_many() {
                ORIGIN_COLUMNS.map(|name| Arc::new(Field::new(name, DataType::Utf8View, false))).to_vec()
            } else {
                Vec::new()
            };
            let table = TableSchema::builder(self.own_schema()).with_table_partition_cols(partitions).build();
            let source = ParquetSource::new(table)
                .with_parquet_file_reader_factory(Arc::new(OpenFiles))
                .with_enable_page_index(true)
                .with_pushdown_filters(true);
            let groups = FileGroup::new(plan.files).split_files(ways);
            let scan = FileScanConfigBuilder::new(ObjectStoreUrl::parse(STORE)?, Arc::new(source))
                .with_file_groups(groups)
                .with_limit(limit)
                .with_projection_indices(projection.cloned())?
                .build();
            inputs.push(DataSourceExec::from_data_source(scan));
        }
        if !plan.streams.is_empty() {
            inputs.push(Arc::new(StreamingTableExec::try_new(
                Arc::clone(&plan.schema),
                plan.streams,
                None,
                [],
                false,
                limit,
            )?));
        }
        match inputs.len() {
            0 => Ok(Arc::new(EmptyExec::new(plan.schema))),
            1 => Ok(inputs.remove(0)),
            _ => UnionExec::try_new(inputs),
        }
    }
}

/// An error of ours on its way through the engine.
pub(super) fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Rows that are made, or read, one trace after the other.
#[derive(Debug)]
struct Stream {
    table: Table,
    work: Vec<Work>,
    bounds: Bounds,
    wanted: Vec<usize>,
    own: usize,
    schema: SchemaRef,
}

#[derive(Clone, Debug)]
struct Work {
    origin: Origin,
    rows: Made,
}

#[derive(Clone, Debug)]
enum Made {
    /// All rows of the trace.
    All,
    /// Those of a segment in flight, for whoever comes first: a plan is executed once.
    Read(Arc<Mutex<Option<TableReader>>>),
}

impl PartitionStream for Stream {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut builder = RecordBatchReceiverStreamBuilder::new(Arc::clone(&self.schema), WAITING);
        let sender = builder.tx();
        let (table, work, bounds) = (self.table, self.work.clone(), self.bounds.clone());
        let (wanted, own, schema) = (self.wanted.clone(), self.own, Arc::clone(&self.schema));
        builder.spawn_blocking(move || {
            for Work { origin, rows } in work {
                let mut out = Out::new(Arc::clone(&schema), sender.clone(), &wanted, own, &origin);
                match rows {
                    Made::All => table.produce(&origin, &bounds, out),
                    Made::Read(reader) => {
                        let reader = reader.lock().ok().and_then(|mut reader| reader.take());
                        reader.map_or(Ok(()), |reader| pass_on(reader, &mut out))
                    }
                }
                .map_err(external)?;
            }
            Ok(())
        });
        builder.build()
    }
}

/// Rows of a segment in flight, as they are in the stream.
fn pass_on(reader: TableReader, out: &mut Out) -> Result<()> {
    for batch in reader {
        let batch = batch?.project(out.own()).map_err(|error| Error::Query(error.to_string()))?;
        out.send(Ok(batch));
        if out.is_left() {
            break;
        }
    }
    Ok(())
}
