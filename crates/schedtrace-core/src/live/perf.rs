//! Programs that run at software events of perf.

use std::os::fd::IntoRawFd;

use libbpf_rs::{Link, ProgramMut};
use perf_event::Builder;
use perf_event::events::Software;

use super::kernel::refused;
use crate::error::{Error, Result};
use crate::event::Cpu;

/// Attaches a program to the major faults of every task on these CPUs. One that comes later is not looked at.
pub(super) fn attach(program: &ProgramMut<'_>, cpus: &[Cpu], step: &str) -> Result<Vec<Link>> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => Error::Privilege { why: format!("{step} was refused ({error})") },
        _ => Error::Bpf { step: step.to_owned(), why: error.to_string() },
    };
    cpus.iter()
        .map(|cpu| {
            let mut event = Builder::new(Software::PAGE_FAULTS_MAJ);
            let event = event.any_pid().one_cpu(usize::from(cpu.0)).sample_period(1).include_kernel();
            // libbpf closes what it is given.
            let event = event.build().map_err(failed)?;
            program.attach_perf_event(event.into_raw_fd()).map_err(refused(step))
        })
        .collect()
}
