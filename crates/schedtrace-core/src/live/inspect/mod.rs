//! The BPF objects of the running machine, whoever loaded them: [`programs`], [`maps`], what a map holds ([`dump_map`]),
//! and what the kernel and this process can do with BPF ([`support`]).
//!
//! Nothing is changed by looking: no entry of a map is written, deleted or taken out, and of a map whose reading would do
//! that, the reason is told instead. The kernel shows its BPF objects to `CAP_SYS_ADMIN` alone; [`support`] works without.
//!
//! ```no_run
//! use schedtrace_core::live::inspect;
//!
//! let mut found = inspect::programs()?;
//! found.sort_busiest_first();
//! for program in &found.programs {
//!     println!("{:>6} {:<16} {}", program.id, program.ty, program.name);
//! }
//! let page = inspect::dump_map(&"sched_stats".parse()?, None, 20)?;
//! println!("{}", serde_json::to_string_pretty(&page)?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod attachments;
mod decode;
mod dump;
mod holders;
mod maps;
mod programs;
mod support;
mod types;
mod words;

pub use attachments::Attachment;
pub use dump::{CpuValue, MapEntry, MapPage, MapRef, dump_map};
pub use holders::Holder;
pub use maps::{Map, MapTypes, maps};
pub use programs::{Program, ProgramWatch, Programs, Runs, programs};
pub use support::{Feature, Rights, Support, support};

use libbpf_rs::{ErrorKind, MapHandle};

use super::kernel::quiet_libbpf;
use crate::error::{Error, Result};

/// Asks the kernel whether it shows its objects to this process: listing them would find none, and say no more.
fn may_look() -> Result<()> {
    quiet_libbpf();
    // Rights are looked at before the number is, which no map has.
    match MapHandle::from_map_id(u32::MAX) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::NotShown { why: error.to_string() }),
        _ => Ok(()),
    }
}

/// Bytes as hexadecimal digits, in the order in which they lie in memory.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What [`hex`] wrote; none for anything else.
fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |digit: u8| (digit as char).to_digit(16);
    let byte = |two: &[u8]| u8::try_from(digit(two[0])? * 16 + digit(two[1])?).ok();
    text.as_bytes().chunks_exact(2).map(byte).collect()
}

/// Text from a stranger, without what a terminal or a reader might take for more than text.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_the_same_there_and_back() {
        for bytes in [&[][..], &[0], &[0, 1, 0xab, 0xff, 0x7f]] {
            assert_eq!(unhex(&hex(bytes)).unwrap(), bytes);
        }
        assert_eq!(hex(&[0x0a, 0xb0]), "0ab0");
        for text in ["0", "0g", "é", "+1", "0x01", " 1"] {
            assert_eq!(unhex(text), None, "{text}");
        }
    }

    #[test]
    fn text_from_strangers_has_no_control_characters() {
        assert_eq!(clean("a\u{1b}[31m\nb"), "a\u{fffd}[31m\u{fffd}b");
    }
}
