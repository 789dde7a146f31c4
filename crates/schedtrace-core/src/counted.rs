//! A writer that counts.

use std::io::{Result, Write};

/// Counts the bytes that `out` has taken.
#[derive(Debug)]
pub(crate) struct Counted<W> {
    pub(crate) out: W,
    pub(crate) bytes: u64,
}

impl<W> Counted<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, bytes: 0 }
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }
    fn flush(&mut self) -> Result<()> {
        self.out.flush()
    }
}
