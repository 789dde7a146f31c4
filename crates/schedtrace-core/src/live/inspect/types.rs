//! What BPF objects say of their own types: their BTF, by its number in the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;

use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::{DataSec, Func, Struct};
use libbpf_rs::query::BtfInfoIter;
use rustix::fs::{MemfdFlags, memfd_create};

use super::super::kernel::quiet_libbpf;
use crate::error::{Error, Result};

/// The kernel's own types, apart from those of programs.
const KERNEL: &str = "vmlinux";

/// Types by the number of their BTF.
#[derive(Debug, Default)]
pub(super) struct Types {
    by_id: BTreeMap<u32, Btf<'static>>,
    /// Which of the numbers the kernel's own types have.
    kernel_id: Option<u32>,
}

impl Types {
    /// Reads those with these numbers, as far as they are there. The kernel gives all of them in turn, its own as well:
    /// some megabytes.
    pub(super) fn read(ids: &BTreeSet<u32>) -> Self {
        let mut types = Self::default();
        for info in BtfInfoIter::default() {
            if info.name == KERNEL {
                types.kernel_id = Some(info.id);
            } else if ids.contains(&info.id)
                && let Ok(btf) = parse(&info.btf)
            {
                types.by_id.insert(info.id, btf);
            }
        }
        types
    }

    pub(super) fn get(&self, id: u32) -> Option<&Btf<'static>> {
        self.by_id.get(&id)
    }

    /// The same, for whoever needs no other.
    pub(super) fn take(&mut self, id: u32) -> Option<Btf<'static>> {
        self.by_id.remove(&id)
    }

    pub(super) fn is_kernel(&self, id: u32) -> bool {
        self.kernel_id == Some(id)
    }
}

/// BTF as the kernel gives it: the bytes of one BTF. libbpf parses files, so they become one that is nowhere on a disk.
pub(super) fn parse(raw: &[u8]) -> Result<Btf<'static>> {
    quiet_libbpf();
    let path = "/proc/self/fd";
    let failed = |why: String| Error::Bpf { step: "reading the types of a BPF object".into(), why };
    let file = memfd_create("btf", MemfdFlags::CLOEXEC).map_err(|error| failed(error.to_string()))?;
    let mut file = File::from(file);
    file.write_all(raw).map_err(|error| failed(error.to_string()))?;
    Btf::from_path(format!("{path}/{}", file.as_raw_fd())).map_err(|error| failed(error.to_string()))
}

/// The name of a function, as long as it is: the kernel keeps 15 bytes of a program's.
pub(super) fn function<'a>(btf: &'a Btf<'_>, id: u32) -> Option<&'a str> {
    btf.type_by_id::<Func<'_>>(id.into())?.name()?.to_str()
}

/// Whether these are the types of our own programs: all of them are told by what they keep their state in.
pub(super) fn are_ours(btf: &Btf<'_>) -> bool {
    let has_section = |name| btf.type_by_name::<DataSec<'_>>(name).is_some();
    has_section(".rodata.settings")
        && has_section(".data.control")
        && btf.type_by_name::<Struct<'_>>("cpu_state").is_some()
}
