//! Parquet files of a trace, as DataFusion reads them: through files that are open already, and were checked.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::ParquetFileReaderFactory;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;

use crate::trace::AtRest;

/// Reads the files that plans bear with them, and no others.
#[derive(Debug)]
pub(super) struct OpenFiles;

impl ParquetFileReaderFactory for OpenFiles {
    fn create_reader(
        &self,
        _partition: usize,
        file: PartitionedFile,
        _size_hint: Option<usize>,
        _metrics: &ExecutionPlanMetricsSet,
    ) -> DfResult<Box<dyn AsyncFileReader + Send>> {
        let file = file.extension::<Arc<AtRest>>().map(Arc::clone);
        let file = file.ok_or_else(|| DataFusionError::Internal("a file that is no trace's".into()))?;
        Ok(Box::new(OpenFile(file)))
    }
}

#[derive(Debug)]
struct OpenFile(Arc<AtRest>);

impl OpenFile {
    fn read(&self, range: Range<u64>) -> Result<Bytes, ParquetError> {
        self.0.read(range).map(Bytes::from).map_err(|error| ParquetError::External(Box::new(error)))
    }
}

impl AsyncFileReader for OpenFile {
    /// The file is on a local disk, and mostly in memory: the engine's own threads may wait for it.
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        futures::future::ready(self.read(range)).boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        futures::future::ready(ranges.into_iter().map(|range| self.read(range)).collect()).boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        futures::future::ready(Ok(Arc::clone(self.0.metadata()))).boxed()
    }
}
