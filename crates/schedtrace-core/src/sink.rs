//! Where batches go: the [`Sink`] trait.

use crate::error::Result;
use crate::event::Batch;
use crate::source::Meta;

/// Takes batches in order. Only [`batch`](Sink::batch) is required.
///
/// A closure is a sink, and so are `Option` and `Vec` of a sink and `Box<dyn Sink + Send>`, so an optional sink needs no `if`:
///
/// ```
/// use schedtrace_core::{Batch, Sink};
/// let mut switches = 0;
/// let mut sink = Some(|batch: &Batch| switches += batch.events.len());
/// sink.batch(&Batch::default())?;
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
pub trait Sink {
    /// Called once before the first batch.
    fn begin(&mut self, meta: &Meta) -> Result<()> {
        let _ = meta;
        Ok(())
    }

    /// Takes the next stretch of the stream. An error ends this sink, and no other.
    fn batch(&mut self, batch: &Batch) -> Result<()>;

    /// Called once after the last batch, with what is known by then. Not called after an error.
    fn finish(&mut self, meta: &Meta) -> Result<()> {
        let _ = meta;
        Ok(())
    }
}

impl<F: FnMut(&Batch)> Sink for F {
    fn batch(&mut self, batch: &Batch) -> Result<()> {
        self(batch);
        Ok(())
    }
}

macro_rules! each {
    ($($of:tt)*) => {
        $($of)* {
            fn begin(&mut self, meta: &Meta) -> Result<()> {
                self.iter_mut().try_for_each(|sink| sink.begin(meta))
            }
            fn batch(&mut self, batch: &Batch) -> Result<()> {
                self.iter_mut().try_for_each(|sink| sink.batch(batch))
            }
            fn finish(&mut self, meta: &Meta) -> Result<()> {
                self.iter_mut().try_for_each(|sink| sink.finish(meta))
            }
        }
    };
}

each!(impl<S: Sink> Sink for Option<S>);
each!(impl<S: Sink> Sink for Vec<S>);

// Not for every `Box<S>`: a boxed closure is a closure already.
impl Sink for Box<dyn Sink + Send + '_> {
    fn begin(&mut self, meta: &Meta) -> Result<()> {
        (**self).begin(meta)
    }
    fn batch(&mut self, batch: &Batch) -> Result<()> {
        (**self).batch(batch)
    }
    fn finish(&mut self, meta: &Meta) -> Result<()> {
        (**self).finish(meta)
    }
}

/// What to do when a sink's queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFull {
    /// Wait for room: a recorder, which must not lose anything. The rings fill meanwhile, and count what they lose.
    Block,
    /// Drop the batch's events and count them as loss of this sink: a view. Identities and losses are carried
    /// over to the next batch, never dropped.
    DropNewest,
}
