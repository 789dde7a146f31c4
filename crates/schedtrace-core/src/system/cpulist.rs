//! Lists of CPUs as the kernel and people write them: `0-3,7,300`.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::event::Cpu;

/// A set of CPUs in order of their numbers, read from and written as the kernel's list format.
///
/// ```
/// use schedtrace_core::Cpu;
/// use schedtrace_core::system::CpuList;
///
/// let cpus: CpuList = "300,0-2, 7,1-3".parse()?;
/// assert_eq!(cpus.to_string(), "0-3,7,300");
/// assert!(cpus.contains(Cpu(7)) && !cpus.contains(Cpu(8)));
/// assert!("3-1".parse::<CpuList>().is_err());
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CpuList(Vec<Cpu>);

impl CpuList {
    /// The CPUs, sorted, each once.
    #[must_use]
    pub fn as_slice(&self) -> &[Cpu] {
        &self.0
    }

    /// Whether a CPU is one of them.
    #[must_use]
    pub fn contains(&self, cpu: Cpu) -> bool {
        self.0.binary_search(&cpu).is_ok()
    }

    /// As the kernel writes it: an empty mask is an empty line.
    pub(super) fn from_kernel(text: &str) -> Option<Self> {
        if text.trim().is_empty() { Some(Self::default()) } else { text.parse().ok() }
    }
}

impl FromIterator<Cpu> for CpuList {
    fn from_iter<I: IntoIterator<Item = Cpu>>(cpus: I) -> Self {
        let mut cpus: Vec<Cpu> = cpus.into_iter().collect();
        cpus.sort_unstable();
        cpus.dedup();
        Self(cpus)
    }
}

impl IntoIterator for CpuList {
    type Item = Cpu;
    type IntoIter = std::vec::IntoIter<Cpu>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// [`Error::Invalid`] for an empty list, what is no number or range, a reversed range, and numbers above 65535.
impl FromStr for CpuList {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut ranges = text.split(',').map(|part| range(part.trim())).collect::<Result<Vec<_>>>()?;
        // Merged before they are written out, so that a long text of wide ranges costs no more than one of them.
        ranges.sort_unstable();
        ranges.dedup_by(|next, kept| {
            let joined = next.0 <= kept.1;
            if joined {
                kept.1 = kept.1.max(next.1);
            }
            joined
        });
        Ok(Self(ranges.into_iter().flat_map(|(first, last)| (first..=last).map(Cpu)).collect()))
    }
}

fn range(part: &str) -> Result<(u16, u16)> {
    let Some((first, last)) = part.split_once('-') else {
        let cpu = number(part, part)?;
        return Ok((cpu, cpu));
    };
    let (first, last) = (number(first.trim(), part)?, number(last.trim(), part)?);
    if first > last {
        return Err(Error::Invalid(format!("`{part}` is a reversed range of CPUs: write `{last}-{first}`")));
    }
    Ok((first, last))
}

fn number(text: &str, part: &str) -> Result<u16> {
    // `parse` alone would take a sign.
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Error::Invalid(format!("`{part}` names no CPU: write numbers and ranges, such as `0-3,7`")));
    }
    text.parse().map_err(|_| Error::Invalid(format!("`{part}` names no CPU: their numbers end at {}", u16::MAX)))
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = self.0.chunk_by(|a, b| a.0.checked_add(1) == Some(b.0));
        for (at, run) in runs.enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            match run {
                [first, .., last] => write!(f, "{first}-{last}")?,
                single => single.iter().try_for_each(|cpu| write!(f, "{cpu}"))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_reads_back(cpus in proptest::collection::btree_set(prop_oneof![0..40_u16, any::<u16>()], 1..60)) {
            let list: CpuList = cpus.iter().rev().copied().map(Cpu).collect();
            prop_assert_eq!(list.to_string().parse::<CpuList>().unwrap(), list);
        }

        #[test]
        fn it_is_the_union_of_its_ranges(ranges in proptest::collection::vec((0..50_u16, 0..10_u16), 1..8)) {
            let text = ranges.iter().map(|(first, more)| format!("{first}-{}", first + more)).collect::<Vec<_>>().join(",");
            let union: BTreeSet<Cpu> = ranges.iter().flat_map(|&(first, more)| (first..=first + more).map(Cpu)).collect();
            let list: CpuList = text.parse().unwrap();
            prop_assert_eq!(list, CpuList(union.into_iter().collect()));
        }

        #[test]
        fn no_text_panics(text in "[-0-9, +a]{0,12}") {
            let _ = text.parse::<CpuList>();
        }
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        for text in ["", " ", ",", "0,", "-", "1-", "-1", "+1", "0x2", "1-2-3", "0-3:1/2", "all", "１"] {
            let error = text.parse::<CpuList>().unwrap_err().to_string();
            assert!(error.contains("names no CPU: write numbers"), "{text}: {error}");
        }
        assert!("7-3".parse::<CpuList>().unwrap_err().to_string().contains("write `3-7`"));
        for text in ["65536", "0-65536", "99999999999999999999"] {
            assert!(text.parse::<CpuList>().unwrap_err().to_string().contains("end at 65535"), "{text}");
        }
    }

    #[test]
    fn wide_ranges_again_and_again_are_one() {
        let list: CpuList = vec!["0-65535"; 20_000].join(",").parse().unwrap();
        assert_eq!((list.as_slice().len(), list.to_string().as_str()), (65536, "0-65535"));
    }
}
